"""Votes weighed by the answer itself: small and round numbers are less often right. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from mathlete.cic.answer_values import answer_value
from mathlete.cic.majority import tally
from mathlete.cic.majority_variants import value_ranks
from mathlete.cic.scored import select_best
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection


class Huikang:
    """Score log(1.25 + |a|) * votes; ties go to more votes, then to the larger answer (Tong Hui Kang, AIMO-3).

    A text that is no number has the weight of 0, the smallest.
    """

    name = "huikang"

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        tallies = tally(attempts)
        ranks = value_ranks(tallies)
        scores = {t.answer: huikang_weight(t.answer) * t.votes for t in tallies}
        reasons = ("Each vote for a counts log(1.25 + |a|).",)
        return select_best(
            self.name,
            problem,
            attempts,
            scores,
            reasons=reasons,
            tie_break=lambda t: (float(t.votes), float(ranks[t.answer])),
        )


class ImaginationResearch:
    """A vote counts 0.6 for answers <= 20 or divisible by 100, else 1; ties go to the larger answer.

    `AllVoteMajorityAggregator` of github.com/imagination-research/aimo2 (second place of AIMO-2), which drops negative
    answers; here they count 0.6, as <= 20. A text that is no number counts 0.6 too.
    """

    name = "imagination_research"

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        tallies = tally(attempts)
        ranks = value_ranks(tallies)
        scores = {t.answer: imagination_weight(t.answer) * t.votes for t in tallies}
        reasons = ("A vote for an answer <= 20 or divisible by 100 counts 0.6.",)
        return select_best(
            self.name, problem, attempts, scores, reasons=reasons, tie_break=lambda t: (float(ranks[t.answer]),)
        )


def huikang_weight(answer: str) -> float:
    """log(1.25 + |a|), for integers of any size."""
    shifted = Fraction(5, 4) + abs(answer_value(answer) or Fraction(0))
    return math.log(shifted.numerator) - math.log(shifted.denominator)


def imagination_weight(answer: str) -> float:
    """0.6 for answers <= 20 or divisible by 100, else 1."""
    value = answer_value(answer)
    return 0.6 if value is None or value <= 20 or value % 100 == 0 else 1.0
