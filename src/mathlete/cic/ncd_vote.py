"""The vote weighed with how alike the traces behind an answer are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mathlete.cic.answer_values import answer_value
from mathlete.cic.majority import Vote, votes_of
from mathlete.cic.ncd import estimated_cohesion, trace_of
from mathlete.cic.scored import select_best
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection

_PHI_OF_ONE = 0.5  # as published


@dataclass(frozen=True, slots=True)
class NcdVote:
    """Score n (1 + Phi) for each answer: n its votes and those within 1 % of it, Phi the cohesion of their traces.

    Published with Phi over the written answers, which are too short to compare (see `ncd.py`). A single trace has
    Phi 0.5, as published; where there is no text, Phi is 0.

    Attributes:
        proximity: b counts for a when |b - a| < proximity * max(|a|, 1).
    """

    name = "ncd_vote"

    proximity: Fraction = Fraction(1, 100)

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        places: dict[str, list[int]] = {}
        for index, vote in enumerate(votes):
            places.setdefault(vote.answer, []).append(index)
        scores = {}
        for answer in places:
            near = sorted(index for other in self._near(answer, places) for index in places[other])
            scores[answer] = len(near) * (1 + _phi([votes[index] for index in near]))
        reasons = ("Scores are n (1 + Phi) over the votes within 1 % of an answer, Phi of their traces.",)
        return select_best(self.name, problem, attempts, scores, reasons=reasons)

    def _near(self, answer: str, answers: Iterable[str]) -> list[str]:
        """Those of some answers that count for one of them, itself included."""
        a = answer_value(answer)
        if a is None:
            return [answer]
        reach = self.proximity * max(abs(a), Fraction(1))
        low, high = a - reach, a + reach
        return [b for b in answers if b == answer or ((value := answer_value(b)) is not None and low < value < high)]


def _phi(votes: Sequence[Vote]) -> float:
    traces = [trace for vote in votes if (trace := trace_of(vote.attempt))]
    return _PHI_OF_ONE if len(traces) == 1 else estimated_cohesion(traces) or 0.0
