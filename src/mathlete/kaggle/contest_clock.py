"""The clock of a whole contest: it starts once and is never stopped, whatever dies meanwhile.

Pure arithmetic, and one reading of the wall clock. A contest's time goes by between problems and while a process is
started again, unlike that of a run that is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mathlete.core.protocols import Clock

_PATIENCE_PART = 0.5  # of what remains, that one problem may wait for an engine that is not there


@dataclass(frozen=True, slots=True)
class ContestClock:
    """Seconds since the contest began, and until it ends.

    Attributes:
        budget_s: of the whole contest, loading and pauses included.
        start_s: where `clock` stood, or would have stood, at its beginning.
        clock: monotonic, in seconds.
    """

    budget_s: float
    start_s: float
    clock: Clock = time.monotonic

    @classmethod
    def begun_at(
        cls,
        started_wall_time: float,
        budget_s: float,
        *,
        at_least_s: float = 0.0,
        clock: Clock = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> ContestClock:
        """A contest that began at a wall time, perhaps in another process.

        Args:
            started_wall_time: seconds since the epoch.
            budget_s: of the whole contest.
            at_least_s: where its clock was seen to stand already: a wall clock may have been set back since.
            clock: monotonic, in seconds.
            wall_clock: seconds since the epoch.
        """
        return cls(budget_s, clock() - max(at_least_s, wall_clock() - started_wall_time), clock)

    def elapsed_s(self) -> float:
        """Since the beginning."""
        return self.clock() - self.start_s

    def remaining_s(self) -> float:
        """Until the end; 0 after it."""
        return max(0.0, self.budget_s - self.elapsed_s())


def num_upcoming(num_announced: int, num_seen: int) -> int:
    """Problems that are still expected; 0 where more came than were announced.

    Args:
        num_announced: problems of the contest.
        num_seen: those that came, the one in hand included.
    """
    return max(0, num_announced - num_seen)


def patience_s(remaining_s: float, num_still_to_come: int) -> float:
    """Seconds that a problem may wait while no engine works on it: one that loads, is started again, or hangs.

    Half of what remains while others are to come: an engine that loads for long costs time, not the first problem; and
    one that never comes back costs no later problem its answer.
    """
    return remaining_s * (_PATIENCE_PART if num_still_to_come else 1.0)
