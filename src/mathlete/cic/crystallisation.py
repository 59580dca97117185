"""When a growing pool has settled: UIPT ("crystallisation"), the distance from the critical point, a temperature. Pure.

UIPT as the strategy writes it: dPhi/dt = lambda dH/dt, found where cohesion rises, disorder falls and the two balance
to within 0.1. As cohesion rises while disorder falls, the two sides have opposite signs; the published code
therefore takes |dPhi + lambda dH|, and so do we. A step is one more answer. Two things to know: a unanimous pool
has no disorder that could fall, so unanimity is asked for apart; and one answer among n changes Phi and H by
about 1/n, so in a large pool the balance holds by itself and the signs alone decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.cic.functional import EntropyKind, entropy_of
from mathlete.cic.majority import Vote
from mathlete.cic.ncd import cohesion, trace_of

CRITICAL_TEMPERATURE = 0.7632  # as published; the formula given for it, sqrt(ln 2 / ln pi), is 0.7781
CRITICAL_ORDER = 0.5
HOT, COLD = 1.4, 0.3


@dataclass(frozen=True, slots=True)
class UiptParameters:
    """The constants of the transition; the defaults are the strategy's.

    Attributes:
        entropy_weight: lambda.
        max_balance: |dPhi + lambda dH| must be less.
        min_answers: answers that must be there; the published detector asks for three states.
        entropy: which H (see `disorder.py`).
    """

    entropy_weight: float = 0.5
    max_balance: float = 0.1
    min_answers: int = 3
    entropy: EntropyKind = "published"

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if not self.entropy_weight >= 0:
            raise ValueError(f"entropy_weight must be >= 0, not {self.entropy_weight}")
        if not self.max_balance > 0:
            raise ValueError(f"max_balance must be > 0, not {self.max_balance}")
        if self.min_answers < 2:
            raise ValueError(f"min_answers must be >= 2, not {self.min_answers}")


STRATEGY = UiptParameters()


@dataclass(frozen=True, slots=True)
class Transition:
    """What the last answer did to a pool.

    Attributes:
        unanimous: all answers are equal.
        phi_change: of cohesion; None when there were not enough traces with text before it.
        entropy_change: of H.
        balance: |dPhi + lambda dH|; None with `phi_change`.
        crystallised: whether the pool has settled.
    """

    unanimous: bool
    phi_change: float | None
    entropy_change: float
    balance: float | None
    crystallised: bool


def last_transition(votes: Sequence[Vote], parameters: UiptParameters = STRATEGY) -> Transition | None:
    """The transition at the last of some votes, in the order in which they came; None while there are too few.

    Only the last step counts: a pool that has come apart again is not settled. Adding a vote to a pool costs one
    compression for each vote that was there; the others are remembered (see `ncd.py`).
    """
    if len(votes) < parameters.min_answers:
        return None
    traces = [trace_of(vote.attempt) for vote in votes]
    phi, phi_now = cohesion(traces[:-1]), cohesion(traces)
    entropy_change = entropy_of(votes, parameters.entropy) - entropy_of(votes[:-1], parameters.entropy)
    unanimous = len({vote.answer for vote in votes}) == 1
    if phi is None or phi_now is None:
        return Transition(unanimous, None, entropy_change, None, unanimous)
    phi_change = phi_now - phi
    balance = abs(phi_change + parameters.entropy_weight * entropy_change)
    settling = phi_change > 0 and entropy_change < 0 and balance < parameters.max_balance
    return Transition(unanimous, phi_change, entropy_change, balance, unanimous or settling)


def critical_distance(temperature: float, order: float, critical_temperature: float = CRITICAL_TEMPERATURE) -> float:
    """How far a pool is from the transition: nu = sqrt((T - T_c)^2 + (psi - 0.5)^2) / sqrt(2).

    Args:
        temperature: T, the disorder H of its answers, in [0, 1].
        order: psi, the share of its most frequent answer, in [0, 1].
        critical_temperature: T_c.
    """
    return math.hypot(temperature - critical_temperature, order - CRITICAL_ORDER) / math.sqrt(2)


def annealed_temperature(order: float, crystallised: bool) -> float:
    """Sampling temperature of the next attempts: 1.4 for a pool without order, falling to 0.3 once it has settled.

    Linear in psi, the share of the most frequent answer, from 1.4 at 0 down to 0.3 at 1; 0.3 at once on
    crystallisation. For a policy that launches attempts in waves; one that launches all at once has no use for it.
    The strategy cools "as nu decreases"; nu is also small for a pool half in disorder, and largest for a
    unanimous one, so order is taken instead.
    """
    return COLD if crystallised else HOT - (HOT - COLD) * min(1.0, max(0.0, order))
