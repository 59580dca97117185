"""Policies: how many attempts a problem gets and when it ends. Pure functions of a `PoolState`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mathlete.cic.majority import Majority, tally
from mathlete.contest.stopping import StoppingRule, why_settled
from mathlete.core.attempt import Attempt
from mathlete.core.policy import Action, Launch, PoolState, Stop, Wait
from mathlete.core.protocols import Selector

OUT_OF_TIME = "out of time"
ALL_FINISHED = "all attempts finished"

# An attempt that the generator lost is tried again, so long as not more than this many times the
# attempts asked for have been launched.
_MAX_LAUNCHED_FACTOR = 2


@dataclass(frozen=True, slots=True)
class FixedPolicy:
    """Every problem gets the same number of attempts and none is stopped early (`evaluate`).

    Attributes:
        attempts: attempts that count; one that the generator lost does not.
        pillar: way of working.
        temperature: of sampling.
        selector: chooses the answer.
    """

    attempts: int = 8
    pillar: str = "code"
    temperature: float = 0.8
    selector: Selector = field(default_factory=Majority)

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        _check(self.attempts, self.temperature)

    def decide(self, state: PoolState) -> Action:
        """Launch until there are `attempts`, then wait for all of them, then stop."""
        if state.remaining_s <= 0:
            return Stop(self.selector.select(state.problem, state.attempts), OUT_OF_TIME)
        wanted = num_outstanding(state, self.attempts) - state.num_in_flight
        if wanted > 0:
            return Launch(wanted, self.pillar, self.temperature)
        if state.num_in_flight:
            return Wait()
        return Stop(self.selector.select(state.problem, state.attempts), ALL_FINISHED)


@dataclass(frozen=True, slots=True)
class VotePolicy:
    """As `FixedPolicy`, but a problem ends as soon as its vote is settled, and gets what the clock affords (`solve`).

    Attributes:
        attempts: attempts at most that count.
        pillar: way of working.
        temperature: of sampling.
        selector: chooses the answer.
        rule: when the vote is settled.
    """

    attempts: int = 8
    pillar: str = "code"
    temperature: float = 0.8
    selector: Selector = field(default_factory=Majority)
    rule: StoppingRule = field(default_factory=StoppingRule)

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        _check(self.attempts, self.temperature)

    def decide(self, state: PoolState) -> Action:
        """Stop when the vote is settled; otherwise as `FixedPolicy`."""
        attempts = self.attempts if state.affordable is None else min(self.attempts, state.affordable)
        outstanding = num_outstanding(state, attempts)
        votes = [t.votes for t in tally(state.attempts)]
        reason = why_settled(votes, outstanding, self.rule) if outstanding else None
        if reason is not None:
            return Stop(self.selector.select(state.problem, state.attempts), reason)
        action = FixedPolicy(attempts, self.pillar, self.temperature, self.selector).decide(state)
        if attempts < self.attempts and isinstance(action, Stop) and action.reason == ALL_FINISHED:
            return Stop(action.selection, f"all attempts that the clock affords ({attempts}) finished")
        return action


def num_outstanding(state: PoolState, attempts: int) -> int:
    """Attempts that may still vote, launched or not, when the problem is to get `attempts`."""
    counted = sum(_counts(attempt) for attempt in state.attempts)
    launchable = attempts * _MAX_LAUNCHED_FACTOR - state.num_launched
    return max(0, min(attempts - counted, launchable + state.num_in_flight))


def _counts(attempt: Attempt) -> bool:
    return attempt.failure != "generator_error" and not attempt.is_check


def _check(attempts: int, temperature: float) -> None:
    if attempts < 1:
        raise ValueError(f"attempts must be >= 1, not {attempts}")
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, not {temperature}")
