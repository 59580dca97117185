"""Starting a zygote and handing it jobs, from the side of the pool. Knows descriptors, not results."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from mathlete.sandbox.isolation import Fence

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


@dataclass(frozen=True, slots=True)
class ProgramPipes:
    """The pool's ends of what connects it to one program; closed by `close`.

    Attributes:
        out: read end of stdout, non-blocking.
        err: read end of stderr, non-blocking.
        status: read end of the supervisor's messages, non-blocking; at its end the program is gone.
        control: write end; closing it ends the program.
    """

    out: int
    err: int
    status: int
    control: int


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

    def start_program(self, code: str, fence: Fence) -> ProgramPipes:
        """Ask for a program; it reports on `status` when it starts.

        Raises:
            OSError: when the zygote is dead or descriptors have run out.
        """
        pipes: list[int] = []
        with open(os.memfd_create("job"), "wb") as job:  # in memory: a full disk stops nothing
            text = json.dumps({"code": code, "fence": {**asdict(fence), "without": sorted(fence.without)}})
            job.write(text.encode())
            job.flush()
            job.seek(0)
            try:
                for _ in range(4):
                    pipes += os.pipe()
                out, out_w, err, err_w, status, status_w, control_r, control = pipes
                socket.send_fds(self.socket, [b"j"], [job.fileno(), out_w, err_w, status_w, control_r])
            except OSError:
                for descriptor in pipes:
                    os.close(descriptor)
                raise
        for descriptor in (out_w, err_w, status_w, control_r):
            os.close(descriptor)
        for descriptor in (out, err, status):
            os.set_blocking(descriptor, False)
        return ProgramPipes(out, err, status, control)

    def end(self) -> str:
        """Kill and reap it; running programs go on. Returns the end of what it wrote to stderr."""
        self._process.kill()
        self._process.wait()
        self.socket.close()
        with self._errors:
            self._errors.seek(0)
            return self._errors.read()[-2000:].decode("utf-8", "replace")
