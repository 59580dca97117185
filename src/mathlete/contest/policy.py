"""Policies: how many attempts a problem gets and when it ends. Pure functions of a `PoolState`."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from mathlete.cic.majority import Majority
from mathlete.contest.stop_rules import StopRule, make_stop_rule, num_outstanding
from mathlete.core.policy import Action, Launch, PoolState, Stop, Wait
from mathlete.core.protocols import Selector

OUT_OF_TIME = "out of time"
ALL_FINISHED = "all attempts finished"


@dataclass(frozen=True, slots=True)
class FixedPolicy:
    """Every problem gets the same number of attempts and none is stopped early (`evaluate`).

    Attributes:
        attempts: attempts that count; one that the generator lost does not.
        pillars: ways of working, in turn.
        temperature: of sampling.
        selector: chooses the answer.
    """

    attempts: int = 8
    pillars: tuple[str, ...] = ("code",)
    temperature: float = 0.8
    selector: Selector = field(default_factory=Majority)

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        _check(self.attempts, self.temperature)

    def decide(self, state: PoolState) -> Action:
        """Launch until there are `attempts`, then wait for all of them, then stop."""
        if state.remaining_s <= 0:
            return Stop(self.selector.select(state.problem, state.attempts), OUT_OF_TIME)
        wanted = num_outstanding(state, self.attempts) - state.num_trying
        if wanted > 0:
            begun = [item.pillar for item in state.begun]
            num_untold = max(0, state.num_in_flight - len(state.in_flight))
            pillar, num = next_pillar(self.pillars, begun, wanted, num_untold)
            return Launch(num, pillar, self.temperature)
        if state.num_in_flight:
            return Wait()
        return Stop(self.selector.select(state.problem, state.attempts), ALL_FINISHED)


@dataclass(frozen=True, slots=True)
class VotePolicy:
    """As `FixedPolicy`, but a problem ends when its stopping rule says so, and gets what the clock affords (`solve`).

    Attributes:
        attempts: attempts at most that count.
        pillars: ways of working, in turn.
        temperature: of sampling.
        selector: chooses the answer.
        rule: when the attempts are enough.
    """

    attempts: int = 8
    pillars: tuple[str, ...] = ("code",)
    temperature: float = 0.8
    selector: Selector = field(default_factory=Majority)
    rule: StopRule = field(default_factory=partial(make_stop_rule, "settled"))

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        _check(self.attempts, self.temperature)

    def decide(self, state: PoolState) -> Action:
        """Stop when the rule has a reason while attempts are outstanding; otherwise as `FixedPolicy`."""
        attempts = self.attempts if state.affordable is None else min(self.attempts, state.affordable)
        reason = self.rule.why_stop(state, attempts) if num_outstanding(state, attempts) else None
        if reason is not None:
            return Stop(self.selector.select(state.problem, state.attempts), reason)
        action = FixedPolicy(attempts, self.pillars, self.temperature, self.selector).decide(state)
        if attempts < self.attempts and isinstance(action, Stop) and action.reason == ALL_FINISHED:
            return Stop(action.selection, f"all attempts that the clock affords ({attempts}) finished")
        return action


def next_pillar(pillars: Sequence[str], begun: Sequence[str], wanted: int, num_untold: int = 0) -> tuple[str, int]:
    """The pillar whose turn it is, and how many of the `wanted` attempts in a row are its.

    Turns that are taken are told by what was begun, not by how much: a run that is resumed makes up for the attempts
    that were cut off, of whichever pillars they were.

    Args:
        pillars: in turn.
        begun: pillars of the attempts that were begun; others count for nothing.
        wanted: attempts, >= 1.
        num_untold: attempts that were begun too, of which the pillar is not known.
    """
    if len(set(pillars)) == 1:
        return pillars[0], wanted
    taken, turn = Counter(begun), list[str]()
    for pillar in itertools.cycle(pillars):
        if taken[pillar] > 0:
            taken[pillar] -= 1
        else:
            turn.append(pillar)
        if len(turn) == num_untold + wanted:
            break
    turn = turn[num_untold:]
    return turn[0], next((i for i, pillar in enumerate(turn) if pillar != turn[0]), wanted)


def _check(attempts: int, temperature: float) -> None:
    if attempts < 1:
        raise ValueError(f"attempts must be >= 1, not {attempts}")
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, not {temperature}")
