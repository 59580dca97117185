"""Where a driver gets attempts from: live from a generator and a sandbox, or from a recording.

The driver and its policies cannot tell which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from mathlete.core.attempt import Attempt, Failure
from mathlete.core.policy import Launch, Launched
from mathlete.core.problem import Problem
from mathlete.triad.run_trace import RunTrace


class AttemptSource(Protocol):
    """Attempts from launch to end; each is recorded in the trace before it is told of."""

    @property
    def num_tokens(self) -> int:
        """Tokens sampled in this session, those of attempts in flight included."""
        ...

    def count(self, problem_id: str | None = None) -> int:
        """Attempts in flight: of one problem, or all."""
        ...

    def launched(self, problem_id: str) -> tuple[Launched, ...]:
        """What the attempts of a problem that are in flight are, in the order of their launch."""
        ...

    def num_tokens_of(self, problem_id: str) -> int:
        """Tokens sampled so far by the attempts of a problem that are in flight."""
        ...

    def start(self, problem: Problem, index: int, launch: Launch, pool: Sequence[Attempt]) -> None:
        """Launch one attempt.

        Args:
            problem: what it works on.
            index: its number within the problem.
            launch: what was decided.
            pool: the problem's finished attempts, for one that is shown what they found.
        """
        ...

    def step(self) -> None:
        """Let a moment pass, at most about 50 ms, and take in what happened."""
        ...

    def take_finished(self) -> list[Attempt]:
        """Attempts that have ended since the last call, in the order in which they ended."""
        ...

    def end(self, problem_ids: Collection[str], failure: Failure) -> None:
        """End all attempts of some problems; what they have written is kept. `failure` is one of `CUT_OFF`."""
        ...


MakeSource = Callable[[RunTrace], AttemptSource]
"""Made when a session begins, since what happens is stamped with the session's clock."""
