"""Rows of tables and of lines of JSON, each with the place it came from; one at a time.

Knows CSV, JSONL, gzip, Parquet and their ways of being broken. Does not know what a row must contain. A row that cannot
be read comes as a `BadRow`, and those after it are read all the same; a file that cannot be read from some place on is
an error.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.core.errors import InputError
from mathlete.lab.bad_rows import BadRow
from mathlete.lab.json_lines import MAX_LINE_BYTES, decode_object, read_lines

SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
_BATCH_ROWS = 256  # of Parquet, so that few long texts are held at a time


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


def stem_of(path: Path) -> str:
    """A file's name without what says its format."""
    lowered = path.name.lower()
    endings = [suffix for suffix in (*SUFFIXES, ".json", ".eval") if lowered.endswith(suffix)]
    return path.name[: -len(max(endings, key=len))] if endings else path.name


def read_rows(path: Path) -> Iterator[Row | BadRow]:
    """The rows of an existing file, lazily.

    Raises:
        InputError: unknown suffix, unreadable, not UTF-8, empty, or broken; the message says where.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet_rows(path)
    if name.endswith((".csv", ".csv.gz")):
        return _csv_rows(path)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _json_rows(path)
    raise InputError(f"{path}: unknown kind of file; its name must end in one of {', '.join(SUFFIXES)}")


def _json_rows(path: Path) -> Iterator[Row | BadRow]:
    for number, content in read_lines(path):
        place = f"line {number}"
        try:
            yield Row(decode_object(content), path, place)
        except ValueError as error:
            yield BadRow(f"{path}, {place}", str(error))


def _csv_rows(path: Path) -> Iterator[Row | BadRow]:
    csv.field_size_limit(MAX_LINE_BYTES)  # of the whole process; the default is shorter than many an attempt's text
    reader = csv.reader(_csv_lines(path), strict=True)
    header: list[str] | None = None
    line = 1
    while (cells := _next_cells(reader, path, line)) is not None:
        place, line = f"line {line}", reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            _check_columns(header, path)
        elif len(cells) != len(header):
            yield BadRow(
                f"{path}, {place}",
                f"{len(cells)} cells where the header has {len(header)}; "
                'a cell with a comma or a line break must stand in double quotes, "like, this"',
            )
        else:
            yield Row(dict(zip(header, cells, strict=True)), path, place)


def _csv_lines(path: Path) -> Iterator[str]:
    """Lines with their ends as they are, lone carriage returns too: a quoted cell keeps its own."""
    for number, content in read_lines(path, with_blank=True):
        try:
            yield from io.StringIO(content.decode("utf-8"), newline="")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8") from error


def _next_cells(reader: Iterator[list[str]], path: Path, line: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: broken CSV ({error}); check the double quotes from here on") from error


def _check_columns(columns: Sequence[str], path: Path) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} occurs more than once; rename one of them")


def _parquet_rows(path: Path) -> Iterator[Row | BadRow]:
    import pyarrow  # takes half a second to import, and few inputs are Parquet
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(file.schema_arrow.names, path)
            for batch in file.iter_batches(_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(fields, path, f"row {number}")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        after = f" after row {number}" if number else ""
        raise InputError(f"{path}: cannot be read as Parquet{after} ({error})") from error
