"""What lies outside the sandbox in these tests, and how it is told that nothing happened to it."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from sandbox_probe import processes_named

_SHARED_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run")
_WATCHED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP, signal.SIGIO, signal.SIGCHLD)


class Arena:
    """A folder with a secret, services that listen, a process that sleeps, and this process itself.

    Attributes:
        secret: what stands in the file, in this process' environment and memory.
    """

    def __init__(self, folder: Path) -> None:
        self.secret = "secret-" + secrets.token_hex(16)
        self._folder = folder
        self._canary = folder / "canary"
        self._canary.write_text(self.secret)
        os.setxattr(self._canary, "user.canary", b"sings") if _has_attributes(folder) else None
        self._mark = "mlattack"
        self._sockets_dir = tempfile.TemporaryDirectory(prefix="arena-")  # a socket's path must be short
        place = self._sockets_dir.name
        kinds = socket.SOCK_STREAM, socket.SOCK_DGRAM
        abstract = [f"\0arena-{secrets.token_hex(4)}" for _ in kinds]
        self._sockets = [
            _bound(socket.AF_INET, kinds[0], ("127.0.0.1", 0)),
            _bound(socket.AF_INET, kinds[1], ("127.0.0.1", 0)),
            *(_bound(socket.AF_UNIX, kind, f"{place}/{int(kind)}") for kind in kinds),
            *(_bound(socket.AF_UNIX, kind, name) for kind, name in zip(kinds, abstract, strict=True)),
        ]
        self._victim = subprocess.Popen(["sleep", "1000"])
        self._signals: list[int] = []
        self._handlers = {number: signal.signal(number, self._count) for number in _WATCHED_SIGNALS}
        self.names: dict[str, Any] = {
            "CANARY": str(self._canary),
            "FOLDER": str(folder),
            "OUR_FILE": __file__,
            "PARENT": os.getpid(),
            "VICTIM": self._victim.pid,
            "PORT": self._sockets[0].getsockname()[1],
            "UDP_PORT": self._sockets[1].getsockname()[1],
            "STREAM_SOCKET": self._sockets[2].getsockname(),
            "DATAGRAM_SOCKET": self._sockets[3].getsockname(),
            "ABSTRACT": abstract[0][1:],
            "ABSTRACT_DATAGRAM": abstract[1][1:],
            "MARK": self._mark,
        }
        self._before = self._state()

    def _count(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:  # the tests' own children
            self._signals.append(number)

    def _state(self) -> dict[str, object]:
        canary = self._canary.stat()
        attributes = os.listxattr(self._canary) if _has_attributes(self._folder) else []
        state: dict[str, object] = {
            "canary": (self._canary.read_text(), canary.st_mode, canary.st_uid, canary.st_mtime_ns, canary.st_nlink),
            "attributes": attributes,
            "folder": sorted(os.listdir(self._folder)),
            "host": (socket.gethostname(), os.uname().nodename),
            "working directory": os.getcwd(),
            "null device": os.stat("/dev/null").st_mode,
        }
        for pid in (os.getpid(), self._victim.pid):
            state[f"process {pid}"] = (
                [resource.prlimit(pid, kind) for kind in (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)],
                [resource.prlimit(pid, kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE)],
                os.getpriority(os.PRIO_PROCESS, pid),
                os.sched_getaffinity(pid),
                os.sched_getscheduler(pid),
            )
        return state

    def check(self) -> None:
        """Fail when anything happened to anything out here."""
        assert self._state() == self._before
        assert self._victim.poll() is None, "the victim was killed"
        with open(f"/proc/{self._victim.pid}/stat") as file:
            assert file.read().rpartition(")")[2].split()[0] in "SR", "the victim was stopped"
        assert self._signals == [], "this process was sent signals"
        assert abs(time.time() - time.clock_gettime(time.CLOCK_REALTIME)) < 1 and time.time() > 1.6e9
        for one in self._sockets:
            self._check_silent(one)
        left = [f"{place}/{name}" for place in _SHARED_PLACES for name in _listed(place) if self._mark in name]
        assert left == [], "files were left"

    def check_no_process(self) -> None:
        """Fail when a process of an attack is left; for when none runs, though the system may be about to reap some."""
        give_up_s = time.monotonic() + 5
        while (left := processes_named(self._mark)) and time.monotonic() < give_up_s:
            time.sleep(0.01)
        assert left == [], "processes were left"

    def _check_silent(self, one: socket.socket) -> None:
        try:
            heard = one.accept() if one.type == socket.SOCK_STREAM else one.recv(99)
        except BlockingIOError:
            return
        raise AssertionError(f"{one} was spoken to: {heard!r}")

    def close(self) -> None:
        """Put everything away."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._victim.kill()
        self._victim.wait()
        for one in self._sockets:
            one.close()
        self._sockets_dir.cleanup()


def _bound(family: int, kind: int, address: Any) -> socket.socket:
    one = socket.socket(family, kind)
    one.bind(address)
    if kind == socket.SOCK_STREAM:
        one.listen()
    one.setblocking(False)
    return one


def _has_attributes(folder: Path) -> bool:
    """Whether files in a folder can have extended attributes."""
    try:
        os.setxattr(folder, "user.probe", b"")
        os.removexattr(folder, "user.probe")
    except OSError:
        return False
    return True


def _listed(place: str) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []
