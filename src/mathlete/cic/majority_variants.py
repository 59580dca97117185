"""The plain vote with other tie-breaks, and with attempts that have no answer as a party of their own. Pure.

Splitting a tie fractionally is a way to score a rule and not a rule: its expected accuracy is that of a random choice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mathlete.cic.answer_values import answer_value
from mathlete.cic.majority import Tally, fallback_selection, tally
from mathlete.cic.remembering import remember_last
from mathlete.cic.scored import plain_scores, select_best
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.seeds import derive_seed
from mathlete.core.selection import Selection


@remember_last
def value_ranks(tallies: Sequence[Tally]) -> dict[str, int]:
    """Places of the answers by value, the larger the higher; texts that are no numbers share the lowest, 0."""
    known = {t.answer: answer_value(t.answer) for t in tallies}
    order: list[Fraction] = sorted({value for value in known.values() if value is not None})
    places = {value: place for place, value in enumerate(order, start=1)}
    return {answer: 0 if value is None else places[value] for answer, value in known.items()}


@dataclass(frozen=True, slots=True)
class MajorityRandom:
    """The most frequent answer; one of the tied ones at random, by a seed derived from `seed` and the problem's id."""

    name = "majority_random"

    seed: int = 0

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        tallies = tally(attempts)
        drawn = sorted(t.answer for t in tallies)  # so that the order of the attempts does not matter
        random.Random(derive_seed(self.seed, self.name, problem.id)).shuffle(drawn)
        place = {answer: float(number) for number, answer in enumerate(drawn)}
        reasons = ("Ties are broken at random, by a seed.",)
        scores = plain_scores(tallies)
        return select_best(
            self.name, problem, attempts, scores, reasons=reasons, tie_break=lambda t: (place[t.answer],)
        )


class MajorityLarger:
    """The most frequent answer; the largest of the tied ones."""

    name = "majority_larger"

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        tallies = tally(attempts)
        ranks = value_ranks(tallies)
        reasons = ("Ties go to the larger answer.",)
        scores = plain_scores(tallies)
        return select_best(
            self.name, problem, attempts, scores, reasons=reasons, tie_break=lambda t: (float(ranks[t.answer]),)
        )


class MajorityNull:
    """The vote in which "no answer" is a party: when it has more votes than any answer, the fallback stands.

    What a harness does that takes the mode of whatever its attempts returned. Kept to be measured.
    """

    name = "majority_null"

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. An answer with as many votes as "no answer" wins."""
        tallies = tally(attempts)
        nulls = sum(attempt.answer is None and not attempt.is_check for attempt in attempts)
        if tallies and nulls > tallies[0].votes:
            leader = tallies[0]
            return fallback_selection(
                problem,
                f"{nulls} attempts had no answer and {leader.votes} gave {leader.answer}: no answer wins, so the "
                "fallback stands.",
            )
        terms = {"null_votes": float(nulls)}
        reasons = (f"No answer has {nulls} votes of its own.",)
        return select_best(self.name, problem, attempts, plain_scores(tallies), reasons=reasons, terms=terms)
