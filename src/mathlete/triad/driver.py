"""The one loop that turns events into actions: opens problems, launches attempts, ends problems.

Everything that is decided is decided by a policy; everything that happens is appended to the trace before it
counts. Knows nothing of where attempts come from, or where the trace is kept.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mathlete.contest.clock import deadline_s, longest_s, parallel_problems, share_s
from mathlete.contest.policy import OUT_OF_TIME
from mathlete.contest.stop_rules import takes_place
from mathlete.core.attempt import CUT_OFF, Attempt
from mathlete.core.policy import Launch, Outlook, Policy, PoolState, Stop, Wait
from mathlete.core.problem import Problem
from mathlete.core.protocols import Clock, TraceSink
from mathlete.core.record import ProblemRecord
from mathlete.core.selection import Selection
from mathlete.core.trace import encode
from mathlete.triad.attempt_source import MakeSource
from mathlete.triad.pace import Pace
from mathlete.triad.progress import ProblemProgress, RunProgress, progress_of_done, progress_of_open
from mathlete.triad.run_trace import RunTrace

COMPLETE, BUDGET, INTERRUPTED = "complete", "budget", "interrupted"
NEVER_OPENED = "the clock ran out before it was opened"

_UNSEEN_WEIGHT = 1.0  # of a problem that nobody has seen: the average that `weigh` is relative to

# Problems that ended for one of these reasons are taken up again when a run is resumed with time left.
_CUT_SHORT = frozenset({INTERRUPTED, NEVER_OPENED, OUT_OF_TIME})


@dataclass(frozen=True, slots=True)
class DriverConfig:
    """How a run is driven.

    Attributes:
        attempts: attempts a problem may get, for sharing the clock.
        max_in_flight: attempts generating at once, over all problems.
        tokens_per_s: of the generator, all attempts together, as far as it is known beforehand.
        token_budget: tokens of all sessions together that policies may plan with; None for no limit.
        stretch: times its share of the clock that a problem may take at most, when its policy goes on; >= 1.
        max_open: problems worked on at the same time at most; None for as many as there are slots for. One at a time
            while problems are still to come.
        max_tokens: that an attempt may take; how many it is expected to, until some have ended, goes by it.
    """

    attempts: int = 8
    max_in_flight: int = 32
    tokens_per_s: float | None = None
    token_budget: int | None = None
    stretch: float = 1.0
    max_open: int | None = None
    max_tokens: int = 1024


class Feed(Protocol):
    """Where a driver gets problems from while it works: several drivers share those of one run."""

    def take(self) -> tuple[Problem, ProblemRecord | None] | None:
        """The next problem, with what others left of it; None when there is none now."""
        ...

    def num_to_come(self) -> int:
        """Problems that nobody has taken yet, as far as they are this driver's part."""
        ...

    def tokens_left(self) -> int | None:
        """Tokens that policies may plan with here, of those that are left to the run; None for no limit."""
        ...

    def wait_for_more(self) -> bool:
        """Asked when there is nothing to do: wait a moment; False when no more will come."""
        ...


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a session ended.

    Attributes:
        reason: "complete", or why some problems were cut short: "budget" or "interrupted".
        stats: `num_tokens` and `seconds` of this session.
    """

    reason: str
    stats: Mapping[str, float]


@dataclass(slots=True)
class _OpenProblem:
    """A problem that is being worked on."""

    problem: Problem
    opened_s: float
    deadline_s: float
    finished: list[Attempt]
    num_launched: int
    indices: Iterator[int]  # of attempts to come
    affordable: int | None  # attempts that the clock has room for
    num_tokens: int = 0  # of finished attempts, those of earlier sessions included
    waited_at: tuple[int, int] | None = None  # attempts finished and launched when waiting was last recorded


def is_cut_short(record: ProblemRecord) -> bool:
    """Whether a problem has no selection, or one that more time might better."""
    return record.selection is None or record.stop_reason in _CUT_SHORT


def _free_indices(attempts: Sequence[Attempt]) -> Iterator[int]:
    """Numbers that no finished attempt has: one that was cut off by a crash is made again, with the same noise."""
    used = {attempt.index for attempt in attempts}
    return (index for index in itertools.count() if index not in used)


def _last_pool(problem: Problem, attempts: Sequence[Attempt]) -> PoolState:
    """What a policy is asked with at the very end of a session: nothing is in flight and no time remains."""
    return PoolState(problem, tuple(attempts), 0, len(attempts), 0.0, 0.0)


class Driver:
    """Drives one session of a run. Single-threaded; `request_stop` may be called from a signal handler."""

    def __init__(
        self,
        make_source: MakeSource,
        sink: TraceSink,
        policy: Policy,
        config: DriverConfig,
        *,
        weigh: Callable[[Problem], float] = lambda problem: 1.0,
        on_progress: Callable[[RunProgress], None] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Join the parts.

        Args:
            make_source: where attempts come from.
            sink: where the trace is kept.
            policy: decides.
            config: how the run is driven.
            weigh: the part of the clock that a problem should get, relative to others; > 0.
            on_progress: called first and after each step; it must be quick.
            clock: in seconds.
        """
        self._make_source = make_source
        self._sink = sink
        self._policy = policy
        self._config = config
        self._weigh = weigh
        self._on_progress = on_progress
        self._clock = clock
        self._stop_requested = False
        self._num_upcoming = 0
        self._feed: Feed | None = None
        self._waiting: list[Problem] = []
        self._open: dict[str, _OpenProblem] = {}
        self._done: dict[str, ProblemProgress] = {}

    def request_stop(self) -> None:
        """Ask the run to end soon: every problem gets the best answer that is there."""
        self._stop_requested = True

    def run(
        self,
        problems: Sequence[Problem],
        budget_s: float,
        earlier: Mapping[str, ProblemRecord],
        offset_s: float,
        *,
        num_upcoming: int = 0,
        feed: Feed | None = None,
    ) -> RunOutcome:
        """Work until every problem has a selection in the trace; at the latest one step after the budget.

        Args:
            problems: in order; those that `earlier` has settled are left alone.
            budget_s: seconds from now.
            earlier: what earlier sessions of the run left, by problem id; empty for a new run.
            offset_s: where their clock stood.
            num_upcoming: problems of average weight that are to be served from the same budget in later sessions,
                strictly in turn: nobody has seen them yet (a contest).
            feed: gives further problems while there are slots for them.
        """
        self._feed = feed
        self._num_upcoming, self._offset_s = num_upcoming, offset_s
        self._trace = RunTrace(self._sink, self._clock, offset_s)
        self._source = self._make_source(self._trace)
        self._tokens_before = sum(attempt.num_tokens for record in earlier.values() for attempt in record.attempts)
        self._pace = Pace(self._config.attempts, self._config.tokens_per_s, self._config.max_tokens)
        for attempt in (attempt for record in earlier.values() for attempt in record.attempts):
            self._pace.note(attempt)
        self._end_s = self._trace.start_s + budget_s
        self._earlier = dict(earlier)
        self._order = [problem.id for problem in problems]
        for problem in problems:
            record = earlier.get(problem.id)
            if record is None or record.selection is None or is_cut_short(record):
                self._waiting.append(problem)
            else:
                self._note_done(problem.id, record.attempts, record.selection, record.stop_reason or "")
        self._tell()
        while self._clock() < self._end_s and not self._stop_requested and self._has_work():
            self._decide_all()
            self._open_problems()
            self._source.step()
            self._collect()
            self._tell()
        self._end_all(INTERRUPTED if self._stop_requested else None)
        self._tell()
        stats = {"num_tokens": float(self._source.num_tokens), "seconds": self._clock() - self._trace.start_s}
        return RunOutcome(self._reason(), stats)

    def next_deadline_s(self) -> float:
        """The time on the clock at which the next problem, or the run, must end."""
        return min([self._end_s, *(state.deadline_s for state in self._open.values())])

    def progress(self) -> RunProgress:
        """A snapshot for a display, once `run` has begun."""
        now = self._clock()
        rows = tuple(self._done.get(key) or self._problem_progress(key, now) for key in self._order)
        return RunProgress(
            problems=rows,
            at_s=self._trace.at_s(),
            remaining_s=max(0.0, self._end_s - now),
            num_tokens=self._source.num_tokens,
            generating_s=now - self._trace.start_s,
        )

    # --- opening and deciding ---

    def _has_work(self) -> bool:
        return bool(self._waiting or self._open) or (self._feed is not None and self._feed.wait_for_more())

    def _take_fed(self) -> None:
        """Take the next problem of the feed when there is none here that could be opened."""
        fed = None if self._feed is None or self._waiting or not self._may_open() else self._feed.take()
        if fed is not None:
            problem, record = fed
            self._order.append(problem.id)
            self._waiting.append(problem)
            if record is not None:
                self._earlier[problem.id] = record

    def _open_problems(self) -> None:
        """Open the next problems while there are slots that the open ones do not fill."""
        self._take_fed()
        while self._waiting and self._may_open() and self._clock() < self._end_s:
            more = self._pace.affordable(
                self._end_s - self._clock(), self._num_to_come() + len(self._open), self._tokens_left()
            )
            more = None if more is None else max(1, more)  # whoever is opened gets a try
            problem = self._waiting.pop(0)
            now = self._clock()
            num_parallel = parallel_problems(self._config.max_in_flight, more or self._config.attempts)
            num_parallel = min(num_parallel, self._max_open() or num_parallel)
            share = share_s(
                self._end_s - now,
                weight=self._weigh(problem),
                total_weight=sum(map(self._weigh, [problem, *self._waiting, *self._open_problems_now()]))
                + _UNSEEN_WEIGHT * self._num_unseen(),
                num_parallel=num_parallel,
            )
            share = longest_s(
                share,
                self._end_s - now,
                stretch=self._config.stretch,
                even_s=self._even_s() * num_parallel,
                num_waiting=self._num_to_come(),
                num_parallel=num_parallel,
            )
            tried = self._attempts_before(problem)
            # one that was cut off before it had an answer stays in the trace, and another takes its place
            finished = [attempt for attempt in tried if attempt.answer is not None or attempt.failure not in CUT_OFF]
            affordable = self._affordable(finished, more)
            state = _OpenProblem(
                problem, now, now + share, finished, len(finished), _free_indices(tried), affordable,
                sum(attempt.num_tokens for attempt in tried),
            )  # fmt: skip
            self._open[problem.id] = state
            self._trace.append("problem_opened", {"budget_s": share, "affordable": affordable}, problem.id)
            self._decide(state)
            self._take_fed()

    def _affordable(self, finished: Sequence[Attempt], more: int | None) -> int | None:
        """Attempts in all of a problem that can have so many more; None where that is not known. Checks are none."""
        return None if more is None else min(self._config.attempts, sum(map(takes_place, finished)) + more)

    def _may_open(self) -> bool:
        return self._room() > 0 and self._is_below_max_open()

    def _is_below_max_open(self) -> bool:
        max_open = self._max_open()
        return max_open is None or len(self._open) < max_open

    def _even_s(self) -> float:
        """Seconds of an even share: of this session, or of all sessions where each of them has its own problems."""
        if not self._num_upcoming:
            return (self._end_s - self._trace.start_s) / (len(self._order) + self._num_unseen())
        return (self._offset_s + self._end_s - self._trace.start_s) / (
            len({*self._earlier, *self._order}) + self._num_upcoming
        )

    def _max_open(self) -> int | None:
        return 1 if self._num_upcoming else self._config.max_open

    def _num_to_come(self) -> int:
        """Problems that are not opened yet, those among them that nobody has brought here."""
        return len(self._waiting) + self._num_unseen()

    def _num_unseen(self) -> int:
        return self._num_upcoming + (0 if self._feed is None else self._feed.num_to_come())

    def _open_problems_now(self) -> list[Problem]:
        return [state.problem for state in self._open.values()]

    def _decide_all(self) -> None:
        for state in list(self._open.values()):
            state.deadline_s = deadline_s(state.deadline_s, self._end_s, self._num_to_come())
            if not self._num_to_come() and state.affordable is not None:  # what the others left may afford more
                more = self._pace.affordable(self._end_s - self._clock(), len(self._open), self._tokens_left())
                state.affordable = max(state.affordable, self._affordable(state.finished, more) or 0)
            if self._clock() >= state.deadline_s:
                self._source.end([state.problem.id], "out_of_time")
            self._decide(state)

    def _decide(self, state: _OpenProblem) -> None:
        """Do what the policy says until it waits, stops, or there is no slot."""
        while True:
            self._collect()
            pool = self._pool(state)
            action = self._policy.decide(pool)
            if isinstance(action, Stop):
                self._trace.append_decision(action, pool)
                self._close(state, action)
                return
            num = min(action.n, self._room()) if isinstance(action, Launch) else 0
            if not isinstance(action, Launch) or num <= 0:
                self._note_waiting(state, action, pool)
                return
            self._trace.append_decision(action, pool, num)
            self._launch(state, num, action)

    def _note_waiting(self, state: _OpenProblem, action: Launch | Wait, pool: PoolState) -> None:
        """Record that nothing is begun, once for each pool: a policy is asked many times a second."""
        begun = (len(pool.attempts), pool.num_launched)
        if state.waited_at != begun:
            state.waited_at = begun
            self._trace.append_decision(action, pool, 0)

    def _pool(self, state: _OpenProblem) -> PoolState:
        now = self._clock()
        return PoolState(
            problem=state.problem,
            attempts=tuple(state.finished),
            num_in_flight=self._source.count(state.problem.id),
            num_launched=state.num_launched,
            elapsed_s=now - state.opened_s,
            remaining_s=max(0.0, state.deadline_s - now),
            affordable=state.affordable,
            in_flight=self._source.launched(state.problem.id),
            num_tokens=state.num_tokens + self._source.num_tokens_of(state.problem.id),
            outlook=self._outlook(now),
        )

    def _tokens_left(self) -> int | None:
        if self._feed is not None:
            return self._feed.tokens_left()
        budget = self._config.token_budget
        return None if budget is None else max(0, budget - self._tokens_before - self._source.num_tokens)

    def _outlook(self, now: float) -> Outlook:
        return Outlook(
            remaining_s=max(0.0, self._end_s - now),
            tokens_left=self._tokens_left(),
            num_waiting=self._num_to_come(),
            num_open=len(self._open),
            tokens_per_s=self._pace.tokens_per_s,
            tokens_per_attempt=self._pace.tokens_per_attempt,
            may_open=self._is_below_max_open(),
        )

    def _launch(self, state: _OpenProblem, num: int, action: Launch) -> None:
        for index in itertools.islice(state.indices, num):
            state.num_launched += 1
            self._source.start(state.problem, index, action, state.finished)

    def _collect(self) -> None:
        for attempt in self._source.take_finished():
            state = self._open[attempt.problem_id]
            state.finished.append(attempt)
            state.num_tokens += attempt.num_tokens
            self._pace.note(attempt)
        self._pace.note_speed(self._source.num_tokens, self._clock() - self._trace.start_s)

    def _room(self) -> int:
        return self._config.max_in_flight - self._source.count()

    # --- ending ---

    def _close(self, state: _OpenProblem, stop: Stop) -> None:
        """End a problem with the policy's selection; siblings in flight are ended without a vote."""
        self._source.end([state.problem.id], "stopped")
        self._collect()
        del self._open[state.problem.id]
        self._finish_problem(state.problem, state.finished, stop.selection, stop.reason)

    def _end_all(self, reason: str | None) -> None:
        """The session is over: every problem that is left gets a selection from what is there."""
        self._source.end(list(self._open), "interrupted" if reason else "out_of_time")
        self._collect()
        for state in list(self._open.values()):
            stop = Stop(self._selection_now(state.problem, state.finished), reason or OUT_OF_TIME)
            self._trace.append_decision(stop, _last_pool(state.problem, state.finished))
            self._close(state, stop)
        for problem in self._waiting:
            attempts = self._attempts_before(problem)
            self._finish_problem(problem, attempts, self._selection_now(problem, attempts), reason or NEVER_OPENED)
        self._waiting = []

    def _selection_now(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        action = self._policy.decide(_last_pool(problem, attempts))
        assert isinstance(action, Stop), "a policy stops when no time remains"
        return action.selection

    def _finish_problem(self, problem: Problem, attempts: Sequence[Attempt], selection: Selection, reason: str) -> None:
        self._trace.append("problem_finished", {"selection": encode(selection), "reason": reason}, problem.id)
        self._note_done(problem.id, attempts, selection, reason)

    def _attempts_before(self, problem: Problem) -> tuple[Attempt, ...]:
        record = self._earlier.get(problem.id)
        return record.attempts if record else ()

    def _reason(self) -> str:
        if not any(row.reason in _CUT_SHORT for row in self._done.values()):
            return COMPLETE
        return INTERRUPTED if self._stop_requested else BUDGET

    # --- telling ---

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.progress())

    def _note_done(self, problem_id: str, attempts: Sequence[Attempt], selection: Selection, reason: str) -> None:
        self._done[problem_id] = progress_of_done(problem_id, attempts, selection, reason)

    def _problem_progress(self, problem_id: str, now: float) -> ProblemProgress:
        state = self._open.get(problem_id)
        if state is None:
            return ProblemProgress(problem_id, "waiting")
        return progress_of_open(
            problem_id,
            state.finished,
            num_in_flight=self._source.count(problem_id),
            num_live_tokens=self._source.num_tokens_of(problem_id),
            elapsed_s=now - state.opened_s,
        )
