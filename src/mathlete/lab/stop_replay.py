"""What a stopping rule saves and costs where recorded attempts come one by one and the plain vote chooses.

The bare rule, without a clock, slots or a policy around it (`lab.policy_replay` has those): after each attempt it is
asked whether the rest is worth having. Ties count by their split, so nothing hangs on who came first. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mathlete.contest.stop_rules import StopRule, make_stop_rule
from mathlete.core.policy import PoolState
from mathlete.lab.bootstrap import Estimate, Floats, bootstrap_estimates, ratio_estimate
from mathlete.lab.metrics import majority_score
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.selector_replay import ReplayPlan, pools_of

MAX_ARRIVING = 12


@dataclass(frozen=True, slots=True)
class StopFigures:
    """One stopping rule on one recording.

    Attributes:
        rule: its name.
        used: share of the tokens (of the attempts, where tokens are not recorded) that were used.
        accuracy: of the vote over what had come.
        difference: to the vote over everything, paired.
    """

    rule: str
    used: Estimate
    accuracy: Estimate
    difference: Estimate


def stop_figures(
    problems: Iterable[RecordedProblem],
    rules: Sequence[str],
    *,
    num_orders: int = 2,
    seed: int = 0,
    min_attempts: int = 4,
    most: int = MAX_ARRIVING,
) -> list[StopFigures]:
    """Figures of some rules, over the same random orders of the attempts.

    Args:
        problems: recorded; attempts only, checks are left out.
        rules: names of stopping rules.
        num_orders: random orders that figures are means over.
        seed: of the orders.
        min_attempts: a problem with fewer is left out.
        most: attempts of an order that come at most.

    Raises:
        InputError: there is no rule of a name.
        ValueError: no problem has enough attempts.
    """
    plan = ReplayPlan(tuple(rules), (most,), num_orders, seed, min_attempts)
    judged = [item for item in problems if len(_voters(item)) >= min_attempts]
    groups = [item.group for item in judged]
    orders = [[_arriving(item, places) for places in pools_of(item, _voters(item), most, plan)] for item in judged]
    whole = _means([[_Outcome(_cost(item), _score(item)) for item in of_one] for of_one in orders])
    figures = []
    for name in rules:
        rule = make_stop_rule(name)
        found = _means([[_stopped(item, rule) for item in of_one] for of_one in orders])
        columns = {"accuracy": found[:, 1], "difference": found[:, 1] - whole[:, 1]}
        estimates = bootstrap_estimates(columns, groups)
        used = ratio_estimate(found[:, 0], whole[:, 0], groups)
        assert used is not None  # an attempt costs at least 1
        figures.append(StopFigures(name, used, estimates["accuracy"], estimates["difference"]))
    return figures


@dataclass(frozen=True, slots=True)
class _Outcome:
    cost: float
    score: float


def _voters(item: RecordedProblem) -> list[int]:
    return [place for place, attempt in enumerate(item.attempts) if not attempt.is_check]


def _arriving(item: RecordedProblem, places: Sequence[int]) -> RecordedProblem:
    attempts, correct = tuple(item.attempts[i] for i in places), tuple(item.correct[i] for i in places)
    return RecordedProblem(item.problem, item.gold, item.group, attempts, correct)


def _stopped(item: RecordedProblem, rule: StopRule) -> _Outcome:
    """After the first attempt at which the rule stops; all, when it never does."""
    num = len(item.attempts)
    for count in range(1, num):
        state = PoolState(item.problem, item.attempts[:count], 0, count, 0.0, math.inf)
        if rule.why_stop(state, num) is not None:
            first = RecordedProblem(item.problem, item.gold, item.group, item.attempts[:count], item.correct[:count])
            return _Outcome(_cost(first), _score(first))
    return _Outcome(_cost(item), _score(item))


def _cost(item: RecordedProblem) -> float:
    return float(sum(attempt.num_tokens or 1 for attempt in item.attempts))


def _score(item: RecordedProblem) -> float:
    return majority_score([attempt.answer for attempt in item.attempts], item.correct)


def _means(outcomes: Sequence[Sequence[_Outcome]]) -> Floats:
    """Cost and score of each problem, [num_problems, 2], means over its orders."""
    if not outcomes:
        raise ValueError("no problem has enough attempts to be stopped")
    means: Floats = np.array([[[each.cost, each.score] for each in of_one] for of_one in outcomes]).mean(axis=1)
    return means
