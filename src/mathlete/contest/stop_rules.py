"""When a problem has attempts enough: every published stopping rule as a pure object, by name.

A rule sees the state of one problem and gives its reason to stop, or None. Attempts that only check, and those
without an answer, have no vote. Does not know when the clock ends a problem (`policy.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from mathlete.cic.crystallisation import UiptParameters, last_transition
from mathlete.cic.majority import tally, votes_of
from mathlete.cic.value_votes import huikang_weight
from mathlete.contest.stopping import leader_posterior, leader_uncatchable, margin
from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.core.policy import PoolState

# An attempt that the generator lost is made again, so long as not more than this many times the
# attempts asked for have been launched.
_MAX_LAUNCHED_FACTOR = 2


class StopRule(Protocol):
    """Says when more attempts are not worth having."""

    def why_stop(self, state: PoolState, max_attempts: int) -> str | None:
        """Why to stop, as a sentence for a person; None to go on.

        Args:
            state: of the problem.
            max_attempts: attempts that it may get.
        """
        ...


@dataclass(frozen=True, slots=True)
class FirstOf:
    """Stops when one of several rules does; with no rule, never.

    Attributes:
        rules: asked in order.
    """

    rules: tuple[StopRule, ...] = ()

    def why_stop(self, state: PoolState, max_attempts: int) -> str | None:
        """The reason of the first rule that has one."""
        reasons = (rule.why_stop(state, max_attempts) for rule in self.rules)
        return next((reason for reason in reasons if reason is not None), None)


@dataclass(frozen=True, slots=True)
class EqualVotes:
    """Stops when one answer has so many votes.

    Attributes:
        num_equal: votes.
        among: answers that there may be at most; None for any number.
    """

    num_equal: int = 4
    among: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.num_equal < 1:
            raise ValueError(f"num_equal must be >= 1, not {self.num_equal}")
        if self.among is not None and self.among < self.num_equal:
            raise ValueError(f"among ({self.among}) must not be less than num_equal ({self.num_equal})")

    def why_stop(self, state: PoolState, max_attempts: int) -> str | None:
        """See the class."""
        votes = [t.votes for t in tally(state.attempts)]
        if not votes or votes[0] < self.num_equal or (self.among is not None and sum(votes) > self.among):
            return None
        return f"{votes[0]} of {sum(votes)} answers are equal"


@dataclass(frozen=True, slots=True)
class Uncatchable:
    """Stops when the outstanding attempts cannot change the leader.

    Attributes:
        strict: whether another answer may not even draw level: second + outstanding < leader. Without, it may:
            second + outstanding <= leader (second place of AIMO-3), and a tie is then the leader's.
    """

    strict: bool = True

    def why_stop(self, state: PoolState, max_attempts: int) -> str | None:
        """See the class."""
        votes = [t.votes for t in tally(state.attempts)]
        outstanding = num_outstanding(state, max_attempts)
        if leader_uncatchable(votes, outstanding):
            return f"the leader cannot be caught by {outstanding} outstanding attempts"
        leader, second = margin(votes)
        if self.strict or not votes or second + outstanding > leader:
            return None
        return f"{outstanding} outstanding attempts can at most draw level with the leader"


@dataclass(frozen=True, slots=True)
class BetaPosterior:
    """Stops when the leader stays the leader with more than some probability.

    Adaptive consistency (Aggarwal et al. 2023, arXiv:2305.11860): Beta posterior on the shares of the first two.

    Attributes:
        min_answers: answers (not attempts) that must be there.
        min_posterior: the probability.
    """

    min_answers: int = 4
    min_posterior: float = 0.95

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.min_answers < 1:
            raise ValueError(f"min_answers must be >= 1, not {self.min_answers}")
        if not 0.5 <= self.min_posterior < 1:
            raise ValueError(f"min_posterior must be in [0.5, 1), not {self.min_posterior}")

    def why_stop(self, state: PoolState, max_attempts: int) -> str | None:
        """See the class."""
        votes = [t.votes for t in tally(state.attempts)]
        if sum(votes) < self.min_answers:
            return None
        posterior = leader_posterior(*margin(votes))
        return f"the leader stays the leader with posterior {posterior:.3f}" if posterior > self.min_posterior else None


@dataclass(frozen=True, slots=True)
class HuikangStop:
    """Stops when top > max(1, total / (2 + log(1 + total))) and the margin is above 1 (Tong Hui Kang, AIMO-3).

    All in scores log(1.25 + |a|) * votes; a single answer needs no margin. One vote for 2 is enough, as published.
    """

    def why_stop(self, state: PoolState, max_attempts: int) -> str | None:
        """See the class."""
        scores = sorted((huikang_weight(t.answer) * t.votes for t in tally(state.attempts)), reverse=True)
        if not scores:
            return None
        total = math.fsum(scores)
        enough = max(1.0, total / (2 + math.log1p(total)))
        ahead = scores[0] - scores[1] if len(scores) > 1 else math.inf
        if scores[0] > enough and ahead > 1:
            return f"the leader scores {scores[0]:.2f} of {total:.2f}, more than {enough:.2f}, and leads by more than 1"
        return None


@dataclass(frozen=True, slots=True)
class Crystallised:
    """Stops when the pool has crystallised: UIPT, or unanimity (see `cic.crystallisation`).

    Attributes:
        parameters: of the transition.
    """

    parameters: UiptParameters = field(default_factory=UiptParameters)

    def why_stop(self, state: PoolState, max_attempts: int) -> str | None:
        """See the class."""
        votes = votes_of(state.attempts)
        transition = last_transition(votes, self.parameters)
        if transition is None or not transition.crystallised:
            return None
        if transition.unanimous:
            return f"all {len(votes)} answers are equal"
        return (
            f"the pool has crystallised: cohesion rose by {transition.phi_change:.3f}, disorder fell by "
            f"{-transition.entropy_change:.3f}, balance {transition.balance:.3f}"
        )


def num_outstanding(state: PoolState, max_attempts: int) -> int:
    """Attempts of the first round that may still vote, in flight or not launched yet.

    What every policy counts by: `state.num_trying` of them are in flight, and the others may be launched. Checks and
    attempts of later rounds take no place, nor do attempts that the generator lost.

    Args:
        state: of the problem.
        max_attempts: attempts that it may get.
    """
    tries = state.tries
    return max(0, min(max_attempts - sum(map(takes_place, tries)), _MAX_LAUNCHED_FACTOR * max_attempts - len(tries)))


def takes_place(attempt: Attempt) -> bool:
    """Whether a finished attempt is one of those that a problem gets: of the first round, and not lost."""
    return attempt.is_independent and attempt.failure != "generator_error"


STOP_RULES: Mapping[str, Callable[[], StopRule]] = {
    "never": FirstOf,
    "four_equal": EqualVotes,
    "uncatchable": partial(Uncatchable, strict=False),
    "uncatchable_strict": Uncatchable,
    "huikang": HuikangStop,
    "imagination_research": partial(EqualVotes, 5, 7),
    "beta_posterior": BetaPosterior,
    "crystallised": Crystallised,
    "settled": lambda: FirstOf((Uncatchable(), BetaPosterior())),
}


def make_stop_rule(name: str) -> StopRule:
    """The stopping rule of that name, with its default settings.

    Raises:
        InputError: there is none; the message lists them.
    """
    if name not in STOP_RULES:
        raise InputError(f"there is no stopping rule {name!r}; there are {', '.join(STOP_RULES)}")
    return STOP_RULES[name]()
