"""Processes that a supervisor holds: whether they live, and ending them with all that they started.

Knows processes and signals; does not know why anything is to end.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from typing import Self

from mathlete.sandbox import process_table

COPY_PATIENCE_S = 5.0  # for a copy to say that it is there, and to be gone after a kill


@dataclass(slots=True)
class Process:
    """A confined process: its id, a descriptor of it (None where there are none), and its number in /proc."""

    pid: int
    fd: int | None
    number: int

    @classmethod
    def of(cls, pid: int, *, translated: bool) -> Self:
        """The process with this id, which cannot have been reaped yet.

        Args:
            pid: as this process counts.
            translated: /proc counts otherwise.
        """
        fd = _open_process(pid)
        return cls(pid, fd, process_table.number_in_proc(pid, fd) if translated else pid)

    def is_alive(self) -> bool:
        """Whether it has not ended; unknown, and so False, without a descriptor."""
        return self.fd is not None and not is_ready(self.fd)

    def kill(self) -> None:
        """End it, and wait until it cannot read any more what is sent to the session; for one with a descriptor."""
        if self.fd is None:
            return
        try:
            signal.pidfd_send_signal(self.fd, signal.SIGKILL)
        except ProcessLookupError:
            return
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        poller.poll(1000 * COPY_PATIENCE_S)

    def close(self) -> None:
        """Close its descriptor."""
        if self.fd is not None:
            os.close(self.fd)


def is_ready(descriptor: int) -> bool:
    """Whether there is something to read, or its end."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


def _open_process(pid: int) -> int | None:
    """A descriptor that is readable once the process has ended; None where there is none (before Linux 5.3)."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # this Python does not know the call, or the kernel does not
        return None


def has_ended(pid: int) -> bool:
    """Whether a child has ended; it is not reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end_namespace() -> None:
    """Kill and reap everybody else in the namespace, for its first process: whose parent has ended is its child."""
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except (ProcessLookupError, ChildProcessError):
        return  # there is nobody


def end_group(pid: int) -> None:
    """Kill a process, not reaped yet, and its group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it had not got so far as to lead a group


def end_orphans() -> None:
    """Kill what left the program's group; orphans become children of this process, the "subreaper"."""
    while True:
        with open("/proc/thread-self/children") as file:
            children = [int(word) for word in file.read().split()]
        for child in children:
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
