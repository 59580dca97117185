"""How one clock is shared over many problems. Pure arithmetic; holds no state and reads no clock.

A problem's share is fixed when it is opened, from what is left then. Time that an early problem does not use
stays in the pot, so every later share grows by its part of it.
"""

from __future__ import annotations

_MAX_RESERVE_PART = 0.1
_MIN_PART = 0.5  # of an even share, that a problem keeps however long others take

# Of the tokens that the clock has room for at the speed seen so far: attempts grow slower as they grow longer, and
# programs, checks and second rounds take time too. Judged, not measured.
PLANNED_PART = 0.8


def usable_s(budget_s: float, reserve_s: float) -> float:
    """Seconds of a budget for solving, the rest being kept for writing the results.

    The reserve is never more than a tenth of the budget, so that a budget of one second still solves.
    """
    return max(0.0, budget_s - min(reserve_s, _MAX_RESERVE_PART * budget_s))


def share_s(remaining_s: float, *, weight: float, total_weight: float, num_parallel: float) -> float:
    """Seconds that a problem gets when it is opened.

    With n unresolved problems of equal weight, c of which are worked on at the same time, this is
    remaining * c / n: n problems then need n / c rounds. Never more than what remains.

    Args:
        remaining_s: seconds left for solving.
        weight: difficulty of this problem, > 0.
        total_weight: sum over all unresolved problems, this one and open ones included.
        num_parallel: problems worked on at the same time.

    Raises:
        ValueError: for a weight that is not positive.
    """
    if not 0 < weight <= total_weight * (1 + 1e-9):
        raise ValueError(f"weight must be in (0, total_weight], not {weight} of {total_weight}")
    return max(0.0, remaining_s) * min(1.0, num_parallel * weight / total_weight)


def longest_s(
    share_s: float, remaining_s: float, *, stretch: float, even_s: float, num_waiting: int, num_parallel: float
) -> float:
    """Seconds after which a problem is ended whatever its policy wants: `stretch` times its share.

    But those who wait keep `_MIN_PART` of an even share each, so that nobody starves: of equal problems that all take
    the most that this allows, each still gets that part. The share itself is never cut.

    Args:
        share_s: see `share_s`.
        remaining_s: seconds left for solving.
        stretch: times the share, >= 1; 1 for no more than the share.
        even_s: seconds that each problem would get if the whole budget were shared evenly.
        num_waiting: problems not opened yet, this one not among them.
        num_parallel: problems worked on at the same time.

    Raises:
        ValueError: for a stretch below 1.
    """
    if not stretch >= 1:
        raise ValueError(f"stretch must be >= 1, not {stretch}")
    kept_s = _MIN_PART * even_s * num_waiting / num_parallel
    return max(share_s, min(stretch * share_s, remaining_s - kept_s))


def deadline_s(opened_deadline_s: float, end_s: float, num_waiting: int) -> float:
    """The deadline of an open problem, looked at again.

    While others wait to be opened it keeps the share it got, since what it leaves is theirs. Once nobody
    waits, nobody else could use the time: it may work to the end.
    """
    return end_s if num_waiting == 0 else min(opened_deadline_s, end_s)


def attempts_affordable(
    remaining_s: float, *, tokens_per_s: float, num_problems: int, tokens_per_attempt: float, wanted: int
) -> int:
    """Attempts that each of `num_problems` can get in what remains, from 0 to `wanted`.

    Attempts that are all cut off at the deadline are worth nothing: fewer of them, ended, are worth more.

    Args:
        remaining_s: seconds left for solving.
        tokens_per_s: of all attempts together.
        num_problems: unresolved problems, >= 1.
        tokens_per_attempt: that an attempt takes on average.
        wanted: attempts a problem at most.
    """
    tokens = PLANNED_PART * max(0.0, remaining_s) * tokens_per_s
    return min(wanted, int(tokens / (num_problems * tokens_per_attempt)))


def parallel_problems(max_in_flight: int, attempts: int) -> int:
    """Problems that `max_in_flight` slots serve at the same time at `attempts` each; at least one."""
    return max(1, max_in_flight // max(1, attempts))
