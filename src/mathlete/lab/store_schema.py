"""The tables of a run store and how an older store becomes a newer one.

Knows SQL that defines. Does not know how events are written or read (`lab.run_store`).

`user_version` tells the schema:
    1  one run: the table `events`.
    2  many runs: the table `runs`, `events.run`, and indexes that find one problem's or one kind's events.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mathlete.core.errors import InputError

STORE_VERSION = 2  # of the tables below; an event's own version is `TraceEvent.version`

_APPLICATION_ID = 0x4D74686C  # "Mthl": tells a run store from any other SQLite file

# The columns that are looked for stand before `data`: SQLite finds what stands behind a long value by reading it.
_EVENTS = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    run INTEGER NOT NULL DEFAULT 1,
    kind TEXT NOT NULL,
    at_s REAL NOT NULL,
    wall_time REAL NOT NULL,
    problem_id TEXT,
    attempt_id TEXT,
    version INTEGER NOT NULL,
    data NOT NULL  -- JSON text, or a zlib blob of it
)"""
_RUNS = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    id TEXT UNIQUE,  -- NULL: the run is called what its folder is called
    source TEXT  -- where it was copied or imported from; NULL: it was recorded here
)"""


def _append_only(table: str) -> tuple[str, str]:
    refusal = f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
    return (
        f"CREATE TRIGGER {table}_never_change BEFORE UPDATE ON {table} {refusal}",
        f"CREATE TRIGGER {table}_never_go BEFORE DELETE ON {table} {refusal}",
    )


_RUN_OF_FOLDER = "INSERT INTO runs (number) VALUES (1)"
_MANY_RUNS = (
    _RUNS,
    *_append_only("runs"),
    "CREATE INDEX events_of_kind ON events (run, kind)",
    "CREATE INDEX events_of_problem ON events (run, problem_id)",
)
_NEWEST = (_EVENTS, *_append_only("events"), *_MANY_RUNS, f"PRAGMA application_id = {_APPLICATION_ID}")
# From each version to the next. The one run of a version-1 store gets number 1, which is what the new column says of
# its events without a row being written.
_MIGRATIONS = {
    1: (
        "ALTER TABLE events ADD COLUMN run INTEGER NOT NULL DEFAULT 1",
        *_MANY_RUNS,
        _RUN_OF_FOLDER,
    )
}


def make_tables(connection: sqlite3.Connection, *, with_run: bool) -> None:
    """The newest schema in an empty database, all of it or nothing; with the one run of its folder if asked for."""
    with _one_transaction(connection, STORE_VERSION):
        for statement in (*_NEWEST, *([_RUN_OF_FOLDER] if with_run else [])):
            connection.execute(statement)


def add_run(connection: sqlite3.Connection, run_id: str, source: str | None) -> int:
    """One run more, without events; its number."""
    added = connection.execute("INSERT INTO runs (id, source) VALUES (?, ?) RETURNING number", (run_id, source))
    return int(added.fetchone()[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Bring an older store to the newest schema, one version at a time; each step is done whole or not at all."""
    for version in range(_stored_version(connection), STORE_VERSION):
        with _one_transaction(connection, version + 1):
            for statement in _MIGRATIONS[version]:
                connection.execute(statement)


def check_version(path: Path, connection: sqlite3.Connection) -> int:
    """The schema's version of a store.

    Raises:
        InputError: the file is not a run store, or a newer Mathlete wrote it.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != _APPLICATION_ID:
        raise InputError(f"{path} is an SQLite file but not a run store, or its run ended before it began")
    version = _stored_version(connection)
    if version > STORE_VERSION:
        raise InputError(
            f"the run store at {path} was written by a newer Mathlete (its tables are of version {version}, this one "
            f"reads up to {STORE_VERSION}); use that version"
        )
    return version


def _stored_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


@contextmanager
def _one_transaction(connection: sqlite3.Connection, version: int) -> Iterator[None]:
    """What is done inside makes the schema one of this version."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have ended it already
            connection.execute("ROLLBACK")
        raise
