"""Writing large files safely: room on the disk, placing a file in one step, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mathlete.core.errors import StorageError

CHUNK_BYTES = 4 * 2**20
LOCK_POLL_S = 0.2


def describe_bytes(num_bytes: int) -> str:
    """A size for a person, exact and rounded: `1,117,320,768 bytes (1.12 GB)`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= size:
            return f"{num_bytes:,} bytes ({num_bytes / size:.2f} {unit})"
    return f"{num_bytes:,} bytes"


def disk_full(folder: Path, *, needed: int, kept: int) -> StorageError:
    """The error for a pull that does not fit: `needed` more bytes in `folder`, `kept` bytes already there."""
    free = _free_bytes(folder)
    lost = f"Nothing was lost: {describe_bytes(kept)} already fetched are kept." if kept else "Nothing was lost."
    return StorageError(
        f"The disk is full: {describe_bytes(needed)} more are needed in {folder}, {describe_bytes(free)} are free. "
        f"{lost} Make room, or set MATHLETE_CACHE to a folder on a larger disk, and run the same command again."
    )


def require_room(folder: Path, *, needed: int, kept: int) -> None:
    """Raise `StorageError` when fewer than `needed` bytes are free in `folder`."""
    if _free_bytes(folder) < needed:
        raise disk_full(folder, needed=needed, kept=kept)


def _free_bytes(folder: Path) -> int:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(existing).free


@contextmanager
def explaining_disk_errors(folder: Path, *, needed: int, kept: int) -> Iterator[None]:
    """Turn the operating system's errors of writing in `folder` into `StorageError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder, needed=needed, kept=kept) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StorageError(
                f"{error.filename or folder} cannot be written ({error.strerror}). Set MATHLETE_CACHE to a folder "
                "you may write to."
            ) from error
        raise


def sha256_of(path: Path, on_bytes: Callable[[int], None]) -> str:
    """The file's checksum, lower-case hexadecimal; `on_bytes` hears the bytes read so far."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(file.tell())
    return digest.hexdigest()


def flush_to_disk(file: IO[Any]) -> None:
    """Return when all that was written to `file` is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def write_durably(path: Path, text: str) -> None:
    """Replace a small text file so that a crash leaves the old content or the new, never half."""
    draft = path.with_name(path.name + ".new")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        flush_to_disk(file)
    os.replace(draft, path)


def place(source: Path, target: Path) -> None:
    """Move a finished file to its name in one step, after its bytes are safe on the disk."""
    _fsync(source)
    os.replace(source, target)
    _fsync(target.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; `on_wait` is called while another process (or thread) holds it.

    The operating system drops the lock when its holder dies, so a killed pull never blocks the next.
    """
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_wait()
                time.sleep(LOCK_POLL_S)
        yield
