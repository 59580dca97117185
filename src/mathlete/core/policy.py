"""What a policy sees and what it may ask for. Policies are pure: same state, same action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection


@dataclass(frozen=True, slots=True)
class PoolState:
    """One problem at one moment.

    Attributes:
        problem: what is being solved.
        attempts: finished attempts, in order of finishing.
        num_in_flight: attempts launched and not finished.
        num_launched: attempts launched so far, finished ones included.
        elapsed_s: seconds since the problem was opened.
        remaining_s: seconds left of the problem's share of the clock.
        affordable: attempts in all that the clock has room for at the speed seen so far; None when it is not known.
    """

    problem: Problem
    attempts: tuple[Attempt, ...]
    num_in_flight: int
    num_launched: int
    elapsed_s: float
    remaining_s: float
    affordable: int | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """Start `n` more attempts of a pillar at a temperature."""

    n: int
    pillar: str
    temperature: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until an attempt finishes or time passes."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the problem with this answer; what is in flight is aborted. `reason` is for the trace."""

    selection: Selection
    reason: str


Action = Launch | Wait | Stop


class Policy(Protocol):
    """Decides what to do next with one problem."""

    def decide(self, state: PoolState) -> Action:
        """The next action for `state`; called again after each `Launch` until it waits or stops."""
        ...
