"""One process of the Lean REPL: JSON in, JSON out, killed at a deadline or a memory limit.

Speaks the protocol of github.com/leanprover-community/repl in command mode: one JSON object, then a blank line; the
answer is one JSON object over several lines, then a blank line. Knows nothing of proofs. The process gets a scrubbed
environment and may write no file.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

MAX_RESPONSE_BYTES = 8 << 20
_CHUNK = 1 << 16
_LOOK_S = 0.1
_PASSED_ON = ("PATH", "HOME", "ELAN_HOME", "LEAN_PATH", "LEAN_SYSROOT", "LEAN_CC", "LANG", "LC_ALL", "LD_LIBRARY_PATH")

ReplFailure = Literal["timeout", "memory", "crash"]


class ReplFailed(Exception):
    """The process did not answer; it is dead now. `kind` says why."""

    def __init__(self, kind: ReplFailure, detail: str) -> None:
        """Keep the reason."""
        super().__init__(detail)
        self.kind: ReplFailure = kind


class ReplProcess:
    """A running REPL. One thread at a time."""

    def __init__(self, command: Sequence[str], directory: Path | None, memory_bytes: int) -> None:
        """Start it.

        Args:
            command: such as ("lake", "env", ".../repl").
            directory: the Lean project whose Mathlib is used; None for the current one.
            memory_bytes: resident memory of the process and its children, at most.

        Raises:
            ReplFailed: "crash" when it cannot be started.
        """
        try:
            self._child = subprocess.Popen(
                list(command),
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            raise ReplFailed("crash", f"{command[0]}: {error.strerror or error}") from error
        assert self._child.stdin is not None and self._child.stdout is not None
        self._input, self._output = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        self._memory_bytes = memory_bytes
        self._unread = b""
        self._has_answered = False

    @property
    def pid(self) -> int:
        """Its process id, which is that of its process group."""
        return self._child.pid

    def ask(self, message: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            ReplFailed: none came in time, or within the memory limit, or none that can be read. The process is killed.
        """
        deadline = time.monotonic() + timeout_s
        try:
            if self._unread or select.select([self._output], [], [], 0)[0]:
                raise ReplFailed("crash", "the Lean REPL spoke without having been asked, or has ended")
            unsent = json.dumps(message).encode() + b"\n\n"
            while (end := self._unread.find(b"\n\n")) < 0:
                unsent = self._exchange(unsent, deadline)
            answer, self._unread = self._unread[:end], self._unread[end:].lstrip(b"\n")
            parsed = json.loads(answer)
            if not isinstance(parsed, dict):
                raise ReplFailed("crash", "the Lean REPL's answer is no JSON object")
        except ReplFailed:
            self.kill()
            raise
        except (ValueError, RecursionError) as error:
            self.kill()
            raise ReplFailed("crash", f"the Lean REPL's answer is no JSON: {error}"[:300]) from error
        if not self._has_answered:  # not before: `lake` may have had to write its own cache
            self._has_answered = True
            _forbid_files(self._child.pid)
        return parsed

    def _exchange(self, unsent: bytes, deadline: float) -> bytes:
        """Write and read for a moment; returns what is still to be sent."""
        if time.monotonic() > deadline:
            raise ReplFailed("timeout", "the Lean REPL did not answer in time")
        used = resident_bytes(self._child.pid)
        if used > self._memory_bytes:
            raise ReplFailed("memory", f"the Lean REPL used {used >> 20} MiB of {self._memory_bytes >> 20} MiB")
        readable, writable, _ = select.select([self._output], [self._input] if unsent else [], [], _LOOK_S)
        try:
            if writable:
                unsent = unsent[os.write(self._input, unsent) :]
            chunk = os.read(self._output, _CHUNK) if readable else None
        except OSError as error:
            raise ReplFailed("crash", f"the Lean REPL has ended: {error.strerror}") from error
        if chunk == b"":
            raise ReplFailed("crash", "the Lean REPL has ended")
        self._unread = (self._unread + (chunk or b"")).lstrip(b"\n")
        if len(self._unread) > MAX_RESPONSE_BYTES:
            raise ReplFailed("crash", f"the Lean REPL's answer is longer than {MAX_RESPONSE_BYTES >> 20} MiB")
        return unsent

    def end(self) -> None:
        """Send the signal that ends it and its children; the only call that another thread may make."""
        if self._child.returncode is None:
            try:
                os.killpg(self._child.pid, signal.SIGKILL)
            except ProcessLookupError:
                return  # it ended by itself, and nothing is left of its group

    def kill(self) -> None:
        """End it and its children at once. Safe to call twice."""
        self.end()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


def _forbid_files(pid: int) -> None:
    """No more files and no core dumps, for the process and its descendants."""
    for current in _family(pid):
        for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            try:
                resource.prlimit(current, limit, (0, 0))
            except ProcessLookupError:
                break  # it has ended; if it was the REPL, the next command will tell


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants; 0 for one that has ended, or where there is no /proc."""
    total = 0
    for current in _family(pid):
        try:
            total += int(Path(f"/proc/{current}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue  # ended meanwhile
    return total * os.sysconf("SC_PAGE_SIZE")


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    family, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        family.append(current)
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                waiting.extend(map(int, Path(f"/proc/{current}/task/{task}/children").read_text().split()))
        except OSError:
            continue  # ended meanwhile
    return family
