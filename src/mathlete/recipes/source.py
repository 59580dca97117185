"""The text of a recipe, and where in it something stands, so that an error can point at it. No meaning of any key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.core.errors import InputError

MAX_BYTES = 1 << 20

_HEADER = re.compile(r"\s*\[\s*([^\[\]#]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_\-\"'. \t]+?)\s*=")


@dataclass(frozen=True, slots=True)
class RecipeSource:
    """A recipe as it is written.

    Attributes:
        where: its path or name, for messages.
        text: all of it.
    """

    where: str
    text: str

    def parse(self) -> Mapping[str, Any]:
        """What it says, unchecked.

        Raises:
            InputError: it is no TOML; the message has TOML's own words, with line and column.
        """
        try:
            return tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:  # ValueError: 5000 digits
            raise InputError(f"{self.where}: not TOML: {error}") from error

    def error(self, section: str, key: str | None, message: str) -> InputError:
        """The error for a person: file, line where it can be told, section and key."""
        line = self.line_of(section, key)
        place = f"{self.where}:{line}" if line is not None else self.where
        named = "" if not section else f" [{section}]"
        return InputError(f"{place}:{named} {message}")

    def line_of(self, section: str, key: str | None) -> int | None:
        """The line, from 1, of a key of a section, else of the section; None where neither can be told."""
        wanted = section if key is None else f"{section}.{key}".strip(".")
        lines: dict[str, int] = {}
        for path, line in self._paths():
            lines.setdefault(path, line)
        inside = (line for path, line in lines.items() if path.startswith(f"{wanted}."))
        return lines.get(wanted) or next(inside, None) or lines.get(section)

    def _paths(self) -> Iterator[tuple[str, int]]:
        """Headers and keys with their sections before them, in order, and their lines."""
        section = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.match(line):
                section = _bare(header[1])
                yield section, number
            elif found := _KEY.match(line):
                yield f"{section}.{_bare(found[1])}".strip("."), number

    def check_names(self, section: str, given: Mapping[str, Any], known: Collection[str], what: str) -> None:
        """Refuse the first key that is not known, with the nearest that is.

        Raises:
            InputError: there is one.
        """
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
                raise self.error(section, name, f"{name!r} is no {what}; {hint}")


def read_source(path: Path, where: str | None = None) -> RecipeSource:
    """The text of a recipe file.

    Raises:
        InputError: there is no such file, it is a folder, larger than a MiB, no UTF-8, or cannot be read.
    """
    where = where or str(path)
    if path.is_dir():
        raise InputError(f"{where}: a folder, and a recipe is a .toml file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        raise InputError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{where}: longer than {MAX_BYTES >> 10} KiB; that is no recipe")
    try:
        return RecipeSource(where, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{where}:{line}: not UTF-8 text; save the file as UTF-8") from error


def _bare(name: str) -> str:
    """A key as it is told: without quotes and the blanks around its dots."""
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
