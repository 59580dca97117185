"""In which order requests are served: pure orderings, no bookkeeping.

Glossary: `place` orders the requests of one group among themselves and must not change while they wait; `rank`
orders groups by their first request and may change from step to step. Both are small-is-first, both come after the
request's priority and before its arrival. Between two steps in which no new token appears a rank must not change:
that is what lets the first of all requests make progress whatever the others do (see `Scheduler`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mathlete.ryanstream.request import EngineRequest

OrderKey = tuple[int, float, float, int]


class SchedulingPolicy(Protocol):
    """An ordering of requests; see the module's glossary."""

    def place(self, request: EngineRequest) -> float:
        """Order within a group."""
        ...

    def rank(self, request: EngineRequest, num_served: int) -> float:
        """Order over groups, given the tokens that the request's group was served."""
        ...


@dataclass(frozen=True, slots=True)
class FirstComeFirstServed:
    """By arrival alone."""

    def place(self, request: EngineRequest) -> float:
        """All alike."""
        return 0.0

    def rank(self, request: EngineRequest, num_served: int) -> float:
        """All alike."""
        return 0.0


@dataclass(frozen=True, slots=True)
class ShortestFirst:
    """Least expected remaining output first.

    Attributes:
        expected_remaining: output tokens still to come; known lengths or a predictor's.
        fixed: whether the value cannot change while a request waits (known lengths). If it can, siblings are
            ordered by arrival, which is no loss: what tells siblings apart is not known before they run.
    """

    expected_remaining: Callable[[EngineRequest], float]
    fixed: bool = False

    def place(self, request: EngineRequest) -> float:
        """The shortest sibling first, where lengths are known."""
        return self.expected_remaining(request) if self.fixed else 0.0

    def rank(self, request: EngineRequest, num_served: int) -> float:
        """The shortest first."""
        return self.expected_remaining(request)


@dataclass(frozen=True, slots=True)
class FairShare:
    """By arrival, but a group that has had `quantum` tokens more than another comes after it.

    Counting tokens served per client is the Virtual Token Counter of Sheng et al. (OSDI 2024); the quantum is that
    of deficit round robin (Shreedhar and Varghese 1995). A small one shares evenly; a large one lets earlier
    groups end earlier, which is better for the mean: sharing evenly makes all end late.

    Attributes:
        quantum: tokens a group is served before the next one's turn.
    """

    quantum: int = 8192

    def __post_init__(self) -> None:
        """Raise `ValueError` when the quantum is not positive."""
        if self.quantum < 1:
            raise ValueError(f"FairShare.quantum must be >= 1, not {self.quantum}")

    def place(self, request: EngineRequest) -> float:
        """All alike."""
        return 0.0

    def rank(self, request: EngineRequest, num_served: int) -> float:
        """Whole quanta that the group has had."""
        return float(num_served // self.quantum)


def order_key(policy: SchedulingPolicy, request: EngineRequest, num_served: int) -> OrderKey:
    """Total order over all requests: priority, rank, place, arrival; smallest first."""
    return request.priority, policy.rank(request, num_served), policy.place(request), request.arrival
