"""Processes below another one, as Linux tells of them. Knows /proc; does not know what the processes are for."""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A running process.

    Attributes:
        pid: its id.
        parent: id of the process that started it, or inherited it.
        command: its command line, with spaces.
    """

    pid: int
    parent: int
    command: str


def descendants(pid: int) -> list[ProcessEntry]:
    """All processes below one, parents before their children; zombies are left out."""
    children: dict[int, list[ProcessEntry]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdecimal() and (entry := _read(folder)) is not None:
            children.setdefault(entry.parent, []).append(entry)
    found, ahead = [], [pid]
    while ahead:
        below = sorted(children.get(ahead.pop(), ()), key=lambda entry: entry.pid)
        found += below
        ahead += [entry.pid for entry in below]
    return found


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal; one without may die of it."""
    with suppress(OSError, ValueError):  # it has ended meanwhile
        for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _read(folder: Path) -> ProcessEntry | None:
    with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
        # The name stands in brackets and may hold anything.
        state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        if state not in ("Z", "X"):
            return ProcessEntry(int(folder.name), int(parent), command)
    return None
