"""Drawing tokens in plain numpy, from the definition in words: the judge of both implementations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mathlete.core.generation import SamplingParams

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Kept:
    """The tokens that may be drawn, in order of rank, and their probabilities (which sum to 1)."""

    ids: NDArray[np.int64]
    probabilities: Floats

    def fits(self, token: int, uniform: float, slack: float = 2e-5) -> bool:
        """Whether inverting the cumulative distribution at `uniform`, give or take `slack`, gives `token`."""
        places = np.flatnonzero(self.ids == token)
        if not len(places):
            return False
        ends = np.cumsum(self.probabilities)
        place = int(places[0])
        return bool(ends[place] - self.probabilities[place] - slack <= uniform < ends[place] + slack)


def keep(logits: Floats, params: SamplingParams) -> Kept:
    """Rank by logit, ties by id; keep the top k, at least min_p of the first, and the smallest prefix of mass top_p."""
    if params.temperature == 0:
        return Kept(np.array([int(np.argmax(logits))]), np.ones(1))
    tempered = logits.astype(np.float64) / params.temperature
    weights = np.exp(tempered - tempered.max())
    probabilities = weights / weights.sum()
    ids = np.lexsort((np.arange(len(logits)), -logits))
    ids = ids[np.isfinite(logits[ids])]
    if params.top_k:
        ids = ids[: params.top_k]
    ids = ids[probabilities[ids] >= params.min_p * probabilities[ids[0]]]
    if params.top_p < 1:
        mass_before = np.cumsum(probabilities[ids]) - probabilities[ids]
        ids = ids[mass_before < params.top_p]
    return Kept(ids, probabilities[ids] / probabilities[ids].sum())
