"""What /proc tells of a process: memory, threads, descendants. Knows numbers, not limits.

/proc counts processes as its own namespace does, which may be another than the reader's; `number_in_proc` translates.
Only files that every user may read are used, since a confined process is shut against all others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_PAGE = os.sysconf("SC_PAGE_SIZE")


def number_in_proc(pid: int, pid_fd: int | None) -> int:
    """The number under which /proc lists a process; `pid_fd` is a descriptor of it, None where there are none."""
    if pid_fd is None:
        return pid
    try:
        with open(f"/proc/self/fdinfo/{pid_fd}") as file:
            fields = dict(line.split(":", 1) for line in file)
    except FileNotFoundError:  # no /proc here
        return 0
    return int(fields["Pid"])


def num_threads(number: int) -> int:
    """Threads of a process; 0 when it is gone."""
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[17])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def own_memory_bytes(number: int) -> int:
    """Resident memory of a process that is backed by no file; 0 when it is gone. Copies not yet made count too."""
    try:
        with open(f"/proc/{number}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(resident) - int(shared)) * _PAGE


def has_living_children(number: int) -> bool | None:
    """Whether some process that it started, or adopted, has not ended; None where the kernel does not tell."""
    try:
        return any(_state(child) not in ("Z", "X", "") for child in _children(number))
    except FileNotFoundError:
        return None


def descendants(number: int) -> Iterator[int]:
    """All processes that a process started, and those they started; none where the kernel does not tell."""
    try:
        children = _children(number)
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield child
        yield from descendants(child)


def _children(number: int) -> list[int]:
    found = []
    for thread in os.listdir(f"/proc/{number}/task"):
        with open(f"/proc/{number}/task/{thread}/children") as file:
            found += [int(word) for word in file.read().split()]
    return found


def _state(number: int) -> str:
    """The letter of /proc/*/stat; empty when it is gone."""
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def own_number() -> int:
    """The number under which /proc lists this process; 0 where there is no /proc."""
    try:
        return int(os.readlink("/proc/self"))
    except FileNotFoundError:
        return 0
