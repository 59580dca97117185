"""The traces of runs on disk: append-only tables of events in SQLite.

Knows events, their order and which run they are of. Does not know what the events mean (`core.record.fold_run` does),
nor where a run's folder is (`lab.run_folder` does). A live run has a store of its own; `lab.gathering` puts many runs
into one.

Durability: the journal is a write-ahead log and `synchronous` is FULL, so `append` returns after the
event has been synced. A crash of the process loses no event whose `append` returned, and neither does
a loss of power on a disk that keeps its word about syncing. It costs about 1 ms an event, sometimes 15,
against 0.01 ms with NORMAL (which may lose the last events to a loss of power); a run has a few
thousand events in an hour.

A store opened for writing is checked as a whole and brought to the newest schema. One that is only read is read as it
is, of whatever version, and what is checked is what is read.
"""

from __future__ import annotations

import itertools
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, cast

from mathlete.core.errors import InputError
from mathlete.core.trace import SCHEMA_VERSION, EventKind, TraceEvent
from mathlete.lab.event_payload import decode_payload, encode_payload
from mathlete.lab.run_lock import RunLock
from mathlete.lab.store_connection import (
    ALL_SAFE,
    check_is_file,
    check_whole_file,
    connect_for_reading,
    connect_for_writing,
    damaged,
    make_durable,
    reporting,
)
from mathlete.lab.store_schema import STORE_VERSION, add_run, check_version, make_tables, migrate

__all__ = ["STORE_VERSION", "EventRow", "RunStore", "StoredEvent", "StoredRun", "encode_row", "list_runs"]

_NUM_LISTED = 10

_COLUMNS = "kind, at_s, wall_time, problem_id, attempt_id, version, data"
_INSERT = f"INSERT INTO events (seq, run, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


class EventRow(NamedTuple):
    """An event as the table holds it; `data` is JSON text, or a zlib blob of it."""

    kind: str
    at_s: float
    wall_time: float
    problem_id: str | None
    attempt_id: str | None
    version: int
    data: str | bytes


class StoredEvent(NamedTuple):
    """An event and its place in the store: places grow, and are not without gaps."""

    seq: int
    event: TraceEvent


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One of the runs of a store.

    Attributes:
        number: of the run in this store; 0 for one that the store is not told of yet.
        id: its name; that of its folder for a run that was recorded here.
        source: where it was copied or imported from; None for one that was recorded here.
    """

    number: int
    id: str
    source: str | None = None


def list_runs(path: Path) -> tuple[StoredRun, ...]:
    """The runs of the store at `path`, in the order in which they were put there.

    Raises:
        InputError: there is no store, or it was written by a newer version.
        StorageError: the file is damaged or cannot be opened.
    """
    check_is_file(path)
    with reporting(path, "open", ALL_SAFE), closing(connect_for_reading(path)) as connection:
        return _runs_in(path, connection)


class RunStore:
    """The events of one run of a store, appended as they happen. One writer a store at a time; used by one thread.

    Implements `core.protocols.TraceSink`. Make one with `create`, `open` or `read`.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: RunLock | None, run: StoredRun, *, is_new: bool = False
    ) -> None:
        """Wrap an open connection.

        Args:
            path: of the file.
            connection: to it.
            lock: held; None for a store that only reads.
            run: which run this is about.
            is_new: whether the store is told of the run together with its first event.
        """
        self.path = path
        self.run = run
        self._is_new = is_new
        self._connection = connection
        self._lock = lock
        self._has_runs = check_version(path, connection) > 1

    @classmethod
    def create(cls, path: Path, run_id: str | None = None, source: str | None = None) -> RunStore:
        """A new run, open for writing: in a new store at `path`, or in the store that is there when `run_id` is given.

        A run with a name of its own is in the store from its first event on.

        Args:
            path: the file.
            run_id: the run's name; None calls it what the folder of the file is called.
            source: where the run is copied or imported from.

        Raises:
            InputError: a run of that name is there already, or another process writes to this store.
            StorageError: the file is damaged or cannot be written.
        """
        if path.exists():
            if run_id is None:
                raise InputError(f"there is a run at {path} already; resume it or choose another folder")
            with ExitStack() as undo, reporting(path, "open", ALL_SAFE):
                connection, lock = _open_for_writing(path, undo)
                run = _next_run(path, connection, run_id, source)
                undo.pop_all()
            return cls(path, connection, lock, run, is_new=True)
        with ExitStack() as undo, reporting(path, "make", "nothing of the run had been recorded yet"):
            lock = RunLock(_lock_path(path))
            undo.callback(lock.release)
            connection = connect_for_writing(path, "rwc")
            undo.callback(connection.close)
            make_durable(connection)
            make_tables(connection, with_run=run_id is None)
            run = _runs_in(path, connection)[0] if run_id is None else _next_run(path, connection, run_id, source)
            undo.pop_all()
        return cls(path, connection, lock, run, is_new=run_id is not None)

    @classmethod
    def open(cls, path: Path, run_id: str | None = None) -> RunStore:
        """A run of the store at `path`, checked and open for writing: what was interrupted can go on.

        Args:
            path: the file.
            run_id: which run; None for the only one there is.

        Raises:
            InputError: there is no run, or no such run, or several and none is named; a newer version wrote the store;
                or it is still being written.
            StorageError: the file is damaged or cannot be opened.
        """
        check_is_file(path)
        with ExitStack() as undo, reporting(path, "open", ALL_SAFE):
            connection, lock = _open_for_writing(path, undo)
            store = cls(path, connection, lock, _find_run(path, _runs_in(path, connection), run_id))
            undo.pop_all()
        return store

    @classmethod
    def read(cls, path: Path, run_id: str | None = None) -> RunStore:
        """A run of the store at `path` for reading only; works while it is being written.

        Args:
            path: the file.
            run_id: which run; None for the only one there is.

        Raises:
            InputError: there is no run, or no such run, or several and none is named; or a newer version wrote the
                store.
            StorageError: the file is damaged or cannot be opened.
        """
        check_is_file(path)
        with ExitStack() as undo, reporting(path, "open", ALL_SAFE):
            connection = connect_for_reading(path)
            undo.callback(connection.close)
            store = cls(path, connection, None, _find_run(path, _runs_in(path, connection), run_id))
            undo.pop_all()
        return store

    def beside(self, run_id: str, source: str | None = None) -> RunStore:
        """Another run of this open store, a new one when there is none of that name. Closing either closes both."""
        with reporting(self.path, "open", ALL_SAFE):
            for run in _runs_in(self.path, self._connection):
                if run.id == run_id:
                    return RunStore(self.path, self._connection, self._lock, run)
            run = _next_run(self.path, self._connection, run_id, source)
        return RunStore(self.path, self._connection, self._lock, run, is_new=True)

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
        self.append_rows([encode_row(event) for event in events])

    def append_rows(self, rows: Iterable[EventRow], head: Callable[[], EventRow] | None = None) -> None:
        """Keep events as the table holds them, all of them or none (one transaction); they are taken one by one.

        Args:
            rows: in order.
            head: makes an event that stands before these and is known only after them.

        Raises:
            StorageError: as for `append`.
        """
        with reporting(self.path, "write", "every event before this one is safe"):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                run = add_run(self._connection, self.run.id, self.run.source) if self._is_new else self.run.number
                if head is None:
                    self._connection.executemany(_INSERT, ((None, run, *row) for row in rows))
                else:
                    (first,) = self._connection.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM events").fetchone()
                    places = itertools.count(first + 1)
                    self._connection.executemany(_INSERT, ((next(places), run, *row) for row in rows))
                    self._connection.execute(_INSERT, (first, run, *head()))
                self._connection.execute("COMMIT")
                self.run, self._is_new = replace(self.run, number=run), False
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def events(
        self, *, problem_id: str | None = None, kinds: Collection[EventKind] | None = None, after: int = 0
    ) -> Iterator[TraceEvent]:
        """Events of the run in the order in which they were appended; all of them when nothing is asked for.

        Args:
            problem_id: of this problem only.
            kinds: of these kinds only.
            after: that came after this place (see `stored_events`).

        Raises:
            InputError: an event was written by a newer version.
            StorageError: an event cannot be read.
        """
        for stored in self.stored_events(problem_id=problem_id, kinds=kinds, after=after):
            yield stored.event

    def stored_events(
        self, *, problem_id: str | None = None, kinds: Collection[EventKind] | None = None, after: int = 0
    ) -> Iterator[StoredEvent]:
        """The same with their places: whoever follows a run that goes on asks again after the last place it saw."""
        with reporting(self.path, "read", ALL_SAFE):
            for seq, *columns in self._select(problem_id, kinds, after):
                yield StoredEvent(seq, self._decode_row(seq, EventRow(*columns)))

    def rows(self, num_skipped: int = 0) -> Iterator[EventRow]:
        """The run's events as the table holds them, without the first `num_skipped`."""
        with reporting(self.path, "read", ALL_SAFE):
            for _, *columns in self._select(None, None, 0, num_skipped):
                yield EventRow(*columns)

    def changes(self, after: int) -> dict[str | None, int]:
        """The problems that events after a place are about (None: the run), each with the place of the last of them."""
        conditions, values = self._of_run()
        where = " AND ".join([*conditions, "seq > ?"])
        query = f"SELECT problem_id, MAX(seq) FROM events WHERE {where} GROUP BY problem_id"
        with reporting(self.path, "read", ALL_SAFE):
            return dict(self._connection.execute(query, (*values, after)).fetchall())

    def num_events(self, kind: EventKind | None = None) -> int:
        """How many events the run has, of one kind or of all."""
        conditions, values = self._of_run()
        if kind is not None:
            conditions, values = [*conditions, "kind = ?"], [*values, kind]
        query = f"SELECT COUNT(*) FROM events WHERE {' AND '.join(conditions) or '1'}"
        with reporting(self.path, "read", ALL_SAFE):
            (num,) = self._connection.execute(query, values).fetchone()
        return int(num)

    def last_at_s(self) -> float:
        """Where the run's clock stood at its last event; 0 before the first."""
        conditions, values = self._of_run()
        last = f"SELECT MAX(seq) FROM events WHERE {' AND '.join(conditions) or '1'}"
        with reporting(self.path, "read", ALL_SAFE):
            found = self._connection.execute(f"SELECT at_s FROM events WHERE seq = ({last})", values).fetchone()
        return 0.0 if found is None else float(found[0])

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

    def _of_run(self) -> tuple[list[str], list[object]]:
        """The condition that leaves this run's events, with its value; none where a store knows of one run only."""
        return (["run = ?"], [self.run.number]) if self._has_runs else ([], [])

    def _select(
        self, problem_id: str | None, kinds: Collection[EventKind] | None, after: int, num_skipped: int = 0
    ) -> sqlite3.Cursor:
        conditions, values = self._of_run()
        if problem_id is not None:
            conditions, values = [*conditions, "problem_id = ?"], [*values, problem_id]
        if kinds is not None:
            conditions, values = [*conditions, f"kind IN ({', '.join('?' * len(kinds))})"], [*values, *sorted(kinds)]
        if after > 0:
            conditions, values = [*conditions, "seq > ?"], [*values, after]
        # Places first, from an index alone, so that what is sorted and what is left out is never read.
        found = f"SELECT seq FROM events WHERE {' AND '.join(conditions) or '1'} ORDER BY seq LIMIT -1 OFFSET ?"
        query = f"SELECT seq, {_COLUMNS} FROM events WHERE seq IN ({found}) ORDER BY seq"
        return self._connection.execute(query, (*values, num_skipped))

    def _decode_row(self, seq: int, row: EventRow) -> TraceEvent:
        if row.version > SCHEMA_VERSION:
            raise InputError(
                f"event {seq} of the run store at {self.path} was written by a newer Mathlete (version {row.version}, "
                f"this one reads up to {SCHEMA_VERSION}); use that version"
            )
        try:
            data = decode_payload(row.kind, row.data)
        except (ValueError, AttributeError, zlib.error) as error:
            raise damaged(self.path, f"event {seq} cannot be decoded ({error})") from error
        if not isinstance(data, dict):
            raise damaged(self.path, f"event {seq} is no object")
        return TraceEvent(
            cast(EventKind, row.kind), row.at_s, data, row.problem_id, row.attempt_id, row.wall_time, row.version
        )


def encode_row(event: TraceEvent) -> EventRow:
    """An event as the table holds it."""
    data = encode_payload(event.data)
    return EventRow(event.kind, event.at_s, event.wall_time, event.problem_id, event.attempt_id, event.version, data)


def _open_for_writing(path: Path, undo: ExitStack) -> tuple[sqlite3.Connection, RunLock]:
    lock = RunLock(_lock_path(path))
    undo.callback(lock.release)
    connection = connect_for_writing(path, "rw")
    undo.callback(connection.close)
    check_whole_file(path, connection)
    check_version(path, connection)
    make_durable(connection)
    migrate(connection)
    return connection, lock


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _runs_in(path: Path, connection: sqlite3.Connection) -> tuple[StoredRun, ...]:
    folder = path.absolute().parent.name
    if check_version(path, connection) == 1:
        return (StoredRun(1, folder),)
    rows = connection.execute("SELECT number, id, source FROM runs ORDER BY number")
    return tuple(StoredRun(number, folder if name is None else name, source) for number, name, source in rows)


def _find_run(path: Path, runs: tuple[StoredRun, ...], run_id: str | None) -> StoredRun:
    found = [run for run in runs if run_id in (None, run.id)]
    if len(found) == 1:
        return found[0]
    more = f" and {len(runs) - _NUM_LISTED} more" if len(runs) > _NUM_LISTED else ""
    listed = f"it holds {', '.join(run.id for run in runs[:_NUM_LISTED])}{more}" if runs else "it holds none"
    if run_id is None:
        raise InputError(f"name one run of the store {path}: {listed}")
    raise InputError(f"there is no run {run_id!r} in the store {path}: {listed}")


def _next_run(path: Path, connection: sqlite3.Connection, run_id: str, source: str | None) -> StoredRun:
    """A run that the store is to be told of."""
    if run_id in [run.id for run in _runs_in(path, connection)]:
        raise InputError(f"there is a run {run_id!r} in the store {path} already; choose another name")
    return StoredRun(0, run_id, source)
