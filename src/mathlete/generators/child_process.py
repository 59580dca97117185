"""The process that holds an engine, from the outside: how it is started, spoken to, and ended.

It is a program of its own (`python -m mathlete.generators.child_worker`) and not a multiprocessing child, so that the
caller's `__main__` is not run again in it. It leads a session: Ctrl-C in a terminal does not reach it, and what it
starts itself (vLLM's own processes) is ended with it. Besides the connection there is a lifeline, on which nothing is
said: when we end, however we end, our side of it closes, and the process ends itself and what it started.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from mathlete.generators.child_messages import send_message


class ChildProcess:
    """A process and the connection to it.

    Attributes:
        connection: to it.
        has_ended: readable once it has ended.
    """

    def __init__(self, send_s: float) -> None:
        """Start it; sending to it fails when it takes nothing for `send_s`. Raises `OSError` when the system cannot."""
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", math.ceil(send_s), 0))
        self._lifeline, their_lifeline = socket.socketpair()
        self.connection = Connection(ours.detach())
        try:
            with theirs, their_lifeline:
                inherited = (theirs.fileno(), their_lifeline.fileno())
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "mathlete.generators.child_worker", *map(str, inherited)],
                    pass_fds=inherited,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # ours may be JSON; engines log to either
                    start_new_session=True,
                )
        except BaseException:
            self.connection.close()
            self._lifeline.close()
            raise
        try:
            self.has_ended = os.pidfd_open(self._process.pid)
        except OSError:  # not allowed in some containers; the lifeline tells the same, unless a fork of it holds on
            self.has_ended = os.dup(self._lifeline.fileno())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Raises `OSError` when it is gone."""
        send_message(self.connection, message)

    def end(self, patience_s: float = 0.0) -> str:
        """Wait for its end so long, then kill it and all that it started. Safe to call twice.

        Returns:
            how it ended, as the end of a sentence.
        """
        if self._process.returncode is None:
            wait([self.has_ended], patience_s)
            with suppress(ProcessLookupError, PermissionError):  # not reaped yet, so its number is still its own
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self.has_ended)
            self.connection.close()
            self._lifeline.close()
        return _way_of_ending(self._process.returncode)


def _way_of_ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status} (its messages are on the error output)"
    name = signal.Signals(-status).name
    if status == -signal.SIGKILL:
        return f"was killed by {name} (if nobody did that, the system ran out of memory: use less of it)"
    return f"was killed by {name}"
