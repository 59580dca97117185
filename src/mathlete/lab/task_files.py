"""Rows of problem files, each with the place it came from.

Knows CSV, JSONL, gzip, Parquet and their ways of being broken. Does not know what a row must contain,
apart from the columns that a table needs as a whole.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.core.errors import InputError

SUFFIXES = (".csv", ".jsonl", ".jsonl.gz", ".parquet")
_NEEDED = ("id", "problem")
MAX_FILE_BYTES = 1 << 30
"""Unpacked; a gzip file can hold far more than it shows."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file.

    Attributes:
        fields: by column or key, as the format gives them.
        file: where it is from.
        place: "line 3" or "row 3" in it.
    """

    fields: Mapping[str, Any]
    file: Path
    place: str

    @property
    def where(self) -> str:
        """File and place, to begin a message with."""
        return f"{self.file}, {self.place}"


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of an existing file, lazily.

    Raises:
        InputError: unknown suffix, unreadable, not UTF-8, empty, or broken; the message says where.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet_rows(path)
    if name.endswith(".csv"):
        return _csv_rows(path)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _json_rows(path)
    raise InputError(f"{path}: unknown kind of file; its name must end in one of {', '.join(SUFFIXES)}")


def _read_text(path: Path) -> str:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: broken gzip file ({error}); download or pack it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{path}: holds more than {MAX_FILE_BYTES >> 20} MiB; split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from error
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    return text


def _csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    while (cells := _next_cells(reader, path, line)) is not None:
        place, line = f"line {line}", reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            _check_columns(header, path)
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{path}, {place}: {len(cells)} cells where the header has {len(header)}; "
                'a cell with a comma or a line break must stand in double quotes, "like, this"'
            )
        yield Row(dict(zip(header, cells, strict=True)), path, place)


def _next_cells(reader: Iterator[list[str]], path: Path, line: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: broken CSV ({error}); check the double quotes from here on") from error


def _check_columns(columns: Sequence[str], path: Path) -> None:
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise InputError(
            f"{path}: no column {' and no column '.join(map(repr, missing))}; "
            f"found {', '.join(map(repr, columns[:20]))}; needed are id, problem and, if known, answer"
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} occurs more than once; rename one of them")


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, {place}: not a line of JSON ({error})") from error
        if not isinstance(fields, dict):
            shown = repr(line.strip()[:40])
            raise InputError(f"{path}, {place}: must be an object with the keys id and problem, not {shown}")
        yield Row(fields, path, place)


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow  # takes half a second to import, and few inputs are Parquet
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from error
    _check_columns(table.column_names, path)
    for number, fields in enumerate(table.to_pylist(), start=1):
        yield Row(fields, path, f"row {number}")
