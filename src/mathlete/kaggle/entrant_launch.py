"""The process of an entrant from outside: started, perhaps late, killed, started again, ended.

Knows processes; does not know what the entrant is told, nor who asks it.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mathlete.core.errors import EngineError

_MAX_WORDS = 2000  # characters
_END_S = 90.0  # that an entrant has for its report


class EntrantProcess:
    """An entrant's process, which may be started late. `pid` and `restart` may be called from another thread.

    Attributes:
        started_wall_time: seconds since the epoch, of its first start.
        num_restarts: times it was started again.
    """

    def __init__(self, command: Sequence[str], log: Path, wait_s: float = 0.0) -> None:
        """Start it after so many seconds, at once for none; what it says goes to the end of `log`."""
        self._command = command
        self._log = log
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.started_wall_time = time.time()
        self.num_restarts = 0
        self._starter = threading.Thread(target=self._start_late, args=(wait_s,), name="mathlete-start", daemon=True)
        self._starter.start()
        if not wait_s:
            self._starter.join()

    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def check(self) -> None:
        """Raise `EngineError` with its last words where it has ended by itself."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is None or self._ending.is_set():
                return
        words = self._log.read_text(encoding="utf-8", errors="replace").strip()[-_MAX_WORDS:]
        raise EngineError(
            f"the entrant ended with exit status {process.returncode} while it should serve; it said:\n{words}"
        )

    def restart(self) -> None:
        """Kill it, with no time for a last word, and start it again."""
        with self._lock:
            if self._process is not None and not self._ending.is_set():
                self._process.kill()
                self._reap(self._process)
                self.num_restarts += 1
                self._process = self._start()

    def end(self) -> None:
        """Ask it to end, and wait; it is killed when it does not, or when waiting is interrupted."""
        self._ending.set()
        self._starter.join()
        with self._lock:
            if self._process is None:
                return
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
            except BaseException:
                self._process.kill()
                raise
            finally:
                self._reap(self._process)

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _start_late(self, wait_s: float) -> None:
        if not self._ending.wait(wait_s):
            self.started_wall_time = time.time()
            self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,  # nothing is said on it: when we end, however we end, so does the entrant
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the rehearsal's to handle
            )


def free_port() -> int:
    """A port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
