"""Starting a zygote and asking it for sessions, from the side of the pool. Knows descriptors, not results."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from mathlete.sandbox.isolation import Fence
from mathlete.sandbox.wire import Wire

_SOURCE_ROOT = str(Path(__file__).parents[2])
# Ours is found last and only by the zygote, so that nothing beside it shadows the interpreter's own modules.
_BOOT = "import sys; sys.path.append(sys.argv[1]); from mathlete.sandbox import zygote; zygote.main(int(sys.argv[2]))"
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the order of a set is the same each time; the reason why -I cannot be used
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # One processor a program; and a process that forks must not have threads.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def _environment() -> dict[str, str]:
    """What the zygote is told. Without our own library path an interpreter from a module system does not start."""
    library_path = os.environ.get("LD_LIBRARY_PATH")
    return _ENVIRONMENT if library_path is None else {**_ENVIRONMENT, "LD_LIBRARY_PATH": library_path}


class Zygote:
    """A running zygote process. Not thread-safe."""

    def __init__(self) -> None:
        """Start it; returns at once, while it is still importing.

        Raises:
            OSError: when no process or socket can be made.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = ours
        self._errors = open(os.memfd_create("errors"), "w+b")
        command = [sys.executable, "-s", "-P", "-c", _BOOT, _SOURCE_ROOT, str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=_environment(),
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is the pool's to handle
            )
        except OSError:
            self.socket.close()
            self._errors.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def start_session(self, fence: Fence, *, keeps_state: bool) -> Wire:
        """Ask for a supervisor (`sandbox.supervisor`) and return the wire to it, which never waits.

        Raises:
            OSError: when the zygote is dead or descriptors have run out.
        """
        ours, theirs = Wire.pair()
        wire = Wire(ours)
        try:
            wire.set_blocking(False)
            terms = {**asdict(fence), "without": sorted(fence.without)}
            wire.send({"fence": terms, "keeps_state": keeps_state})
            socket.send_fds(self.socket, [b"s"], [theirs.fileno()])
        except OSError:
            wire.close()
            raise
        finally:
            theirs.close()
        return wire

    def end(self) -> str:
        """Kill and reap it; running programs go on. Returns the end of what it wrote to stderr."""
        self._process.kill()
        self._process.wait()
        self.socket.close()
        with self._errors:
            self._errors.seek(0)
            return self._errors.read()[-2000:].decode("utf-8", "replace")
