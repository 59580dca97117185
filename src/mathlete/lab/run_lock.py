"""One writer per run. Knows files and process ids; does not know what is written."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from mathlete.core.errors import InputError, StorageError

_KERNEL_LOCKS = Path("/proc/locks")


def is_held(path: Path) -> bool:
    """Whether a process holds the lock at `path`, told without touching it: nobody is kept from taking it meanwhile.

    A process in another container is not seen; nor is anything where the kernel does not list its locks.
    """
    try:
        inode = path.stat().st_ino
        held = [line.split() for line in _KERNEL_LOCKS.read_text().splitlines()]
    except OSError:
        return False
    return any("FLOCK" in fields and any(field.endswith(f":{inode}") for field in fields) for fields in held)


class RunLock:
    """An exclusive `flock` that the kernel drops when the process ends, however it ends.

    The lock is on a file beside the store and not on the store, because closing any handle of a
    database file would drop the locks that SQLite itself holds on it. The file outlives the run:
    only the lock counts, the process id inside is for the message.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock at `path`, made if it is not there.

        Raises:
            InputError: another process (or another store of this one) holds it.
            StorageError: the file cannot be made.
        """
        try:
            # Not inheritable: a program started by the run must not keep the run locked after its end.
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"cannot lock the run at {path.parent}: {error.strerror} ({path})") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._handle)
            raise InputError(
                f"the run at {path.parent} is still running (pid {pid}); wait for it or stop that process first"
            ) from error
        try:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError as error:
            os.close(self._handle)
            raise StorageError(f"cannot lock the run at {path.parent}: {error.strerror} ({path})") from error

    def release(self) -> None:
        """Give the lock back. Safe to call twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
