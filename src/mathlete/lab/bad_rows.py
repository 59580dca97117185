"""Rows of foreign files that cannot be used: all of them are counted, the first ones are told.

Knows where a row stands and what is wrong with it; does not know what rows hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from mathlete.core.errors import InputError

MAX_SHOWN = 20
"""Rows that a message lists."""
_MAX_REASON_CHARS = 500


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was not used.

    Attributes:
        where: file and place, such as "few.jsonl, line 3, attempt 2".
        reason: what is wrong with it, for a person.
    """

    where: str
    reason: str

    def __str__(self) -> str:
        """One line for a person."""
        return ": ".join(filter(None, (self.where, self.reason[:_MAX_REASON_CHARS])))


class BadRows:
    """The bad rows of an import; only the first `MAX_SHOWN` are kept, however many there are."""

    def __init__(self) -> None:
        """None so far."""
        self.shown: list[BadRow] = []
        self.num = 0

    def add(self, row: BadRow) -> None:
        """Count one, and keep it when it is among the first."""
        self.num += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(row)

    @property
    def message(self) -> str:
        """All that is known of them, for a person: the one that there is, or a list."""
        if self.num == 1:
            return str(self.shown[0])
        lines = [f"{self.num} rows cannot be used:", *(f"  {row}" for row in self.shown)]
        if self.num > len(self.shown):
            lines.append(f"  ... and {self.num - len(self.shown)} more")
        return "\n".join(lines)

    def raise_if_any(self) -> None:
        """Raise `InputError` with all of them, if there are any."""
        if self.num:
            raise InputError(self.message)
