"""Lines of JSON files, one at a time, and the objects in them.

Knows gzip, bytes and JSON, and their ways of being broken. Does not know what an object must hold. What is decoded
fast (orjson) and what is decoded by the standard library are the same, but for what only the latter reads: integers
beyond 64 bits, NaN and Infinity, which older programs write; whoever takes a number must ask whether it is finite.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import orjson

from mathlete.core.errors import InputError

MAX_LINE_BYTES = 64 << 20
"""One problem with all its attempts; more is not a line but a file that is none, or a bomb."""
_BOM = b"\xef\xbb\xbf"
_LONG_INTEGER = re.compile(rb"(?<![0-9.])[0-9]{19}")  # orjson reads what does not fit 64 bits as a float


class Line(NamedTuple):
    """A line.

    Attributes:
        number: from 1.
        content: its bytes, line end included.
    """

    number: int
    content: bytes


def read_lines(path: Path, *, with_blank: bool = False) -> Iterator[Line]:
    """The lines of a file, gunzipped when its name ends in .gz; one is held at a time.

    Args:
        path: the file.
        with_blank: hand out lines too in which there is nothing.

    Raises:
        InputError: it cannot be read, is empty, is broken gzip, or has a line that is too long.
    """
    number = 0
    is_empty = True
    try:
        with open_bytes(path) as file:
            while content := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(content) > MAX_LINE_BYTES:
                    raise InputError(f"{path}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB")
                content = content.removeprefix(_BOM) if number == 1 else content
                is_blank = not content.strip()
                is_empty = is_empty and is_blank
                if with_blank or not is_blank:
                    yield Line(number, content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        after = f", line {number + 1}" if number else ""
        raise InputError(f"{path}{after}: broken gzip file ({error}); download or pack it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if is_empty:
        raise InputError(f"{path}: the file is empty")


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, unpacked."""
    return cast(BinaryIO, gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb")


def decode_json(content: bytes) -> Any:
    """What a piece of JSON says.

    Raises:
        ValueError: it is none, or holds what no text file can; the message says why, without the place.
    """
    if not _LONG_INTEGER.search(content):
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            pass  # the slow way tells whether it is broken, or only old-fashioned
    return decode_json_slowly(content)


def decode_json_slowly(content: bytes) -> Any:
    """As `decode_json`, by the standard library alone."""
    try:
        value = json.loads(content.decode("utf-8"))
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text; save the file as UTF-8") from error
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a surrogate pair; write the character itself") from error
    except RecursionError as error:
        raise ValueError("not a line of JSON (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not a line of JSON ({error})") from error
    return value


def decode_object(content: bytes) -> dict[str, Any]:
    """The object that a line holds.

    Raises:
        ValueError: as `decode_json`, or it is no object.
    """
    value = decode_json(content)
    if not isinstance(value, dict):
        shown = content.strip()[:40].decode("utf-8", "replace")
        raise ValueError(f"must be an object, {{...}}, not {shown!r}")
    return value
