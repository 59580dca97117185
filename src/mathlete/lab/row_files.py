"""The rows of any file that recordings come in: tables, lines of JSON, one JSON document, or an archive of them.

Knows files and archives; which of their parts are rows is the mapping's word. Nothing is ever unpickled or run, and no
member of an archive is written to disk.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mathlete.core.errors import InputError
from mathlete.lab.bad_rows import BadRow
from mathlete.lab.json_lines import MAX_LINE_BYTES, decode_json, decode_object, open_bytes
from mathlete.lab.mapped_rows import MISSING, found
from mathlete.lab.mapping import RecordingMapping
from mathlete.lab.task_files import SUFFIXES, Row, read_rows

MAX_DOCUMENT_BYTES = 1 << 30
"""Of a .json file, which is read as a whole."""
ALL_SUFFIXES = (*SUFFIXES, ".json", ".eval")


def mapped_file_rows(path: Path, mapping: RecordingMapping) -> Iterator[Row | BadRow]:
    """The rows of a file, where the mapping says that they are.

    Raises:
        InputError: the file cannot be read, or is of a kind that the mapping says nothing about.
    """
    name = path.name.lower()
    if name.endswith(".eval"):
        if mapping.members is None:
            raise InputError(f"{path}: the mapping {mapping.name} names no `members` of an archive that are rows")
        return _archive_rows(path, mapping.members)
    if name.endswith(".json"):
        if mapping.rows is None:
            raise InputError(
                f"{path}: the mapping {mapping.name} names no `rows` in a JSON document; or is it JSON lines?"
            )
        return _document_rows(path, mapping.rows)
    return read_rows(path)


def files_of(folder: Path, mapping: RecordingMapping | None) -> list[Path]:
    """The files of a folder that are read, in an order in which rs2 stands before rs10.

    Raises:
        InputError: there is none.
    """
    pattern = mapping.files if mapping is not None and mapping.files is not None else "*"
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(ALL_SUFFIXES)]
    wanted = [name for name in names if fnmatchcase(name, pattern) and not name.startswith(".")]
    if not wanted and pattern != "*" and mapping is not None:  # a log folder of inspect_ai, or files with other names
        raise InputError(f"{folder}: no file there is named like {pattern!r}, which the mapping {mapping.name} reads")
    if not wanted:
        raise InputError(f"{folder}: no run and no recorded attempts there ({', '.join(ALL_SUFFIXES)})")
    return [folder / name for name in sorted(wanted, key=_in_counting_order)]


def frame_rows(frame: Any, batch_rows: int = 4_096) -> Iterator[Row]:
    """The rows of a pandas data frame; arrays in its cells become lists.

    Raises:
        InputError: it is no data frame, or has a column twice.
    """
    columns = [str(name) for name in getattr(frame, "columns", ())]
    if not columns or not hasattr(frame, "iloc"):
        raise InputError(f"a pandas data frame with columns is needed, not {type(frame).__name__}")
    twice = {name for name in columns if columns.count(name) > 1}
    if twice:
        raise InputError(f"the data frame has the column {sorted(twice)[0]!r} more than once; rename one of them")
    number = 0
    for start in range(0, len(frame), batch_rows):
        for fields in frame.iloc[start : start + batch_rows].to_dict("records"):
            number += 1
            yield Row({str(key): _plain(value) for key, value in fields.items()}, Path("data frame"), f"row {number}")


def _plain(value: Any) -> Any:
    """Without numpy: its arrays as lists, its numbers as Python's; what pandas calls missing as None."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _document_rows(path: Path, place: str) -> Iterator[Row | BadRow]:
    try:
        with open_bytes(path) as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InputError(f"{path}: holds more than {MAX_DOCUMENT_BYTES >> 20} MiB; write it as JSON lines")
    try:
        document = decode_json(content)
    except ValueError as error:
        raise InputError(f"{path}: {str(error).replace('a line of JSON', 'JSON')}") from error
    rows = found(document, place)
    if rows is MISSING or not isinstance(rows, list):
        raise InputError(f"{path}: there is no list at {place!r}, where its rows should be")
    return _numbered(rows, path)


def _numbered(rows: Iterable[Any], path: Path) -> Iterator[Row | BadRow]:
    for number, fields in enumerate(rows, start=1):
        if isinstance(fields, dict):
            yield Row(fields, path, f"row {number}")
        else:
            yield BadRow(f"{path}, row {number}", f"must be an object, not {fields!r:.40}")


def _archive_rows(path: Path, pattern: str) -> Iterator[Row | BadRow]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [item for item in archive.infolist() if fnmatchcase(item.filename, pattern)]
            if not members:
                raise InputError(f"{path}: no member of the archive is named like {pattern!r}")
            for member in sorted(members, key=lambda item: _in_counting_order(item.filename)):
                yield _member_row(archive, member, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read as an archive ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _member_row(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Row | BadRow:
    place = f"member {member.filename}"
    with archive.open(member) as file:
        content = file.read(MAX_LINE_BYTES + 1)  # whatever size the archive claims
    if len(content) > MAX_LINE_BYTES:
        return BadRow(f"{path}, {place}", f"longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        return Row(decode_object(content), path, place)
    except ValueError as error:
        return BadRow(f"{path}, {place}", str(error))


def _in_counting_order(name: str) -> list[tuple[int, str]]:
    """A sorting key under which numbers in names count."""
    return [
        (int(part), "") if part.isdecimal() and len(part) < 19 else (-1, part) for part in re.split("([0-9]+)", name)
    ]
