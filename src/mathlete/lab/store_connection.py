"""Opening the file of a run store, and saying what SQLite says in words for a person.

Knows files, SQLite's ways of opening one, and its errors. Does not know the tables (`lab.store_schema`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from mathlete.core.errors import InputError, MathleteError, StorageError

ALL_SAFE = "everything recorded so far is safe"

_BUSY_TIMEOUT_S = 5.0
_MAX_LOG_PAGES = 128  # 512 KiB: the write-ahead log is folded into the file before a small disk is full of it


def connect_for_writing(path: Path, mode: Literal["rw", "rwc"]) -> sqlite3.Connection:
    """A connection that may write; with "rwc" the file is made when it is not there."""
    return _connect(path, f"mode={mode}")


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that reads; it works beside a writer, and on a folder where nothing may be written."""
    connection = _connect(path, "mode=ro")
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        connection.close()
        log = path.with_name(f"{path.name}-wal")
        if _kind(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or (
            log.exists() and log.stat().st_size > 0
        ):
            raise
        # SQLite wants to make its shared memory beside the file and may not. With the log empty nobody writes, and all
        # that was recorded is in the file itself.
        connection = _connect(path, "mode=ro&immutable=1")
    # In place of a check of the whole file, which takes seconds for 2 GB: the cells of each page that is read are
    # checked, a file that is cut short is refused by SQLite, and long events carry a checksum (zlib's).
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def make_durable(connection: sqlite3.Connection) -> None:
    """Sync every transaction to the disk before it counts (see `lab.run_store`)."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_MAX_LOG_PAGES}")


def check_is_file(path: Path) -> None:
    """Raise `InputError` when there is no file at `path`."""
    # Only looks: to open the file and close it again would drop the locks of a store of this process.
    if not path.is_file():
        raise InputError(f"there is no run store at {path}; check the name of the run")


def check_whole_file(path: Path, connection: sqlite3.Connection) -> None:
    """Raise `StorageError` when a page of the file is not as it must be. Takes about a second a gigabyte."""
    (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise damaged(path, problem)


@contextmanager
def reporting(path: Path, doing: str, safe: str) -> Iterator[None]:
    """Turn what SQLite says into an error for a person.

    Args:
        path: of the store.
        doing: what is being done, a verb.
        safe: what is not lost.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(path, error, doing, safe) from error


def damaged(path: Path, problem: str) -> StorageError:
    """The error for a store whose content is not as it was written."""
    return StorageError(
        f"the run store {path} is damaged: {problem}. Keep a copy of its folder; "
        f"`sqlite3 {path.name} .recover` saves what is whole, and a new run starts afresh"
    )


def _connect(path: Path, options: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT_S)


def _explained(path: Path, error: sqlite3.Error, doing: str, safe: str) -> MathleteError:
    kind = _kind(error)
    if kind == sqlite3.SQLITE_NOTADB:
        return InputError(f"{path} is not a run store (not an SQLite file); check the name of the run")
    if kind == sqlite3.SQLITE_CORRUPT:
        return damaged(path, str(error))
    is_full = kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # a full disk shows as either
    advice = "free some space on that disk" if is_full else "check that its folder can be written and nobody holds it"
    return StorageError(f"cannot {doing} the run store {path}: {error}; {safe}; {advice}, then resume the run")


def _kind(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the rest its details
