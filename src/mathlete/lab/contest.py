"""One contest over recorded attempts: problems strictly in turn against one clock, with what may go wrong on the day.

A contest draws its problems, their order, their attempts, a speed and faults (stalls, late steps, a generator that
dies) from its seed, and is held with the real driver on a simulated clock.

Knows recorded problems and the driver's clockwork. Does not know policies by name, files, or how many contests there
are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mathlete.core.attempt import Attempt
from mathlete.core.policy import Policy
from mathlete.core.problem import Problem
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.rightness import recorded_as_right
from mathlete.lab.simulated_session import simulate
from mathlete.triad.driver import DriverConfig
from mathlete.triad.recorded_source import Faults, RecordedConfig, Speed, in_order

SPEED_SPREAD = 0.25  # standard deviation of the logarithm of a day's speed; judged, not measured
_USUAL_S = 17_400.0  # that teams plan with in AIMO-3
_NUM_STEPS = 870  # of a contest: how often a policy is asked at least while nothing ends


@dataclass(frozen=True, slots=True)
class ContestOutcome:
    """How one run of a contest went.

    Attributes:
        right: problems with the right answer.
        answered: problems with an answer, fallbacks included.
        fallbacks: problems for which no attempt had an answer.
        used_s: time on the clock.
        late_s: past what was planned with; a step that does not return in time can make it so.
        overrun_s: past the contest's limit.
        tokens: sampled.
        longest_s: that one problem took.
        right_ids: of the problems with the right answer.
    """

    right: int
    answered: int
    fallbacks: int
    used_s: float
    late_s: float
    overrun_s: float
    tokens: int
    longest_s: float
    right_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contest:
    """What is drawn of a contest.

    Attributes:
        problems: in turn.
        speed_factor: times the speed of an average day.
        faults: what goes wrong in the first run.
        seed: of the order of attempts.
    """

    problems: tuple[RecordedProblem, ...]
    speed_factor: float
    faults: Faults
    seed: int


def draw_contest(pool: Sequence[RecordedProblem], seed: int, num_problems: int, budget_s: float) -> Contest:
    """The contest of a seed."""
    rng = random.Random(seed)
    drawn = tuple(rng.sample(list(pool), min(num_problems, len(pool))))
    factor = rng.lognormvariate(0, SPEED_SPREAD)
    return Contest(drawn, factor, draw_faults(rng, budget_s), seed)


def draw_faults(rng: random.Random, budget_s: float) -> Faults:
    """What goes wrong: stalls in three of ten contests, late steps in two, a dead generator in one of twenty.

    All in proportion to the clock: of AIMO-3's, a step is up to 20 s late.
    """
    stalls, at_s = [], 0.0
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 4)):
            at_s += rng.uniform(0, budget_s / 4)
            stalls.append((at_s, at_s + rng.uniform(0.002, 0.05) * budget_s))
            at_s = stalls[-1][1]
    late_s = rng.uniform(0.5, 20.0) * budget_s / _USUAL_S if rng.random() < 0.2 else 0.0
    dead_s = rng.uniform(0, budget_s) if rng.random() < 0.05 else math.inf
    return Faults(tuple(stalls), dead_s, late_s)


def hold_contest(
    contest: Contest,
    policy: Policy,
    driving: DriverConfig,
    *,
    budget_s: float,
    limit_s: float,
    speed: Speed | None,
    weigh: Callable[[Problem], float] = lambda problem: 1.0,
    num_skipped: int = 0,
) -> ContestOutcome:
    """One run of a contest.

    Args:
        contest: what was drawn.
        policy: decides; a new one for each run, where it remembers anything.
        driving: how the run is driven; `max_open` 1 where problems come strictly in turn.
        budget_s: seconds that are planned with.
        limit_s: seconds after which the contest is lost.
        speed: of an average day; None to let attempts take their recorded seconds, whatever the day.
        weigh: the part of the clock that a problem should get; those to come are not looked at.
        num_skipped: attempts of each pool's order that come last: those that an earlier run had.
    """
    pools = {item.problem.id: _rotated(item, contest.seed, num_skipped) for item in contest.problems}
    if speed is not None:
        speed = replace(speed, alone=speed.alone * contest.speed_factor)
    session = simulate(
        [item.problem for item in contest.problems], pools, policy, budget_s,
        driving=driving,
        recorded=RecordedConfig(speed, contest.faults, max_step_s=budget_s / _NUM_STEPS, any_pillar=True),
        weigh=weigh, sees_ahead=False,
    )  # fmt: skip
    ends, by_id = session.problems, {item.problem.id: item for item in contest.problems}
    right = tuple(key for key, end in ends.items() if not end.is_fallback and recorded_as_right(by_id[key], end.answer))
    return ContestOutcome(
        right=len(right),
        answered=len(ends),
        fallbacks=sum(end.is_fallback for end in ends.values()),
        used_s=session.elapsed_s,
        late_s=max(0.0, session.elapsed_s - budget_s),
        overrun_s=max(0.0, session.elapsed_s - limit_s),
        tokens=session.num_tokens,
        longest_s=max((end.seconds for end in ends.values()), default=0.0),
        right_ids=right,
    )


def _rotated(item: RecordedProblem, seed: int, num_skipped: int) -> tuple[Attempt, ...]:
    """A pool in the order of the seed, the first ones last, numbered anew."""
    ordered = in_order(item.problem.id, item.attempts, seed)
    skipped = num_skipped % len(ordered) if ordered else 0
    return tuple(replace(attempt, index=i) for i, attempt in enumerate(ordered[skipped:] + ordered[:skipped]))
