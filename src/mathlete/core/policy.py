"""What a policy sees and what it may ask for. Policies are pure: same state, same action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mathlete.core.attempt import Attempt, is_check_pillar
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection


@dataclass(frozen=True, slots=True)
class Launched:
    """An attempt in flight, as far as a policy cares: see `Launch`."""

    pillar: str
    round: int
    about: tuple[str, ...] = ()

    @property
    def is_independent(self) -> bool:
        """See `Attempt.is_independent`."""
        return self.round == 1 and not is_check_pillar(self.pillar)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is left for the whole run, and what it must serve.

    Attributes:
        remaining_s: seconds until the run must end.
        tokens_left: tokens that may still be sampled; None for no limit.
        num_waiting: problems that are not opened yet.
        num_open: problems that are being worked on, this one included.
        tokens_per_s: of all attempts together; None while no speed is known.
        tokens_per_attempt: that an attempt takes on average.
        may_open: whether those that wait could be opened when there is a slot; not where problems come in turn.
    """

    remaining_s: float
    tokens_left: int | None
    num_waiting: int
    num_open: int
    tokens_per_s: float | None
    tokens_per_attempt: float
    may_open: bool = True


@dataclass(frozen=True, slots=True)
class PoolState:
    """One problem at one moment.

    Attributes:
        problem: what is being solved.
        attempts: finished attempts, in order of finishing; checks are among them.
        num_in_flight: attempts launched and not finished, checks included.
        num_launched: attempts launched so far, finished ones and checks included.
        elapsed_s: seconds since the problem was opened.
        remaining_s: seconds left of the problem's share of the clock.
        affordable: attempts in all that the clock has room for at the speed seen so far; None when it is not known.
        in_flight: what the attempts in flight are; empty when nobody tells.
        num_tokens: sampled for this problem so far, attempts in flight included.
        outlook: of the whole run; None when nobody tells.
    """

    problem: Problem
    attempts: tuple[Attempt, ...]
    num_in_flight: int
    num_launched: int
    elapsed_s: float
    remaining_s: float
    affordable: int | None = None
    in_flight: tuple[Launched, ...] = ()
    num_tokens: int = 0
    outlook: Outlook | None = None

    @property
    def begun(self) -> tuple[Attempt | Launched, ...]:
        """All attempts that are told of, finished ones and then those in flight; checks and later rounds too."""
        return (*self.attempts, *self.in_flight)

    @property
    def tries(self) -> tuple[Attempt, ...]:
        """The finished attempts of the first round that vote, or could have; checks and later rounds are none."""
        return tuple(attempt for attempt in self.attempts if attempt.is_independent)

    @property
    def num_trying(self) -> int:
        """Attempts of the first round in flight, which may still vote; those of which nobody tells count as such."""
        return self.num_in_flight - sum(not launched.is_independent for launched in self.in_flight)


@dataclass(frozen=True, slots=True)
class Launch:
    """Start `n` more attempts.

    Attributes:
        n: how many.
        pillar: their way of working.
        temperature: of sampling.
        about: answers that a check is to judge, or that attempts of a later round are shown.
        round: 1 for attempts that know nothing of others.
    """

    n: int
    pillar: str
    temperature: float
    about: tuple[str, ...] = ()
    round: int = 1


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
