"""When a vote is settled. Knows answers only as strings to be counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Vote:
    """The vote over one problem's attempts.

    Attributes:
        outstanding: attempts that have not ended.
        num_agreeing: so many equal answers settle it; None for never.
        counts: votes so far.
    """

    outstanding: int
    num_agreeing: int | None
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, answer: str | None) -> None:
        """An attempt ended, with or without an answer."""
        self.outstanding -= 1
        if answer is not None:
            self.counts[answer] += 1

    @property
    def is_settled(self) -> bool:
        """Whether enough agree, or the leader cannot be caught any more, or nothing is to come."""
        if self.outstanding == 0:
            return True
        first, second = [*(count for _, count in self.counts.most_common(2)), 0, 0][:2]
        if self.num_agreeing is not None and first >= self.num_agreeing:
            return True
        return first > second + self.outstanding
