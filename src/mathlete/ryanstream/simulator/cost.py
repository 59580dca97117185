"""How long a step takes, as a function of what it computes: fitted to steps of the real engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.scheduler import StepPlan


class StepSample(NamedTuple):
    """A measured step: seconds, tokens computed, and the tokens that each of them attended to, summed."""

    seconds: float
    num_tokens: int
    num_attended: int


@dataclass(frozen=True, slots=True)
class StepCost:
    """seconds = step_s + token_s * tokens + attended_s * attended tokens.

    The defaults were fitted to 6,000 steps of the 0.5B model in W8A8 on one core (24 requests in flight, seconds of
    processor time, median error 4 %).
    """

    step_s: float = 2.65e-2
    token_s: float = 8.4e-4
    attended_s: float = 1.44e-6

    def seconds(self, num_tokens: int, num_attended: int) -> float:
        """Duration of a step."""
        return self.step_s + self.token_s * num_tokens + self.attended_s * num_attended


def attended(start: int, end: int) -> int:
    """Tokens attended to by the tokens [start, end) of a sequence: each sees those before it and itself."""
    return (start + 1 + end) * (end - start) // 2


def plan_size(plan: StepPlan) -> tuple[int, int]:
    """Tokens of a plan, and what they attend to."""
    num_tokens = sum(entry.end - entry.start for entry in plan.entries)
    return num_tokens, sum(attended(entry.start, entry.end) for entry in plan.entries)


def fit_step_cost(samples: Sequence[StepSample]) -> StepCost:
    """Least squares with no negative term: one that comes out negative is left out and the rest fitted again.

    Raises:
        ValueError: with fewer than three samples.
    """
    if len(samples) < 3:
        raise ValueError(f"fit_step_cost needs at least 3 samples, not {len(samples)}")
    seconds = np.array([sample.seconds for sample in samples])
    sizes = np.array([(1.0, sample.num_tokens, sample.num_attended) for sample in samples])
    used = [0, 1, 2]
    while used:
        found = np.linalg.lstsq(sizes[:, used], seconds, rcond=None)[0]
        if (found >= 0).all():
            break
        used = [column for column, value in zip(used, found, strict=True) if value >= 0]
    terms = dict(zip(used, found.tolist(), strict=True)) if used else {}
    return StepCost(terms.get(0, 0.0), terms.get(1, 0.0), terms.get(2, 0.0))


def collect_step_samples(engine: Engine) -> list[StepSample]:
    """Drive an engine until its requests are done, measuring each step, planning included."""
    samples: list[StepSample] = []
    while engine.has_work:
        started_s = time.perf_counter()
        engine.step()
        seconds = time.perf_counter() - started_s
        if engine.last_plan is not None:
            samples.append(StepSample(seconds, *plan_size(engine.last_plan)))
    return samples
