"""Which worker has which problem, and what of it is in the store: the head's books. Pure.

Each problem is with one worker at a time, from when it is given until its end is kept or the worker is lost. Then it
goes to the front of the queue with all attempts that were kept, so a problem gets exactly one selection a session: an
event of somebody who does not have the problem any more is not taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mathlete.cluster.messages import Given, Orders, Report
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord, fold_run
from mathlete.core.trace import TraceEvent
from mathlete.triad.driver import is_cut_short
from mathlete.triad.progress import ProblemProgress


@dataclass(slots=True)
class _Share:
    """What one worker has."""

    given: list[Given] = field(default_factory=list)  # that it has not said to have
    problem_ids: set[str] = field(default_factory=set)  # that it works on
    num_given: int = 0
    num_kept: int = 0
    wants: bool = False
    num_tokens: int = 0
    open: tuple[ProblemProgress, ...] = ()


class Assignments:
    """The problems of one session of a run, and the workers that have them."""

    def __init__(
        self, problems: Sequence[Problem], earlier: Mapping[str, ProblemRecord], token_budget: int | None = None
    ) -> None:
        """Nobody has anything yet.

        Args:
            problems: in order; those that `earlier` has settled are done.
            earlier: what earlier sessions left.
            token_budget: tokens of all sessions together that policies may plan with.
        """
        self._problems = {problem.id: problem for problem in problems}
        self._record = RunRecord(
            {}, {problem.id: earlier.get(problem.id) or ProblemRecord(problem) for problem in problems}
        )
        left = [key for key in self._problems if key not in earlier or is_cut_short(earlier[key])]
        self._queue = left
        self._ended = set(self._problems) - set(left)
        self._shares: dict[str, _Share] = {}
        self._token_budget = token_budget
        self._num_lost_tokens = 0  # of workers that are gone
        self._num_tokens_before = _num_tokens(earlier.values())

    @property
    def records(self) -> Mapping[str, ProblemRecord]:
        """Every problem as far as the store tells."""
        return self._record.problems

    @property
    def is_done(self) -> bool:
        """Whether every problem has ended."""
        return len(self._ended) == len(self._problems)

    @property
    def left(self) -> list[Problem]:
        """Problems that have not ended in this session."""
        return [problem for key, problem in self._problems.items() if key not in self._ended]

    @property
    def num_tokens(self) -> int:
        """Sampled in this session."""
        return self._num_lost_tokens + sum(share.num_tokens for share in self._shares.values())

    @property
    def open(self) -> Mapping[str, ProblemProgress]:
        """What the workers say of the problems that they have."""
        return {row.problem_id: row for share in self._shares.values() for row in share.open}

    def is_ended(self, problem_id: str) -> bool:
        """Whether the problem has ended: in this session, or in earlier ones for good."""
        return problem_id in self._ended

    def add(self, worker: str) -> None:
        """A worker is ready."""
        self._shares[worker] = _Share()

    def remove(self, worker: str) -> int:
        """A worker is lost: others get what it had.

        Returns:
            how many problems that are.
        """
        share = self._shares.pop(worker)
        self._num_lost_tokens += share.num_tokens
        returned = [key for key in self._problems if key in share.problem_ids]
        self._queue[:0] = returned
        return len(returned)

    def take(self, worker: str, report: Report) -> list[TraceEvent]:
        """Take in what a worker says; the events of it that are to be kept now, in order.

        Whoever calls keeps them before anything else is done.
        """
        share = self._shares[worker]
        share.given = [given for given in share.given if given.number > report.num_taken]
        share.wants = report.wants and not share.given
        share.num_tokens = report.num_tokens
        share.open = report.open
        new = report.events[share.num_kept - report.first :]
        share.num_kept = max(share.num_kept, report.first + len(report.events))
        kept = [event for event in new if event.problem_id is None or event.problem_id in share.problem_ids]
        self.note(kept)
        share.problem_ids -= self._ended
        return kept

    def note(self, events: Sequence[TraceEvent]) -> None:
        """Learn from events that are kept."""
        self._record = fold_run(events, self._record)
        self._ended |= {event.problem_id for event in events if event.problem_id and event.kind == "problem_finished"}

    def orders(self, worker: str, *, stop: bool) -> Orders:
        """What a worker is to be told now: it gets a problem if it wants one and there is one."""
        share = self._shares[worker]
        if share.wants and self._queue and not stop:
            problem_id = self._queue.pop(0)
            record = self._record.problems[problem_id]
            share.num_given += 1
            earlier = replace(record, selection=None, stop_reason=None) if record.attempts else None
            share.given.append(Given(share.num_given, self._problems[problem_id], earlier))
            share.problem_ids.add(problem_id)
            share.wants = False
        num_workers = len(self._shares)
        return Orders(
            num_kept=share.num_kept,
            given=tuple(share.given),
            num_to_come=-(-len(self._queue) // num_workers),
            tokens_left=self._tokens_left(num_workers),
            no_more=self.is_done,
            stop=stop,
        )

    def _tokens_left(self, num_workers: int) -> int | None:
        if self._token_budget is None:
            return None
        return max(0, self._token_budget - self._num_tokens_before - self.num_tokens) // num_workers


def _num_tokens(records: Iterable[ProblemRecord]) -> int:
    return sum(attempt.num_tokens for record in records for attempt in record.attempts)
