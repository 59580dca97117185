"""A run store as the first version of its schema had it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from mathlete.core.trace import TraceEvent
from mathlete.lab.run_store import encode_row

SCHEMA = """
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
PRAGMA application_id = 0x4D74686C;
PRAGMA user_version = 1;
COMMIT;
"""
COLUMNS = "kind, at_s, wall_time, problem_id, attempt_id, version, data"


def make_version_1(path: Path, events: Iterable[TraceEvent]) -> None:
    """A closed store of version 1 at `path`."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        connection.executemany(
            f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", [encode_row(event) for event in events]
        )
        connection.execute("COMMIT")
