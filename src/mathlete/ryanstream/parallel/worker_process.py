"""One rank's process, from the outside: how it is started, spoken to, and ended.

It is a program of its own (`python -m mathlete.ryanstream.parallel.worker`) and not a multiprocessing child, so the
caller's `__main__` is not run again in it. Two sockets join it to rank 0: the connection, with the messages of
`messages.py`, and the lifeline, on which nothing is ever said. Whoever ends, however it ends, closes its side of the
lifeline, and the other side hears of it: no worker outlives the engine, and no engine waits for a dead worker.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from multiprocessing.connection import Connection

from mathlete.ryanstream.parallel.messages import Failed, receive_message, send_message
from mathlete.ryanstream.parallel.sharding import Shard

_END_S = 5.0


class WorkerProcess:
    """A process and the sockets to it.

    Attributes:
        shard: its rank.
        lifeline: readable once the process has ended.
    """

    def __init__(self, shard: Shard, send_timeout_s: float) -> None:
        """Start it. A message that it does not read within `send_timeout_s` is an `OSError`."""
        ours, theirs = socket.socketpair()
        self.lifeline, their_lifeline = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", max(1, round(send_timeout_s)), 0))
        self.shard = shard
        self._connection = Connection(ours.detach())
        with theirs, their_lifeline:
            inherited = (theirs.fileno(), their_lifeline.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mathlete.ryanstream.parallel.worker", *map(str, inherited)],
                pass_fds=inherited,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ours may be JSON
                start_new_session=True,  # Ctrl-C is for the engine's process, which ends the workers
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def name(self) -> str:
        """For a person."""
        return f"rank {self.shard.rank} of {self.shard.world} (process {self.pid})"

    def send(self, message: object) -> None:
        """Raises `OSError` when the process is gone or does not read."""
        send_message(self._connection, message)

    def receive(self) -> object:
        """What it says next. Raises `EOFError` or `OSError` when it has ended."""
        return receive_message(self._connection)

    def has_spoken(self, timeout_s: float) -> bool:
        """Whether `receive` would return, or raise, at once; waits up to `timeout_s` for that."""
        return self._connection.poll(timeout_s)

    def last_words(self) -> str | None:
        """Of an ended process: the text of the `Failed` that it left, if any."""
        try:
            while True:
                message = self.receive()
                if isinstance(message, Failed):
                    return message.text
        except (EOFError, OSError):  # nothing more
            return None

    def way_of_ending(self) -> str:
        """Of an ended process, as the end of a sentence."""
        status = self.reap()
        if status >= 0:
            return f"ended with exit status {status} (its messages are on the error output)"
        name = signal.Signals(-status).name
        if status == -signal.SIGKILL:
            return f"was killed by {name} (if nobody did that, the system ran out of memory: use less of it)"
        return f"was killed by {name}"

    def reap(self) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        return self._process.wait()

    def kill(self) -> None:
        """SIGKILL; nothing when it has ended."""
        self._process.kill()

    def hang_up(self) -> None:
        """Close the connection and let go of the lifeline, at which it ends at once. Safe to call twice."""
        if not self._connection.closed:
            self._connection.close()
            self.lifeline.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """After `hang_up`: wait for the end, and do not wait long."""
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:  # stopped, or deep in the kernel
            self._process.kill()
            self._process.wait()
