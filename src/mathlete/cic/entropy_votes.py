"""Votes weighed with the model's entropy, as in AIMO-3 notebooks. Pure.

The entropies are those of the five likeliest tokens, -sum p log2 p, in bits. Where a generator tells only the entropy
over the whole vocabulary, in nats, that is taken instead, as bits.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from mathlete.cic.majority import tally, votes_of
from mathlete.cic.scored import finite_feature, select_best, sums_of_weights
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection

_MIN_BITS = 1e-9


class Aimo3Entropy:
    """w = 1 / max(H, 1e-9), H the mean token entropy of the attempt; the answer with the largest sum of weights.

    The vote of the common AIMO-3 notebook ("44/50 AIMO3: gpt-oss 120b"), where H is over the whole attempt. An
    attempt that tells no entropy has weight 1, that of a plain vote.
    """

    name = "aimo3_entropy"

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        num_told = sum(entropy_bits(vote.attempt) is not None for vote in votes)
        reasons = (f"Each attempt votes with 1 / its mean entropy; {num_told} of {len(votes)} told it.",)
        return select_best(self.name, problem, attempts, sums_of_weights(votes, _weight), reasons=reasons)


class Aimo3Second:
    """Score 2.0 * vote share + 0.3 / median entropy + 0.5 * consensus (second place of AIMO-3).

    Entropy is of the last 256 tokens; the median is over the attempts that gave the answer. What "consensus" is was
    not found written down; here it is 1 for an answer with more than half of the votes, else 0. An answer none of whose
    attempts tells an entropy has the median of the others; when nobody tells, the term is left out.
    """

    name = "aimo3_second"

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        told: dict[str, list[float]] = {}
        for answer, attempt in votes:
            bits = entropy_bits(attempt, tail=True)
            if bits is not None:
                told.setdefault(answer, []).append(bits)
        of_all = [bits for of_answer in told.values() for bits in of_answer]
        scores, reasons = {}, ["Scores are 2 * vote share + 0.3 / median tail entropy + 0.5 for a majority of votes."]
        if votes and not of_all:
            reasons.append("No attempt told its entropy, so that term is left out.")
        for t in tally(attempts):
            share = t.votes / len(votes)
            heard = told.get(t.answer, of_all)
            sureness = 0.3 / max(statistics.median(heard), _MIN_BITS) if heard else 0.0
            scores[t.answer] = 2.0 * share + sureness + 0.5 * (share > 0.5)
        return select_best(self.name, problem, attempts, scores, reasons=reasons)


def entropy_bits(attempt: Attempt, *, tail: bool = False) -> float | None:
    """Mean token entropy of an attempt (of its last 256 tokens with `tail`) in bits; None when it is not told."""
    prefix = "tail_" if tail else ""
    bits = finite_feature(attempt, f"{prefix}top5_entropy_bits")
    if bits is not None:
        return bits
    nats = finite_feature(attempt, "tail_entropy" if tail else "mean_entropy")
    return None if nats is None else nats / math.log(2)


def _weight(attempt: Attempt) -> float:
    bits = entropy_bits(attempt)
    return 1.0 if bits is None else 1 / max(bits, _MIN_BITS)
