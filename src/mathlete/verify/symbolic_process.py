"""One worker process (`symbolic_worker.py`, `equivalence_worker.py`) from outside: started, spoken to, killed.

Knows pipes and lines; what the lines say is the business of `symbolic.py` and `algebra_process.py`.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "mathlete.verify.symbolic_worker")
MAX_LINE_BYTES = 4 << 20
"""More without a line's end is garbage."""
_CHUNK = 1 << 16


class SymbolicProcess:
    """A worker. Whatever goes wrong with it shows in `failed`, never as an exception."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        """Start it. Raises `OSError` when that cannot be done."""
        self.started_s = time.monotonic()
        self._child = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "PYTHONHASHSEED": "0",
            },
            start_new_session=True,  # Ctrl-C is for the process that drives
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._input, self._output = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        self._unsent = b""
        self._unread = b""
        self.failed = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand over one line; what the pipe does not take now goes with the next `receive`."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self._flush()

    def receive(self) -> list[dict[str, Any]]:
        """All whole lines that have come; none when nothing has, or when it failed."""
        self._flush()
        lines: list[dict[str, Any]] = []
        while not self.failed:
            try:
                chunk = os.read(self._output, _CHUNK)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            if not chunk:
                self.failed = True
            self._unread += chunk
            *whole, self._unread = self._unread.split(b"\n")
            lines.extend(self._parsed(whole))
            self.failed = self.failed or len(self._unread) > MAX_LINE_BYTES
        return lines

    def wait(self, timeout_s: float) -> None:
        """Sleep until there may be something to receive, or the time is over."""
        if not self.failed:
            writable = [self._input] if self._unsent else []
            select.select([self._output], writable, [], timeout_s)

    def kill(self) -> None:
        """End it at once, stopped or not. Safe to call twice."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        self.failed = True

    def _flush(self) -> None:
        if not self._unsent or self.failed:
            return
        try:
            self._unsent = self._unsent[os.write(self._input, self._unsent) :]
        except BlockingIOError:
            return
        except OSError:  # it has ended; the end of its output says so too
            self._unsent = b""

    def _parsed(self, lines: Sequence[bytes]) -> list[dict[str, Any]]:
        parsed: list[dict[str, Any]] = []
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                self.failed = True
                break
            parsed.append(message)
        return parsed
