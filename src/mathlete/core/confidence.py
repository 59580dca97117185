"""Confidence features of an attempt, from what the engine tells of every token. Pure arithmetic; no engine, no vote.

Words: at each of n tokens the *model's own* distribution p (temperature 1, before filters) has an entropy
H = -sum p ln p over the whole vocabulary, the token's logprob, and the *top mean*: the mean logprob of its 20
likeliest tokens. DeepConf ("Deep Think with Confidence", Fu et al. 2025, arXiv 2508.15260) calls the negative of
the top mean the token's *confidence* C: high where the distribution is peaked, as the other 19 are then unlikely.
A *group* is a window of 2048 tokens in a row, one ending at every token from the 2048th on, and its confidence the
mean of C over it; an attempt shorter than that has one group, the whole of it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import accumulate

from mathlete.core.generation import TokenLogprob

TAIL_TOKENS = 256
GROUP_TOKENS = 2048
NUM_TOP_LOGPROBS = 5
_BOTTOM_PART = 0.1


def confidence_features(
    logprobs: Sequence[float],
    entropies: Sequence[float],
    top_means: Sequence[float],
    top5_bits: Sequence[float] = (),
) -> dict[str, float]:
    """The features of one attempt over all its tokens, in nats unless said otherwise.

    What the generator does not tell (an empty sequence) is left out. O(n), but for a sort of the group confidences
    and one for the median.

    Returns:
        mean_logprob: of the tokens.
        mean_entropy, median_entropy: of H.
        tail_entropy: mean of H over the last 256 tokens (AIMO-3, second place).
        mean_confidence: mean of C (DeepConf's average trace confidence).
        tail_confidence: mean of C over the last 2048 tokens (DeepConf's tail confidence).
        bottom_10_percent_group: mean of the lowest tenth of the groups' confidences, at least one group.
        min_window_confidence: the lowest group's confidence (DeepConf's lowest group confidence).
        top5_entropy_bits: mean of `top5_bits` (the AIMO-3 common vote weighs with its inverse).
        tail_top5_entropy_bits: the same over the last 256 tokens.
    """
    features = {}
    if logprobs:
        features["mean_logprob"] = _mean(logprobs)
    if entropies:
        features["mean_entropy"] = _mean(entropies)
        features["median_entropy"] = statistics.median(entropies)
        features["tail_entropy"] = _mean(entropies[-TAIL_TOKENS:])
    if top_means:
        groups = sorted(-mean for mean in window_means(top_means, GROUP_TOKENS))
        features["mean_confidence"] = -_mean(top_means)
        features["tail_confidence"] = -_mean(top_means[-GROUP_TOKENS:])
        features["bottom_10_percent_group"] = _mean(groups[: max(1, int(len(groups) * _BOTTOM_PART))])
        features["min_window_confidence"] = groups[0]
    if top5_bits:
        features["top5_entropy_bits"] = _mean(top5_bits)
        features["tail_top5_entropy_bits"] = _mean(top5_bits[-TAIL_TOKENS:])
    return features


def top5_entropies(top_logprobs: Sequence[Sequence[TokenLogprob]]) -> tuple[float, ...]:
    """At each place -sum p log2 p over its five likeliest tokens, p not renormalised, in bits.

    Empty unless at least five are told of at every place.
    """
    if not all(len(place) >= NUM_TOP_LOGPROBS for place in top_logprobs):
        return ()
    return tuple(_bits(place[:NUM_TOP_LOGPROBS]) for place in top_logprobs)


def window_means(values: Sequence[float], width: int) -> list[float]:
    """Means of each `width` values in a row, in order, by running sums; of all of them when there are fewer."""
    if len(values) <= width:
        return [_mean(values)]
    sums = list(accumulate(values, initial=0.0))
    return [(end - start) / width for start, end in zip(sums, sums[width:], strict=False)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _bits(likeliest: Sequence[TokenLogprob]) -> float:
    return -sum(math.exp(token.logprob) * token.logprob for token in likeliest) / math.log(2)
