"""The trace of a run on disk: an append-only table of events in SQLite.

Knows events, their order and the ways in which a disk can fail. Does not know what the events mean
(`core.record.fold_run` does) nor where the run's folder is (`lab.run_folder` does).

Durability: the journal is a write-ahead log and `synchronous` is FULL, so `append` returns after the
event has been synced. A crash of the process loses no event whose `append` returned, and neither does
a loss of power on a disk that keeps its word about syncing. It costs about 1 ms an event, sometimes 15,
against 0.01 ms with NORMAL (which may lose the last events to a loss of power); a run has a few
thousand events in an hour.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from mathlete.core.errors import InputError, MathleteError, StorageError
from mathlete.core.trace import SCHEMA_VERSION, EventKind, TraceEvent
from mathlete.lab.run_lock import RunLock

STORE_VERSION = 1  # of the table below (`user_version`); the payload's own version is `TraceEvent.version`

_APPLICATION_ID = 0x4D74686C  # "Mthl": tells a run from any other SQLite file
_COMPRESS_FROM_BYTES = 1024  # below, a payload stays readable text; above, it is mostly arrays of logprobs
_BUSY_TIMEOUT_S = 5.0
_ALL_SAFE = "everything recorded so far is safe"

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    at_s REAL NOT NULL,
    wall_time REAL NOT NULL,
    problem_id TEXT,
    attempt_id TEXT,
    version INTEGER NOT NULL,
    data NOT NULL  -- JSON text, or a zlib blob of it
);
CREATE TRIGGER events_never_change BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_never_go BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {STORE_VERSION};
COMMIT;
"""
_INSERT = (
    "INSERT INTO events (kind, at_s, wall_time, problem_id, attempt_id, version, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_SELECT = "SELECT seq, kind, at_s, wall_time, problem_id, attempt_id, version, data FROM events ORDER BY seq"

_Row = tuple[str, float, float, str | None, str | None, int, str | bytes]


class RunStore:
    """The events of one run, appended as they happen. One writer at a time; used by one thread.

    Implements `core.protocols.TraceSink`. Make one with `create`, `open` or `read`.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: RunLock | None) -> None:
        """Wrap an open connection; `lock` is None for a store that only reads."""
        self.path = path
        self._connection = connection
        self._lock = lock

    @classmethod
    def create(cls, path: Path) -> RunStore:
        """A new, empty store at `path`, open for writing.

        Raises:
            InputError: something is there already, or another process holds this run.
            StorageError: the file cannot be written.
        """
        if path.exists():
            raise InputError(f"there is a run at {path} already; resume it or choose another folder")
        with ExitStack() as undo, _reporting(path, "make", "nothing of the run had been recorded yet"):
            lock = RunLock(_lock_path(path))
            undo.callback(lock.release)
            connection = _connect(path, "rwc")
            undo.callback(connection.close)
            _set_durability(connection)
            connection.executescript(_SCHEMA)
            undo.pop_all()
        return cls(path, connection, lock)

    @classmethod
    def open(cls, path: Path) -> RunStore:
        """The store at `path`, checked and open for writing: what was interrupted can go on.

        Raises:
            InputError: there is no run, it was written by a newer version, or it is still running.
            StorageError: the file is damaged or cannot be opened.
        """
        _check_is_file(path)
        with ExitStack() as undo, _reporting(path, "open", _ALL_SAFE):
            lock = RunLock(_lock_path(path))
            undo.callback(lock.release)
            connection = _connect(path, "rw")
            undo.callback(connection.close)
            _check_content(path, connection)
            _set_durability(connection)
            undo.pop_all()
        return cls(path, connection, lock)

    @classmethod
    def read(cls, path: Path) -> RunStore:
        """The store at `path` for reading only; works while the run is being written.

        Raises:
            InputError: there is no run, or it was written by a newer version.
            StorageError: the file is damaged or cannot be opened.
        """
        _check_is_file(path)
        with ExitStack() as undo, _reporting(path, "open", _ALL_SAFE):
            connection = _connect(path, "ro")
            undo.callback(connection.close)
            _check_content(path, connection)
            undo.pop_all()
        return cls(path, connection, None)

    def append(self, event: TraceEvent) -> None:
        """Keep one event; it is on the disk when this returns.

        Raises:
            StorageError: it could not be written. The store stays usable: once there is room again,
                the next `append` works.
        """
        self.append_many((event,))

    def append_many(self, events: Iterable[TraceEvent]) -> None:
        """Keep several events, all of them or none (one transaction).

        Raises:
            StorageError: as for `append`.
        """
        rows = [_encode_row(event) for event in events]
        with _reporting(self.path, "write", "every event before this one is safe"):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(_INSERT, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def events(self) -> Iterator[TraceEvent]:
        """All events in the order in which they were appended.

        Raises:
            StorageError: an event cannot be read.
        """
        with _reporting(self.path, "read", _ALL_SAFE):
            for seq, *row in self._connection.execute(_SELECT):
                yield self._decode_row(seq, cast(_Row, tuple(row)))

    def close(self) -> None:
        """Fold the write-ahead log into the file and let others write. Safe to call twice."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunStore:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _decode_row(self, seq: int, row: _Row) -> TraceEvent:
        kind, at_s, wall_time, problem_id, attempt_id, version, payload = row
        try:
            data: dict[str, Any] = json.loads(zlib.decompress(payload) if isinstance(payload, bytes) else payload)
        except (ValueError, zlib.error) as error:
            raise _damaged(self.path, f"event {seq} cannot be decoded ({error})") from error
        return TraceEvent(cast(EventKind, kind), at_s, data, problem_id, attempt_id, wall_time, version)


def _encode_row(event: TraceEvent) -> _Row:
    text = json.dumps(dict(event.data), separators=(",", ":"))
    payload = text if len(text) < _COMPRESS_FROM_BYTES else zlib.compress(text.encode("ascii"))
    return (event.kind, event.at_s, event.wall_time, event.problem_id, event.attempt_id, event.version, payload)


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT_S)


def _set_durability(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _check_is_file(path: Path) -> None:
    # Only looks: to open the file and close it again would drop the locks of a store of this process.
    if not path.is_file():
        raise InputError(f"there is no run store at {path}; check the name of the run")


def _check_content(path: Path, connection: sqlite3.Connection) -> None:
    (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise _damaged(path, problem)
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != _APPLICATION_ID:
        raise InputError(f"{path} is an SQLite file but not a run store, or its run ended before it began")
    (store_version,) = connection.execute("PRAGMA user_version").fetchone()
    (event_version,) = connection.execute("SELECT COALESCE(MAX(version), 0) FROM events").fetchone()
    if store_version > STORE_VERSION or event_version > SCHEMA_VERSION:
        raise InputError(
            f"the run store at {path} was written by a newer Mathlete (store {store_version}, events {event_version}; "
            f"this one reads up to {STORE_VERSION} and {SCHEMA_VERSION}); use that version"
        )


@contextmanager
def _reporting(path: Path, doing: str, safe: str) -> Iterator[None]:
    """Turn what SQLite says into an error for a person."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(path, error, doing, safe) from error


def _explained(path: Path, error: sqlite3.Error, doing: str, safe: str) -> MathleteError:
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the rest its details
    if kind == sqlite3.SQLITE_NOTADB:
        return InputError(f"{path} is not a run store (not an SQLite file); check the name of the run")
    if kind == sqlite3.SQLITE_CORRUPT:
        return _damaged(path, str(error))
    is_full = kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # a full disk shows as either
    advice = "free some space on that disk" if is_full else "check that its folder can be written and nobody holds it"
    return StorageError(f"cannot {doing} the run store {path}: {error}; {safe}; {advice}, then resume the run")


def _damaged(path: Path, problem: str) -> StorageError:
    return StorageError(
        f"the run store {path} is damaged: {problem}. Keep a copy of its folder; "
        f"`sqlite3 {path.name} .recover` saves what is whole, and a new run starts afresh"
    )
