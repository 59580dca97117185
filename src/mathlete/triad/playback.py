"""What sources of recorded attempts have in common: the account of what is in flight, and the events of an attempt.

Knows attempts, launches and the trace; neither which recorded attempt answers a launch nor when it is over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mathlete.core.attempt import Attempt, Failure
from mathlete.core.policy import Launch, Launched
from mathlete.core.problem import Problem
from mathlete.core.trace import encode, encode_ending
from mathlete.triad.run_trace import RunTrace


class SimulatedClock:
    """A clock that moves only when it is told to."""

    def __init__(self, now_s: float = 0.0) -> None:
        """Begin at `now_s`."""
        self.now_s = now_s

    def __call__(self) -> float:
        """The time, seconds."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises `ValueError` for a negative span."""
        if not seconds >= 0:
            raise ValueError(f"time cannot pass backwards, by {seconds} s")
        self.now_s += seconds


@dataclass(slots=True)
class Running:
    """A recorded attempt in flight.

    Attributes:
        recorded: what it will have been.
        launched: what the policy is told of it.
        started_s: on the clock.
    """

    recorded: Attempt
    launched: Launched
    started_s: float


R = TypeVar("R", bound=Running)


class Playback(ABC, Generic[R]):
    """The part of an `AttemptSource` that does not depend on how attempts are given out."""

    def __init__(self, trace: RunTrace, clock: SimulatedClock) -> None:
        """Begin with nothing in flight."""
        self._trace = trace
        self._clock = clock
        self._running: dict[str, R] = {}  # by attempt id, in the order of launch
        self._finished: list[Attempt] = []
        self._num_closed_tokens = 0

    @property
    def num_tokens(self) -> int:
        """Tokens sampled in this session, those of attempts in flight included."""
        return self._num_closed_tokens + sum(map(self._tokens_so_far, self._running.values()))

    def count(self, problem_id: str | None = None) -> int:
        """Attempts in flight: of one problem, or all."""
        return len(self._running) if problem_id is None else len(self._of(problem_id))

    def launched(self, problem_id: str) -> tuple[Launched, ...]:
        """What the attempts of a problem that are in flight are, in the order of their launch."""
        return tuple(running.launched for running in self._of(problem_id))

    def num_tokens_of(self, problem_id: str) -> int:
        """Tokens sampled so far by the attempts of a problem that are in flight."""
        return sum(map(self._tokens_so_far, self._of(problem_id)))

    def take_finished(self) -> list[Attempt]:
        """Attempts that have ended since the last call, in the order in which they ended."""
        finished, self._finished = self._finished, []
        return finished

    @abstractmethod
    def _tokens_so_far(self, running: R) -> int:
        """Tokens that an attempt in flight has sampled."""

    def _of(self, problem_id: str) -> list[R]:
        return [running for running in self._running.values() if running.recorded.problem_id == problem_id]

    def _tell_start(self, problem: Problem, index: int, launch: Launch, recorded: Attempt) -> None:
        data = {
            "index": index,
            "pillar": recorded.pillar,
            "seed": recorded.seed,
            "temperature": launch.temperature,
            "round": launch.round,
        }
        self._trace.append("attempt_started", data, problem.id, f"{problem.id}#{index}")

    def _cut(self, running: R, failure: Failure) -> Attempt:
        """What is left of an attempt that is cut off now: what it cost."""
        return replace(
            running.recorded, answer=None, answer_source=None, turns=(), features={}, evidence=(),
            num_tokens=self._tokens_so_far(running), num_discarded=0, failure=failure,
            elapsed_s=self._clock() - running.started_s,
        )  # fmt: skip

    def _keep(self, attempt: Attempt) -> None:
        """Tell of an attempt that is over, its turns first."""
        for turn in attempt.turns:
            self._trace.append("turn_finished", {"turn": encode(turn)}, attempt.problem_id, attempt.id)
        self._num_closed_tokens += attempt.num_tokens
        self._trace.append("attempt_finished", {"attempt": encode_ending(attempt)}, attempt.problem_id, attempt.id)
        self._finished.append(attempt)
