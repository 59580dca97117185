"""The file of a contest, as the organiser's reader understands it: ids, statements, and perhaps labels.

Knows CSV and the types of its columns. Does not know what is done with them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow

from mathlete.core.errors import InputError


@dataclass(frozen=True, slots=True)
class ContestTable:
    """The file of a contest.

    Attributes:
        columns: by name, in order; `id` first, `problem` second; None where a cell is empty.
    """

    columns: dict[str, tuple[Any, ...]]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.columns["id"])

    @classmethod
    def read(cls, path: Path) -> ContestTable:
        """A CSV with the columns `id`, `problem` and perhaps more.

        Columns of whole numbers become integers, as the organiser's reader makes them, ids included.

        Raises:
            InputError: there is no such file, it is not UTF-8, or has no such columns or no rows.
        """
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                csv.field_size_limit(1 << 30)
                head, *rows = [row for row in csv.reader(file, strict=True) if row]
        except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
            raise InputError(f"cannot read the problems in {path}: {error}") from error
        if head[:2] != ["id", "problem"] or not rows or any(len(row) != len(head) for row in rows):
            raise InputError(f"{path} must be a CSV with the columns id,problem[,answer] and at least one row")
        return cls({name: _typed([row[place] for row in rows]) for place, name in enumerate(head)})

    @property
    def golds(self) -> dict[str, str]:
        """The labels by id, as text; empty where the file has none."""
        labels = self.columns.get("answer", ())
        return {
            str(key): str(label) for key, label in zip(self.columns["id"], labels, strict=False) if label is not None
        }


def _typed(cells: Sequence[str]) -> tuple[Any, ...]:
    """A column of a CSV: integers where all cells are, else text; None for empty cells."""
    whole = all(re.fullmatch(r"-?\d{1,18}", cell) for cell in cells if cell)
    return tuple((int(cell) if whole else cell) if cell else None for cell in cells)


def kind_of(column: Sequence[Any]) -> pyarrow.DataType:
    """The type of a column of cells as `ContestTable` has them."""
    return pyarrow.int64() if any(isinstance(cell, int) for cell in column) else pyarrow.string()
