"""Where the time of a rehearsed run went: problem by problem, beside what each had of the clock. Pure.

Knows a run as the gateway saw it and as it was recorded. Everything is in seconds since the start of the entrant's
process. *Banked* is what is left beyond an even share for each problem to come: negative when the run is behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.kaggle.rehearsal import RehearsedRun


@dataclass(frozen=True, slots=True)
class ProblemTime:
    """One problem's part of the clock.

    Attributes:
        id: of the problem.
        asked_s: when it was asked.
        answered_s: when its answer was handed in.
        share_s: that it had when work on it began; None where nobody worked on it.
        banked_s: after it.
        attempts: beginning and end of each attempt and check; one that never ended, ends with the problem.
        answer: that was handed in.
        gold: its label, as text.
        is_right: whether it is right; None without a label.
        num_asked: how often it was asked.
        reason: why work on it ended.
    """

    id: str
    asked_s: float
    answered_s: float
    share_s: float | None
    banked_s: float
    attempts: tuple[tuple[float, float], ...]
    answer: int
    gold: str | None
    is_right: bool | None
    num_asked: int
    reason: str

    @property
    def seconds(self) -> float:
        """From the question to the answer."""
        return self.answered_s - self.asked_s


def times_of(
    run: RehearsedRun, record: RunRecord, golds: Mapping[str, str], num_problems: int, clock_s: float
) -> tuple[ProblemTime, ...]:
    """The time line of a run, in the order of its calls.

    Args:
        run: as the gateway saw it.
        record: as it was recorded.
        golds: labels by id.
        num_problems: of the contest.
        clock_s: of it.
    """
    shift_s = record.started_wall_time - run.started_wall_time
    found = []
    for number, call in enumerate(run.calls, 1):
        item = record.problems.get(call.id)
        shares = [] if item is None else [m.data["budget_s"] for m in item.moments if m.kind == "problem_opened"]
        left = num_problems - number
        found.append(
            ProblemTime(
                id=call.id,
                asked_s=max(0.0, call.asked_s),
                answered_s=call.answered_s,
                share_s=shares[0] if shares else None,
                banked_s=clock_s - call.answered_s - left * clock_s / num_problems,
                attempts=() if item is None else _attempts(item, shift_s, call.answered_s),
                answer=call.answer,
                gold=golds.get(call.id),
                is_right=call.id in run.right if call.id in golds else None,
                num_asked=call.num_asked,
                reason="" if item is None else item.stop_reason or "",
            )
        )
    return tuple(found)


def _attempts(item: ProblemRecord, shift_s: float, end_s: float) -> tuple[tuple[float, float], ...]:
    begun: dict[str, float] = {}
    found = []
    for moment in item.moments:
        if moment.kind == "attempt_started" and moment.attempt_id is not None:
            begun[moment.attempt_id] = moment.at_s + shift_s
        elif moment.kind == "attempt_finished" and moment.attempt_id in begun:
            found.append((begun.pop(moment.attempt_id), moment.at_s + shift_s))
    return tuple(sorted([*found, *((start_s, max(start_s, end_s)) for start_s in begun.values())]))
