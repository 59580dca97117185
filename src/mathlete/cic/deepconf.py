"""DeepConf's offline vote: the most confident tenth of the attempts, weighed with their confidence. Pure.

"Deep Think with Confidence" (Fu et al. 2025, arXiv 2508.15260), `filter_top_confidence` and `weighted_majority_vote`
of github.com/facebookresearch/deepconf: of the attempts with an answer those stay whose confidence reaches the 90th
percentile (linear between ranks, as numpy's); their confidences are summed for each answer. In a pool of up to
eleven attempts one stays, unless they tie. `core.confidence` computes the confidences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.cic.majority import tally, votes_of
from mathlete.cic.scored import finite_feature, plain_scores, select_best, sums_of_weights
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection

FEATURES = {
    "deepconf_mean": "mean_confidence",
    "deepconf_tail": "tail_confidence",
    "deepconf_bottom_10": "bottom_10_percent_group",
    "deepconf_min_window": "min_window_confidence",
}


@dataclass(frozen=True, slots=True)
class DeepConf:
    """See the module. An attempt that does not tell its confidence has 0, as published.

    When no attempt tells one above 0, this is the plain vote.

    Attributes:
        name: one of `FEATURES`: which confidence.
        keep: part of the attempts that is kept; 1 for all.
    """

    name: str = "deepconf_tail"
    keep: float = 0.1

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.name not in FEATURES:
            raise ValueError(f"name must be one of {', '.join(FEATURES)}, not {self.name!r}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be in (0, 1], not {self.keep}")

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        confidences = [self._confidence(vote.attempt) for vote in votes]
        if not any(confidences):
            reasons = ("No attempt told its confidence, so this is the plain vote.",)
            return select_best(self.name, problem, attempts, plain_scores(tally(attempts)), reasons=reasons)
        threshold = percentile(confidences, 1 - self.keep)
        kept = [vote for vote, confidence in zip(votes, confidences, strict=True) if confidence >= threshold]
        scores = sums_of_weights(kept, self._confidence)
        reasons = (
            f"{len(kept)} of {len(votes)} attempts have a confidence of at least {threshold:.4g} and vote with it.",
        )
        terms = {"threshold": threshold, "num_kept": float(len(kept))}
        return select_best(self.name, problem, attempts, scores, reasons=reasons, terms=terms)

    def _confidence(self, attempt: Attempt) -> float:
        return max(0.0, finite_feature(attempt, FEATURES[self.name]) or 0.0)


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of the values lie, linear between ranks; the largest for 1."""
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return min(ordered[below] + (ordered[above] - ordered[below]) * (place - below), ordered[above])
