"""What the sandbox's tests share: running a program to its end, and looking for what it left behind."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from mathlete.core.code import CodeLimits, ToolResult
from mathlete.sandbox.pool import SandboxPool

NAMESPACES = frozenset({"userns", "pidns", "netns", "ipcns", "mntns"})
_ids = itertools.count()


def run(pool: SandboxPool, code: str, limits: CodeLimits | None = None) -> ToolResult:
    """Run a program and wait for its end."""
    run_id = f"run{next(_ids)}"
    pool.submit(run_id, code, limits or CodeLimits(wall_s=5))
    return wait_for(pool, [run_id])[run_id]


def wait_for(pool: SandboxPool, run_ids: Iterable[str], patience_s: float = 30) -> dict[str, ToolResult]:
    """Results of these runs; fails the test when they do not come."""
    missing, results = set(run_ids), {}
    give_up_s = time.monotonic() + patience_s
    while missing:
        assert time.monotonic() < give_up_s, f"no result for {sorted(missing)}"
        for done in pool.poll():
            missing.remove(done.run_id)
            results[done.run_id] = done.result
        time.sleep(0.001)
    return results


def need(pool: SandboxPool, *layers: str) -> None:
    """Skip the test where this machine does not permit a layer."""
    missing = set(layers) - set(pool.describe_isolation())
    if missing:
        pytest.skip(f"this machine does not permit: {', '.join(sorted(missing))}")


def processes_named(name: str) -> list[int]:
    """Process ids by the name that a program gave itself with `named`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                comm = Path("/proc", entry, "comm").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if comm.strip() == name:
                found.append(int(entry))
    return found


def named(name: str) -> str:
    """Code by which a program takes a name, at most 15 letters, that its children inherit."""
    return f"import ctypes, os, time, sys\nctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0)\n"


def children_of(pid: int) -> list[int]:
    """Processes, zombies included, whose parent is `pid`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat.rpartition(b")")[2].split()[1]) == pid:
                found.append(int(entry))
    return found
