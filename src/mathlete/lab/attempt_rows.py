"""Attempts that come one a row, gathered by problem, wherever their rows stand.

Knows problem ids and what rows of one problem must agree on. Holds the rows in a temporary SQLite database, which the
system puts on disk when it grows and removes when it is closed, so that memory does not grow with the attempts.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple

import orjson

from mathlete.core.errors import StorageError
from mathlete.lab.recorded import MalformedError


class GatheredProblem(NamedTuple):
    """A problem and its attempts, in the words of the interchange format.

    Attributes:
        head: what its first row says of the problem.
        source: name of the file that its first row is in.
        attempts: in the order of their rows.
        places: of each attempt, the row that it is from.
    """

    head: dict[str, Any]
    source: str
    attempts: list[dict[str, Any]]
    places: list[str]


class _Known(NamedTuple):
    number: int
    digest: bytes
    place: str


class AttemptRows:
    """Rows by problem. Used as `with`; add all, then read all."""

    def __init__(self) -> None:
        """Open an empty database of its own."""
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE problems (number INTEGER PRIMARY KEY, head BLOB, source TEXT)")
        self._database.execute("CREATE TABLE attempts (problem INTEGER, place TEXT, entry BLOB)")
        self._known: dict[str, _Known] = {}

    def add(self, head: dict[str, Any], attempt: dict[str, Any], source: str, place: str) -> None:
        """Keep one row.

        Raises:
            MalformedError: another row of the problem has another statement or gold, or a value cannot be kept.
            StorageError: there is no room for temporary files.
        """
        entry = _encoded(attempt)
        known = self._known.get(head["problem_id"])
        digest = hashlib.sha256(_encoded([head["problem"], head["gold"]])).digest()
        try:
            if known is None:
                known = _Known(len(self._known), digest, place)
                self._database.execute("INSERT INTO problems VALUES (?, ?, ?)", (known.number, _encoded(head), source))
                self._known[head["problem_id"]] = known
            elif known.digest != digest:
                raise MalformedError(
                    f"problem {head['problem_id']!r} has another statement or gold in {known.place}; "
                    "two problems must not share an id"
                )
            self._database.execute("INSERT INTO attempts VALUES (?, ?, ?)", (known.number, place, entry))
        except sqlite3.Error as error:
            raise StorageError(f"cannot keep rows in a temporary file ({error}); make room, or set TMPDIR") from error

    def problems(self) -> Iterator[GatheredProblem]:
        """All problems, in the order of their first rows.

        Raises:
            StorageError: the temporary files cannot be read back.
        """
        try:
            self._database.execute("CREATE INDEX by_problem ON attempts (problem)")
            heads = self._database.execute("SELECT number, head, source FROM problems ORDER BY number")
            for number, head, source in heads:
                rows = self._database.execute(
                    "SELECT place, entry FROM attempts WHERE problem = ? ORDER BY rowid", (number,)
                ).fetchall()
                entries = [orjson.loads(entry) for _, entry in rows]
                yield GatheredProblem(orjson.loads(head), source, entries, [place for place, _ in rows])
        except sqlite3.Error as error:
            raise StorageError(f"cannot read rows back from a temporary file ({error}); set TMPDIR") from error

    def close(self) -> None:
        """Remove everything. Safe to call twice."""
        self._database.close()

    def __enter__(self) -> AttemptRows:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _encoded(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as error:  # of which orjson's own errors are a kind
        raise MalformedError(f"holds a value that is neither text nor a number of 64 bits ({error})") from error
