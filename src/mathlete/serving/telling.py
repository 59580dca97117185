"""Words for what happens to a problem, between one look and the next. Pure: two glimpses in, a text out."""

from __future__ import annotations

from dataclasses import dataclass

from mathlete.core.durations import clock_text
from mathlete.triad.progress import ProblemProgress

_EVERY_S = 15.0  # the time left is told so often when nothing else happens
_MAX_VOTES = 4


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One problem at one moment.

    Attributes:
        num_before: problems that are worked on before this one begins; None once it has begun.
        row: how far it has come; None before it has begun.
        at_s: seconds it has been worked on.
        remaining_s: seconds it may take at most from now.
    """

    num_before: int | None = None
    row: ProblemProgress | None = None
    at_s: float = 0.0
    remaining_s: float = 0.0


def news(before: Glimpse | None, now: Glimpse) -> str | None:
    """What to tell of `now` to who was last told of `before`; None for nothing. Lines end with a line end."""
    if now.row is None:
        return _waiting(before, now)
    then = before.row if before is not None else None
    lines = [] if then is not None else [f"Begun; {clock_text(now.remaining_s)} left at most.\n"]
    old = then or ProblemProgress(now.row.problem_id, "waiting")
    num_new = _num_begun(now.row) - _num_begun(old)
    if num_new > 0:  # later ones may be checks: they are told apart when they are done
        what = "more" if old.num_finished else f"attempt{'' if num_new == 1 else 's'}"
        lines.append(f"{_at(now)} {num_new} {what} begun.\n")
    if (now.row.num_finished, now.row.num_checks, now.row.votes) != (old.num_finished, old.num_checks, old.votes):
        lines.append(f"{_at(now)} {_standing(now.row)}; {clock_text(now.remaining_s)} left.\n")
    elif not lines and before is not None and now.at_s - before.at_s >= _EVERY_S:
        lines.append(f"{_at(now)} {now.row.num_tokens:,} tokens written; {clock_text(now.remaining_s)} left.\n")
    return "".join(lines) or None


def _waiting(before: Glimpse | None, now: Glimpse) -> str | None:
    if now.num_before is None or (before is not None and before.num_before == now.num_before):
        return None
    return f"Waiting: {_counted(now.num_before, 'problem')} first.\n"


def _standing(row: ProblemProgress) -> str:
    told = [f"{_counted(row.num_finished, 'attempt')} finished, {row.num_in_flight} going on"]
    if row.num_checks:
        told.append(_counted(row.num_checks, "check") + " done")
    votes = ", ".join(f"{answer} ×{count}" for answer, count in row.votes[:_MAX_VOTES])
    more = len(row.votes) - _MAX_VOTES
    told.append(f"votes: {votes}" + (f" and {more} more" if more > 0 else "") if votes else "no answer yet")
    return "; ".join(told)


def _num_begun(row: ProblemProgress) -> int:
    """Attempts and checks."""
    return row.num_finished + row.num_checks + row.num_in_flight


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _at(now: Glimpse) -> str:
    return f"[{clock_text(now.at_s)}]"
