"""Deciding, one by one, on the system calls that the filter does not decide: signals and new processes.

A filter is fixed when it is laid, but which process may be sent a signal, and when the session's process may make the
one copy of itself, changes with each program. So the kernel asks the supervisor ("seccomp user notification", Linux
5.5). All that is decided on are numbers in registers, which nobody can change between question and answer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")  # id, thread, flags, call, architecture, instruction, arguments
_RESPONSE = struct.Struct("<QqiI")  # id, value, error, flags
_CONTINUE = 1
_FORK_ALONE = 17  # SIGCHLD, and no other flag but those with which libc keeps its thread id
_LIBC_FORK_FLAGS = 0x01200000  # CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID


class Gate:
    """Answers the kernel's questions about one confined process."""

    def __init__(self, listener: int, clone_call: int) -> None:
        """Take over a listener; `clone_call` is the number of the system call that makes processes."""
        self._listener = listener
        self._clone_call = clone_call
        self.may_signal = 0  # the only process that may be sent a signal
        self.may_fork = 0  # the process whose main thread may fork, once

    def fileno(self) -> int:
        """The descriptor, readable when there is a question."""
        return self._listener

    def answer(self) -> None:
        """Answer the question at hand."""
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, buffer)
            question, thread, _, call, _, _, *arguments = _NOTIFICATION.unpack(buffer)
            allowed = self.allows(thread, call, arguments)
            error, flags = (0, _CONTINUE) if allowed else (-errno.EPERM, 0)
            fcntl.ioctl(self._listener, _SEND, bytearray(_RESPONSE.pack(question, 0, error, flags)))
        except OSError as error_now:
            if error_now.errno not in (errno.ENOENT, errno.EINTR):  # ENOENT: whoever asked has died
                raise

    def allows(self, thread: int, call: int, arguments: list[int]) -> bool:
        """Whether a call may go on; a fork that may uses up its permission. Every other call here is a signal."""
        if call != self._clone_call:
            return arguments[0] & 0xFFFFFFFF == self.may_signal
        if thread != self.may_fork or arguments[0] & ~_LIBC_FORK_FLAGS != _FORK_ALONE:
            return False
        self.may_fork = 0
        return True

    def close(self) -> None:
        """Close the listener: what would be asked from now on fails."""
        os.close(self._listener)
