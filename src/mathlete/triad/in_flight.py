"""The attempts that are being made: sends their requests and programs, and takes in what comes back.

Knows generator, sandbox and trace; knows nothing of policies, votes, or the clock that ends a problem.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from mathlete.core.attempt import Attempt, Failure, Rewinding
from mathlete.core.code import CodeLimits
from mathlete.core.errors import EngineError
from mathlete.core.generation import Completion, Finished, Rewound, TokenChunk
from mathlete.core.policy import Launch, Launched
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeRunner, Generator, ProofChecker, StepChecker
from mathlete.core.trace import encode, encode_ending
from mathlete.triad.attempt_source import MakeSource
from mathlete.triad.making import AttemptMaker
from mathlete.triad.pillar import CheckProof, CheckStep, Continue, Done, PillarAttempt, RunProgram, Step, turn_of
from mathlete.triad.run_trace import RunTrace

_POLL_S = 0.05
_PROGRAM_POLL_S = 0.01
# A generator in this process tells of an abort at once; one behind a network may take a moment.
_MAX_ABORT_POLLS = 20


class InFlight:
    """Attempts from launch to end. Those that have ended wait in `take_finished`, recorded in the trace."""

    def __init__(
        self,
        generator: Generator,
        runner: CodeRunner,
        trace: RunTrace,
        maker: AttemptMaker,
        code: CodeLimits,
        sleep: Callable[[float], None] = time.sleep,
        checker: StepChecker | None = None,
        prover: ProofChecker | None = None,
        model_of: Callable[[str], str | None] = lambda pillar: None,
    ) -> None:
        """Join the parts.

        Args:
            generator: writes.
            runner: runs programs.
            trace: where everything is recorded.
            maker: makes the attempts.
            code: limits of each program.
            sleep: waits for programs and checks when nothing is generating.
            checker: judges steps of attempts that ask for it.
            prover: checks proofs of attempts that ask for it.
            model_of: name of the model that writes for a pillar, where there are several.
        """
        self._model_of = model_of
        self._checker = checker
        self._prover = prover
        self._checks: dict[str, PillarAttempt] = {}  # of steps and proofs
        self._generator = generator
        self._runner = runner
        self._trace = trace
        self._maker = maker
        self._code = code
        self._sleep = sleep
        self._attempts: dict[str, PillarAttempt] = {}
        self._launched: dict[str, Launched] = {}  # by attempt id
        self._requests: dict[str, PillarAttempt] = {}
        self._programs: dict[str, PillarAttempt] = {}
        self._live_tokens: dict[str, int] = {}  # of running requests
        self._finished: list[Attempt] = []
        self._warned: set[tuple[str, str]] = set()
        self._num_closed_tokens = 0

    @property
    def num_tokens(self) -> int:
        """Tokens sampled in this session, those of running requests included."""
        return self._num_closed_tokens + sum(self._live_tokens.values())

    def count(self, problem_id: str | None = None) -> int:
        """Attempts in flight: of one problem, or all."""
        return sum(problem_id in (None, attempt.problem.id) for attempt in self._attempts.values())

    def launched(self, problem_id: str) -> tuple[Launched, ...]:
        """What the attempts of a problem that are in flight are, in the order of their launch."""
        return tuple(self._launched[key] for key, item in self._attempts.items() if item.problem.id == problem_id)

    def num_tokens_of(self, problem_id: str) -> int:
        """Tokens sampled so far by the attempts of a problem that are in flight."""
        closed = sum(attempt.num_tokens for attempt in self._attempts.values() if attempt.problem.id == problem_id)
        running = (key for key, attempt in self._requests.items() if attempt.problem.id == problem_id)
        return closed + sum(self._live_tokens[key] for key in running)

    def take_finished(self) -> list[Attempt]:
        """Attempts that have ended since the last call, in the order in which they ended."""
        finished, self._finished = self._finished, []
        return finished

    def start(self, problem: Problem, index: int, launch: Launch, pool: Sequence[Attempt]) -> None:
        """Launch an attempt. One whose prompt the generator refuses is over at once."""
        attempt = self._maker.make(problem, index, launch, pool, self._trace.at_s())
        self._attempts[attempt.attempt_id] = attempt
        self._launched[attempt.attempt_id] = Launched(launch.pillar, launch.round, launch.about)
        data = {
            "index": index,
            "pillar": launch.pillar,
            "seed": attempt.seed,
            "temperature": launch.temperature,
            "round": launch.round,
        }
        self._trace.append("attempt_started", data, attempt.problem.id, attempt.attempt_id)
        self._submit(attempt)

    def step(self) -> None:
        """Take in what generator and sandbox have to tell; waits a moment when there is nothing."""
        if self._requests:
            self._take_events()
        elif self._programs or self._checks:
            self._sleep(_PROGRAM_POLL_S)
        for done in self._runner.poll():
            attempt = self._programs.pop(done.run_id)
            self._advance(attempt, attempt.take_result(done, self._trace.at_s()))
        for checker in self._checkers():
            for checked in checker.poll():
                attempt = self._checks.pop(checked.check_id)
                self._advance(attempt, attempt.take_checked(checked, self._trace.at_s()))

    def end(self, problem_ids: Collection[str], failure: Failure) -> None:
        """End all attempts of some problems; what they have written is kept.

        Args:
            problem_ids: whose attempts.
            failure: one of `core.attempt.CUT_OFF`.
        """
        ending = [attempt for attempt in self._attempts.values() if attempt.problem.id in problem_ids]
        for problem_id in {attempt.problem.id for attempt in ending}:
            self._generator.abort(group=problem_id)
        for run_id, attempt in list(self._programs.items()):
            if attempt.problem.id in problem_ids:
                self._runner.cancel(run_id)
                del self._programs[run_id]
        for check_id, attempt in list(self._checks.items()):
            if attempt.problem.id in problem_ids:
                for checker in self._checkers():  # one of them knows it
                    checker.cancel(check_id)
                del self._checks[check_id]
        partial = self._take_partial_completions(problem_ids)
        for attempt in ending:
            for event in partial.get(attempt.attempt_id, ()):
                attempt.take(event, self._trace.at_s())
            done = attempt.end(self._trace.at_s(), failure)
            self._record(attempt)
            self._keep(done.attempt)

    def _take_partial_completions(self, problem_ids: Collection[str]) -> dict[str, list[Finished]]:
        """What the aborted requests had written, by attempt id. What else is told meanwhile is taken in as ever."""
        mine = {key: attempt for key, attempt in self._requests.items() if attempt.problem.id in problem_ids}
        for key in mine:
            del self._requests[key], self._live_tokens[key]
        partial: dict[str, list[Finished]] = {}
        num_left = len(mine)
        for _ in range(_MAX_ABORT_POLLS):
            if not num_left:
                break
            for event in self._take_events():
                if event.request_id in mine:
                    partial.setdefault(mine[event.request_id].attempt_id, []).append(event)
                    self._num_closed_tokens += _num_sampled(event.completion)
                    num_left -= 1
        return partial

    def _take_events(self) -> list[Finished]:
        """Act on the generator's news; returns the ends of requests that are not (or no longer) followed."""
        unknown = []
        for event in list(self._generator.events(_POLL_S)):  # all of it, before anything is submitted in answer
            if isinstance(event, TokenChunk):
                if event.request_id in self._live_tokens:
                    self._live_tokens[event.request_id] += event.num_tokens
            elif isinstance(event, Rewound):  # what it took back was sampled all the same: the count stands
                if event.request_id in self._requests:
                    self._record_rewinding(self._requests[event.request_id], event)
            elif event.request_id in self._requests:
                self._on_completion(self._requests.pop(event.request_id), event)
            else:
                unknown.append(event)
        return unknown

    def _on_completion(self, attempt: PillarAttempt, event: Finished) -> None:
        del self._live_tokens[event.request_id]
        self._num_closed_tokens += _num_sampled(event.completion)
        if event.completion.error is not None:
            self._warn(attempt, f"the generator failed: {event.completion.error}")
        self._advance(attempt, attempt.take(event, self._trace.at_s()))

    def _advance(self, attempt: PillarAttempt, step: Step) -> None:
        if isinstance(step, RunProgram):
            run_id = f"{attempt.attempt_id}/{step.name or attempt.num_turns}"
            self._programs[run_id] = attempt
            session = attempt.attempt_id if step.in_session else None
            self._runner.submit(run_id, step.code, self._code, session)
            return
        if isinstance(step, CheckStep):
            assert self._checker is not None, "an attempt asks for checks only where there is a checker"
            check_id = f"{attempt.attempt_id}/{step.name}"
            self._checks[check_id] = attempt
            self._checker.submit(check_id, step.text, step.context)
            return
        if isinstance(step, CheckProof):
            assert self._prover is not None, "an attempt asks for proofs to be checked only where somebody can"
            check_id = f"{attempt.attempt_id}/{step.name}"
            self._checks[check_id] = attempt
            self._prover.submit(check_id, step.statement, step.proof)
            return
        self._record(attempt)
        if isinstance(step, Continue):
            self._submit(attempt)
        elif isinstance(step, Done):
            self._keep(step.attempt)

    def _checkers(self) -> list[StepChecker | ProofChecker]:
        return [checker for checker in (self._checker, self._prover) if checker is not None]

    def _submit(self, attempt: PillarAttempt) -> None:
        refused = []
        pillar = self._launched[attempt.attempt_id].pillar
        for request in attempt.next_requests():
            try:
                self._generator.submit(replace(request, pillar=pillar))
            except EngineError as error:  # the prompt, or what the attempt has grown to, can never fit
                self._warn(attempt, f"its prompt was refused: {error}")
                refused.append(request.request_id)
                continue
            self._requests[request.request_id] = attempt
            self._live_tokens[request.request_id] = 0
        for request_id in refused:
            self._advance(attempt, attempt.refuse(request_id, self._trace.at_s()))

    def _record(self, attempt: PillarAttempt) -> None:
        for level in attempt.take_beam_levels():
            self._trace.append("beam_level", {"level": encode(level)}, attempt.problem.id, attempt.attempt_id)
        for turn in attempt.take_turns():
            self._trace.append("turn_finished", {"turn": encode(turn)}, attempt.problem.id, attempt.attempt_id)

    def _record_rewinding(self, attempt: PillarAttempt, event: Rewound) -> None:
        rewinding = Rewinding(
            turn_of(event.request_id), event.num_kept, event.num_dropped, event.reason, event.detail, event.text
        )
        self._trace.append("rewound", {"rewinding": encode(rewinding)}, attempt.problem.id, attempt.attempt_id)

    def _keep(self, attempt: Attempt) -> None:
        launched = self._launched[attempt.id]
        attempt = replace(attempt, round=launched.round, about=launched.about, model=self._model_of(launched.pillar))
        self._trace.append("attempt_finished", {"attempt": encode_ending(attempt)}, attempt.problem_id, attempt.id)
        del self._attempts[attempt.id], self._launched[attempt.id]
        self._runner.end_session(attempt.id)
        self._finished.append(attempt)

    def _warn(self, attempt: PillarAttempt, message: str) -> None:
        """Once a problem and kind of trouble: siblings tend to fail alike."""
        key = (attempt.problem.id, message.partition(":")[0])
        if key not in self._warned:
            self._warned.add(key)
            self._trace.append("warning", {"message": f"{attempt.attempt_id}: {message}"}, attempt.problem.id)


def live_source(
    generator: Generator,
    runner: CodeRunner,
    maker: AttemptMaker,
    code: CodeLimits,
    sleep: Callable[[float], None] = time.sleep,
    checker: StepChecker | None = None,
    prover: ProofChecker | None = None,
    model_of: Callable[[str], str | None] = lambda pillar: None,
) -> MakeSource:
    """For a driver: attempts that are made, not recorded ones. See `InFlight`."""
    return lambda trace: InFlight(generator, runner, trace, maker, code, sleep, checker, prover, model_of)


def _num_sampled(completion: Completion) -> int:
    """Tokens that a request cost, those that it took back included."""
    return completion.num_tokens + completion.usage.discarded
