"""The one loop that turns events into actions: launches attempts, feeds them, ends problems.

Everything that is decided is decided by a policy; everything that happens is appended to the trace before it
counts. Knows nothing of which generator, which sandbox, or where the trace is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mathlete.cic.majority import tally
from mathlete.contest.clock import deadline_s, parallel_problems, share_s
from mathlete.contest.policy import OUT_OF_TIME
from mathlete.core.attempt import Attempt, Failure
from mathlete.core.budget import Clock
from mathlete.core.code import CodeLimits
from mathlete.core.errors import EngineError
from mathlete.core.generation import Completion, Finished, TokenChunk, Usage
from mathlete.core.policy import Launch, Policy, PoolState, Stop
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeRunner, Generator, TraceSink
from mathlete.core.record import ProblemRecord
from mathlete.core.selection import Selection
from mathlete.core.trace import EventKind, TraceEvent, encode
from mathlete.triad.code_attempt import AttemptConfig, CodeAttempt, Continue, Done, RunProgram, Step
from mathlete.triad.progress import ProblemProgress, RunProgress

INTERRUPTED = "interrupted"
NEVER_OPENED = "the clock ran out before it was opened"

# Problems that ended for one of these reasons are taken up again when a run is resumed with time left.
REOPENED = frozenset({INTERRUPTED, NEVER_OPENED, OUT_OF_TIME})

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class DriverConfig:
    """How a run is driven.

    Attributes:
        attempts: attempts a problem may get, for sharing the clock.
        max_in_flight: attempts generating at once, over all problems.
        run_seed: all noise is derived from it.
        attempt: limits of an attempt.
        code: limits of a program.
    """

    attempts: int = 8
    max_in_flight: int = 32
    run_seed: int = 0
    attempt: AttemptConfig = field(default_factory=AttemptConfig)
    code: CodeLimits = field(default_factory=CodeLimits)


@dataclass(slots=True)
class _OpenProblem:
    """A problem that is being worked on."""

    problem: Problem
    opened_s: float
    deadline_s: float
    finished: list[Attempt]
    num_launched: int
    next_index: int
    in_flight: dict[str, CodeAttempt] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended: "complete", "budget" or "interrupted", and what it took."""

    reason: str
    stats: Mapping[str, float]


class Driver:
    """Drives one run. Single-threaded; `request_stop` may be called from a signal handler."""

    def __init__(
        self,
        generator: Generator,
        runner: CodeRunner,
        sink: TraceSink,
        policy: Policy,
        config: DriverConfig,
        *,
        on_progress: Callable[[RunProgress], None] = lambda progress: None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Join the parts. `on_progress` is called after each step; it must be quick."""
        self._generator = generator
        self._runner = runner
        self._sink = sink
        self._policy = policy
        self._config = config
        self._on_progress = on_progress
        self._clock = clock
        self._stop_requested = False
        self._waiting: list[Problem] = []
        self._open: dict[str, _OpenProblem] = {}
        self._requests: dict[str, tuple[_OpenProblem, CodeAttempt]] = {}
        self._programs: dict[str, tuple[_OpenProblem, CodeAttempt]] = {}
        self._live_tokens: dict[str, int] = {}
        self._done: dict[str, ProblemProgress] = {}
        self._num_tokens = 0
        self._start_s = self._offset_s = self._end_s = 0.0

    def request_stop(self) -> None:
        """Ask the run to end soon: every problem gets the best answer that is there."""
        self._stop_requested = True

    def run(
        self, problems: Sequence[Problem], budget_s: float, earlier: Mapping[str, ProblemRecord], offset_s: float
    ) -> RunOutcome:
        """Work until every problem has a selection in the trace; at the latest one step after the budget.

        Args:
            problems: in order; those that `earlier` has settled are left alone.
            budget_s: seconds from now.
            earlier: what an earlier session of the run left, by problem id; empty for a new run.
            offset_s: where its clock stood.
        """
        self._start_s, self._offset_s = self._clock(), offset_s
        self._end_s = self._start_s + budget_s
        self._earlier = earlier
        self._order = [problem.id for problem in problems]
        for problem in problems:
            record = earlier.get(problem.id)
            if record is not None and record.selection is not None and record.stop_reason not in REOPENED:
                self._note_done(problem.id, record.attempts, record.selection, record.stop_reason or "")
            else:
                self._waiting.append(problem)
        while self._waiting or self._open:
            if self._stop_requested or self._clock() >= self._end_s:
                break
            self._decide_all()
            self._open_problems()
            self._step()
            self._on_progress(self.progress())
        reason = "complete" if not (self._waiting or self._open) else "budget"
        if self._stop_requested:
            reason = "interrupted"
        self._end_all(INTERRUPTED if self._stop_requested else None)
        self._on_progress(self.progress())
        seconds = self._clock() - self._start_s
        return RunOutcome(reason, {"num_tokens": float(self._num_tokens), "seconds": seconds})

    def progress(self) -> RunProgress:
        """A snapshot for a display."""
        now = self._clock()
        rows = tuple(self._done.get(key) or self._problem_progress(key, now) for key in self._order)
        return RunProgress(rows, self._at_s(), max(0.0, self._end_s - now),
                           self._num_tokens + sum(self._live_tokens.values()), now - self._start_s)  # fmt: skip

    # --- opening and deciding ---

    def _open_problems(self) -> None:
        """Open the next problems while there are slots that the open ones do not fill."""
        while self._waiting and self._room() > 0:
            problem = self._waiting.pop(0)
            now = self._clock()
            record = self._earlier.get(problem.id)
            tried = record.attempts if record else ()
            # one that was cut off had no chance; it is in the trace, and another takes its place
            finished = [attempt for attempt in tried if attempt.failure not in ("stopped", "out_of_time")]
            share = share_s(
                self._end_s - now,
                weight=1.0,
                total_weight=float(len(self._waiting) + len(self._open) + 1),
                num_parallel=self._num_parallel(),
            )
            state = _OpenProblem(
                problem, now, now + share, finished, len(finished), max((a.index + 1 for a in tried), default=0)
            )
            self._open[problem.id] = state
            self._append("problem_opened", {"budget_s": share}, problem.id)
            self._decide(state)

    def _decide_all(self) -> None:
        for state in list(self._open.values()):
            state.deadline_s = deadline_s(state.deadline_s, self._end_s, len(self._waiting))
            if self._clock() >= state.deadline_s:
                self._abandon(state, "out_of_time")
            self._decide(state)

    def _decide(self, state: _OpenProblem) -> None:
        """Do what the policy says until it waits, stops, or there is no slot."""
        while True:
            now = self._clock()
            pool = PoolState(
                problem=state.problem,
                attempts=tuple(state.finished),
                num_in_flight=len(state.in_flight),
                num_launched=state.num_launched,
                elapsed_s=now - state.opened_s,
                remaining_s=max(0.0, state.deadline_s - now),
            )
            action = self._policy.decide(pool)
            if isinstance(action, Stop):
                self._close(state, action.selection, action.reason)
                return
            room = self._room()
            if not isinstance(action, Launch) or room <= 0:
                return
            self._launch(state, min(action.n, room), action)

    def _launch(self, state: _OpenProblem, num: int, action: Launch) -> None:
        self._append(
            "decision",
            {"action": "launch", "n": num, "pillar": action.pillar, "temperature": action.temperature},
            state.problem.id,
        )
        for _ in range(num):
            attempt = CodeAttempt(
                state.problem, state.next_index, self._config.run_seed, action.temperature, self._at_s(),
                self._config.attempt,
            )  # fmt: skip
            state.next_index += 1
            state.num_launched += 1
            state.in_flight[attempt.attempt_id] = attempt
            data = {"index": attempt.index, "pillar": action.pillar, "seed": attempt.seed,
                    "temperature": action.temperature}  # fmt: skip
            self._append("attempt_started", data, state.problem.id, attempt.attempt_id)
            self._submit(state, attempt)

    def _room(self) -> int:
        return self._config.max_in_flight - sum(len(state.in_flight) for state in self._open.values())

    def _num_parallel(self) -> int:
        return parallel_problems(self._config.max_in_flight, self._config.attempts)

    # --- events ---

    def _step(self) -> None:
        """Take in what generator and sandbox have to tell."""
        if self._requests:
            for event in self._generator.events(_POLL_S):
                if isinstance(event, TokenChunk):
                    self._note_chunk(event)
                else:
                    self._on_finished(event)
        elif self._programs:
            time.sleep(_POLL_S / 5)
        for done in self._runner.poll():
            state, attempt = self._programs.pop(done.run_id)
            self._advance(state, attempt, attempt.on_result(done.result, self._at_s()))

    def _note_chunk(self, chunk: TokenChunk) -> None:
        if chunk.request_id in self._live_tokens:
            self._live_tokens[chunk.request_id] += chunk.num_tokens

    def _on_finished(self, event: Finished) -> None:
        known = self._requests.pop(event.request_id, None)
        self._live_tokens.pop(event.request_id, None)
        if known is None:
            return  # of an attempt that has been ended
        state, attempt = known
        self._num_tokens += len(event.completion.token_ids)
        self._advance(state, attempt, attempt.on_completion(event.completion, self._at_s()))

    def _advance(self, state: _OpenProblem, attempt: CodeAttempt, step: Step) -> None:
        if isinstance(step, RunProgram):
            run_id = f"{attempt.attempt_id}/{len(attempt.turns)}"
            self._programs[run_id] = (state, attempt)
            self._runner.submit(run_id, step.code, self._config.code)
            return
        self._append("turn_finished", {"turn": encode(attempt.turns[-1])}, state.problem.id, attempt.attempt_id)
        if isinstance(step, Continue):
            self._submit(state, attempt)
        else:
            self._finish_attempt(state, step)

    def _submit(self, state: _OpenProblem, attempt: CodeAttempt) -> None:
        request = attempt.next_request()
        self._requests[request.request_id] = (state, attempt)
        self._live_tokens[request.request_id] = 0
        try:
            self._generator.submit(request)
        except EngineError as error:
            self._append("warning", {"message": f"{attempt.attempt_id}: {error}"})
            failed = Completion("", (), (), (), "error", Usage(), error=str(error))
            self._on_finished(Finished(request.request_id, failed))

    def _finish_attempt(self, state: _OpenProblem, done: Done) -> None:
        del state.in_flight[done.attempt.id]
        self._append("attempt_finished", {"attempt": encode(done.attempt)}, state.problem.id, done.attempt.id)
        state.finished.append(done.attempt)

    # --- ending ---

    def _abandon(self, state: _OpenProblem, failure: Failure) -> None:
        """End what is in flight; an answer that is already there (a program printed it) still counts."""
        if not state.in_flight:
            return
        self._generator.abort(group=state.problem.id)
        for run_id, (owner, _) in list(self._programs.items()):
            if owner is state:
                self._runner.cancel(run_id)
                del self._programs[run_id]
        partial = self._partial_completions(state)
        for attempt in list(state.in_flight.values()):
            completion = partial.get(attempt.attempt_id)
            if completion is not None:
                attempt.on_completion(completion, self._at_s())
                self._append("turn_finished", {"turn": encode(attempt.turns[-1])}, state.problem.id, attempt.attempt_id)
            self._finish_attempt(state, attempt.end(self._at_s(), failure))

    def _partial_completions(self, state: _OpenProblem) -> dict[str, Completion]:
        """What the aborted requests of a problem had written, by attempt id."""
        mine = {key: attempt for key, (owner, attempt) in self._requests.items() if owner is state}
        for key in mine:
            del self._requests[key]
            self._live_tokens.pop(key, None)
        found = {}
        for event in self._generator.events(0.0) if mine else ():
            if isinstance(event, Finished) and event.request_id in mine:
                self._num_tokens += len(event.completion.token_ids)
                found[mine[event.request_id].attempt_id] = event.completion
            elif isinstance(event, Finished):
                self._on_finished(event)
            else:
                self._note_chunk(event)
        return found

    def _close(self, state: _OpenProblem, selection: Selection, reason: str) -> None:
        self._abandon(state, "stopped")
        self._append("decision", {"action": "stop", "reason": reason}, state.problem.id)
        del self._open[state.problem.id]
        self._finish_problem(state.problem, state.finished, selection, reason)

    def _end_all(self, reason: str | None) -> None:
        """The run is over: every problem that is left gets a selection from what is there."""
        for state in list(self._open.values()):
            self._abandon(state, "stopped" if reason else "out_of_time")
            selection = self._selection_now(state.problem, state.finished)
            self._close(state, selection, reason or OUT_OF_TIME)
        for problem in self._waiting:
            record = self._earlier.get(problem.id)
            attempts = record.attempts if record else ()
            self._finish_problem(problem, attempts, self._selection_now(problem, attempts), reason or NEVER_OPENED)
        self._waiting = []

    def _selection_now(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        action = self._policy.decide(PoolState(problem, tuple(attempts), 0, len(attempts), 0.0, 0.0))
        assert isinstance(action, Stop), "a policy stops when no time remains"
        return action.selection

    def _finish_problem(self, problem: Problem, attempts: Sequence[Attempt], selection: Selection, reason: str) -> None:
        self._append("problem_finished", {"selection": encode(selection), "reason": reason}, problem.id)
        self._note_done(problem.id, attempts, selection, reason)

    def _note_done(self, problem_id: str, attempts: Sequence[Attempt], selection: Selection, reason: str) -> None:
        votes = tuple((t.answer, t.votes) for t in tally(attempts))
        self._done[problem_id] = ProblemProgress(
            problem_id, "done", len(attempts), 0, sum(a.num_tokens for a in attempts), votes, selection.answer, reason
        )

    # --- small things ---

    def _problem_progress(self, problem_id: str, now: float) -> ProblemProgress:
        state = self._open.get(problem_id)
        if state is None:
            return ProblemProgress(problem_id, "waiting")
        live = sum(self._live_tokens.get(key, 0) for key, (owner, _) in self._requests.items() if owner is state) + sum(
            attempt.num_tokens for attempt in state.in_flight.values()
        )
        return ProblemProgress(
            problem_id,
            "open",
            len(state.finished),
            len(state.in_flight),
            live + sum(attempt.num_tokens for attempt in state.finished),
            tuple((t.answer, t.votes) for t in tally(state.finished)),
            elapsed_s=now - state.opened_s,
        )

    def _at_s(self) -> float:
        return self._offset_s + self._clock() - self._start_s

    def _append(
        self, kind: EventKind, data: Mapping[str, object], problem_id: str | None = None, attempt_id: str | None = None
    ) -> None:
        self._sink.append(TraceEvent(kind, self._at_s(), data, problem_id, attempt_id, time.time()))
