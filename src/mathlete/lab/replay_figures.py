"""What a replay is worth: accuracy of each selector with intervals, paired with the plain vote, and the gap closed.

Knows scores of problems and their groups, and what a policy reached. Does not know files, or how anything is chosen.
Pure: the same scores give the same figures. All figures of one k come from the same draws of groups, so whatever is
compared is paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mathlete.lab.at_k import pass_at_k
from mathlete.lab.bootstrap import Estimate, Floats, percentile_estimate, resampled_means
from mathlete.lab.policy_replay import PolicyFigures
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.selector_replay import ReplayPlan, ScoredProblem, Scores

_COMMON = ("majority", "majority_null", "majority_nonzero", "oracle")
_ROUNDING = 1e-9  # scores are means of a few orders; what differs by less is the same


@dataclass(frozen=True, slots=True)
class SelectorFigures:
    """One selector on one recording with k of its attempts.

    Attributes:
        selector: its name.
        k: attempts drawn; None for all.
        num_problems: that were judged.
        num_left_out: that had too few attempts.
        accuracy: share of problems it answers rightly.
        majority: the plain vote's share: no answer is no vote, ties count by their split.
        majority_null: the same with "no answer" as a party.
        majority_nonzero: the same without the votes for 0.
        oracle: share of problems with a right answer among the attempts.
        difference: accuracy less majority, paired.
        gap_closed: difference over oracle less majority; None where there is no gap, as with one attempt.
        num_better: problems on which its score is above the plain vote's.
        num_worse: problems on which it is below.
    """

    selector: str
    k: int | None
    num_problems: int
    num_left_out: int
    accuracy: Estimate
    majority: Estimate
    majority_null: Estimate
    majority_nonzero: Estimate
    oracle: Estimate
    difference: Estimate
    gap_closed: Estimate | None
    num_better: int
    num_worse: int

    def as_dict(self, file: str) -> dict[str, Any]:
        """The figures as JSON-able data."""
        return {
            "selector": self.selector,
            "file": file,
            "n": self.num_problems,
            "k": self.k,
            "accuracy": self.accuracy.value,
            "ci": _interval(self.accuracy),
            "majority": self.majority.value,
            "oracle": self.oracle.value,
            "gap_closed": None if self.gap_closed is None else self.gap_closed.value,
            "vs_majority": {
                "diff": self.difference.value,
                "ci": _interval(self.difference),
                "num_better": self.num_better,
                "num_worse": self.num_worse,
            },
            "gap_closed_ci": None if self.gap_closed is None else _interval(self.gap_closed),
            "majority_ci": _interval(self.majority),
            "majority_null": self.majority_null.value,
            "majority_nonzero": self.majority_nonzero.value,
            "oracle_ci": _interval(self.oracle),
            "num_left_out": self.num_left_out,
        }


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """A policy's figures beside what the same pools hold.

    Attributes:
        figures: of the policy.
        oracle: share of problems with a right answer among k attempts, over all ways to draw them.
    """

    figures: PolicyFigures
    oracle: float

    @property
    def gap_closed(self) -> float | None:
        """Accuracy less majority over oracle less majority; None where there is no gap, as with one attempt."""
        gap = self.oracle - self.figures.majority.value
        return self.figures.vs_majority.value / gap if gap > _ROUNDING and self.figures.replay.attempts > 1 else None

    def as_dict(self, file: str) -> dict[str, Any]:
        """The figures as JSON-able data, in the form of a selector's and more."""
        told = self.figures
        config = told.replay
        return {
            "selector": config.settings().rule,
            "file": file,
            "n": told.num_problems,
            "k": config.attempts,
            "accuracy": told.accuracy.value,
            "ci": _interval(told.accuracy),
            "majority": told.majority.value,
            "oracle": self.oracle,
            "gap_closed": self.gap_closed,
            "vs_majority": {"diff": told.vs_majority.value, "ci": _interval(told.vs_majority)},
            "policy": config.policy,
            "stop": config.stop,
            "budget_s": config.budget_s,
            "token_budget": config.token_budget,
            "slots": config.slots,
            "tokens": told.tokens,
            "token_share": told.token_share,
            "seconds": told.seconds,
            "attempts": told.attempts,
            "no_answer": told.no_answer,
            "stop_reasons": dict(told.stop_reasons),
            "num_short": told.num_short,
        }


def policy_outcome(problems: Sequence[RecordedProblem], figures: PolicyFigures) -> PolicyOutcome:
    """A policy's figures on some problems, with the oracle of the attempts it could have had."""
    chances = []
    for item in problems:
        right = [ok for attempt, ok in zip(item.attempts, item.correct, strict=True) if not attempt.is_check]
        k = min(figures.replay.attempts, len(right))
        chances.append(pass_at_k(len(right), sum(right), k) if k else 0.0)
    return PolicyOutcome(figures, math.fsum(chances) / len(chances))


def selector_figures(scored: Sequence[ScoredProblem], plan: ReplayPlan, *, seed: int = 0) -> list[SelectorFigures]:
    """The figures of every k and selector of a plan, in its order; a k that no problem has is left out.

    Args:
        scored: the problems.
        plan: they were replayed by.
        seed: of the resampling of groups.
    """
    figures = []
    for place, k in enumerate(plan.ks):
        judged = [(item, scores) for item in scored if (scores := item.scores[place]) is not None]
        if judged:
            figures += _of_one_k(judged, k, len(scored) - len(judged), plan.selectors, seed)
    return figures


def _of_one_k(
    judged: Sequence[tuple[ScoredProblem, Scores]], k: int | None, left_out: int, names: Sequence[str], seed: int
) -> list[SelectorFigures]:
    common = {name: np.array([getattr(scores, name) for _, scores in judged]) for name in _COMMON}
    of_rules = np.array([scores.selectors for _, scores in judged])  # [num_problems, num_selectors]
    columns = common | {f"rule {name}": of_rules[:, place] for place, name in enumerate(names)}
    drawn = resampled_means(columns, [item.group for item, _ in judged], seed=seed)
    mean = {name: math.fsum(values) / len(values) for name, values in columns.items()}
    told = {name: percentile_estimate(mean[name], drawn[name]) for name in columns}
    figures = []
    for name in names:
        rule = f"rule {name}"
        gains = columns[rule] - columns["majority"]
        gained = mean[rule] - mean["majority"]
        drawn_gains = drawn[rule] - drawn["majority"]
        gap = mean["oracle"] - mean["majority"]
        figures.append(
            SelectorFigures(
                selector=name,
                k=k,
                num_problems=len(judged),
                num_left_out=left_out,
                accuracy=told[rule],
                majority=told["majority"],
                majority_null=told["majority_null"],
                majority_nonzero=told["majority_nonzero"],
                oracle=told["oracle"],
                difference=percentile_estimate(gained, drawn_gains),
                # One attempt leaves no choice: majority is one of few draws, the oracle a mean over all, and what lies
                # between the two is noise.
                gap_closed=None if k == 1 else _ratio(gained, gap, drawn_gains, drawn["oracle"] - drawn["majority"]),
                num_better=int((gains > _ROUNDING).sum()),
                num_worse=int((gains < -_ROUNDING).sum()),
            )
        )
    return figures


def _ratio(above: float, below: float, drawn_above: Floats, drawn_below: Floats) -> Estimate | None:
    """A ratio of means with its percentile interval; None when there is nothing below the line."""
    sound = drawn_below > _ROUNDING
    if below <= _ROUNDING or not sound.any():
        return None
    return percentile_estimate(above / below, drawn_above[sound] / drawn_below[sound])


def _interval(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]
