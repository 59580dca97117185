"""What attempts that write one turn after another have in common, whether they solve or check.

Knows identity, noise and the account of turns; what a turn leads to is each attempt's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mathlete.core.attempt import BeamLevel, Failure, Turn
from mathlete.core.confidence import top5_entropies
from mathlete.core.generation import Completion
from mathlete.core.problem import Problem
from mathlete.core.seeds import derive_seed
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.pillar import Done, Step, turn_of


@dataclass(slots=True)
class TurnByTurn:
    """The state of an attempt in flight that has one request at a time.

    Attributes:
        problem: what it works on.
        index: its number among the problem's attempts.
        run_seed: of the run; the attempt's own noise is derived from it.
        temperature: of sampling.
        started_s: when it was launched, seconds of the run's clock.
        config: limits, and how requests are drawn.
        turns: closed turns.
    """

    problem: Problem
    index: int
    run_seed: int
    temperature: float
    started_s: float
    config: AttemptConfig
    turns: list[Turn] = field(default_factory=list, kw_only=True)
    _num_recorded: int = field(default=0, kw_only=True)

    @property
    def attempt_id(self) -> str:
        """Unique in the run."""
        return f"{self.problem.id}#{self.index}"

    @property
    def seed(self) -> int:
        """Of its first turn."""
        return self.seed_of(0)

    def seed_of(self, turn: int) -> int:
        """Of the request of a turn, counted from 0."""
        return derive_seed(self.run_seed, self.problem.id, self.index, turn)

    @property
    def num_tokens(self) -> int:
        """Tokens sampled in closed turns, those that were taken back included."""
        return sum(turn.num_tokens for turn in self.turns)

    @property
    def num_turns(self) -> int:
        """Closed turns."""
        return len(self.turns)

    def refuse(self, request_id: str, now_s: float) -> Step:
        """What the attempt has grown to can never fit: it is over."""
        assert turn_of(request_id) == len(self.turns), "a request of another turn"
        return self.end(now_s, "length")

    def take_turns(self) -> Sequence[Turn]:
        """The turns closed since the last call."""
        turns = self.turns[self._num_recorded :]
        self._num_recorded = len(self.turns)
        return turns

    def take_beam_levels(self) -> Sequence[BeamLevel]:
        """It has no beam."""
        return ()

    def end(self, now_s: float, failure: Failure) -> Done:
        """Close the attempt; each kind says what it amounts to."""
        raise NotImplementedError


def turn_from(completion: Completion, start: str = "") -> Turn:
    """The turn that a completion closes; `start` is how the harness began its text."""
    return Turn(
        text=start + completion.text,
        num_tokens=completion.num_tokens + completion.usage.discarded,
        logprobs=completion.logprobs,
        entropies=completion.entropies,
        top_means=completion.top_means,
        num_discarded=completion.usage.discarded,
        top5_bits=top5_entropies(completion.top_logprobs),
    )


def failure_of(completion: Completion) -> Failure | None:
    """Why a completion ends its attempt whatever it says: the generator failed, or was told to stop."""
    reasons: dict[str, Failure] = {"error": "generator_error", "abort": "interrupted"}
    return reasons.get(completion.finish_reason)
