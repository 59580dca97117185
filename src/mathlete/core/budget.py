"""Time and tokens that may still be spent. Pure arithmetic over a clock that is passed in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mathlete.core.errors import BudgetExceeded

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Budget:
    """A deadline on a monotonic clock and, optionally, a number of tokens.

    Attributes:
        deadline_s: reading of `clock` at which the budget ends; `math.inf` for none.
        tokens_left: completion tokens that may still be generated; None for no limit.
        clock: monotonic clock, seconds. Tests and replay pass their own.
    """

    deadline_s: float = math.inf
    tokens_left: int | None = None
    clock: Clock = time.monotonic

    @classmethod
    def of_seconds(cls, seconds: float, clock: Clock = time.monotonic) -> Budget:
        """A budget that ends `seconds` from now."""
        return cls(deadline_s=clock() + seconds, clock=clock)

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.deadline_s - self.clock())

    def spend(self, tokens: int) -> Budget:
        """The budget after `tokens` more completion tokens."""
        if self.tokens_left is None:
            return self
        return replace(self, tokens_left=max(0, self.tokens_left - tokens))

    def split(self, seconds: float) -> Budget:
        """A part of this budget that ends in `seconds`, and never later than the whole."""
        return replace(self, deadline_s=min(self.deadline_s, self.clock() + seconds))

    def exhausted(self) -> bool:
        """Whether time or tokens have run out."""
        return self.remaining_s() <= 0 or self.tokens_left == 0

    def check(self) -> None:
        """Raise `BudgetExceeded` when time or tokens have run out."""
        now = self.clock()
        if now >= self.deadline_s:
            raise BudgetExceeded("time", now, self.deadline_s)
        if self.tokens_left == 0:
            raise BudgetExceeded("tokens", 0, 0)
