"""Votes that read what checks found: verified vote and GenSelect. Pure.

Checks are attempts without a vote; each says of some answers whether they are supported or refuted. A check that came
to nothing says UNKNOWN and counts neither way.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from mathlete.cic.evidence import GENSELECT, verification_of
from mathlete.cic.majority import fallback_selection, no_answer_reason, tally, votes_of
from mathlete.cic.scored import plain_scores, select_best
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.seeds import derive_seed
from mathlete.core.selection import Evidence, Selection

_IN_FAVOUR = {"PROVED": 1.0, "SUPPORTED": 1.0, "REFUTED": 0.0}


def verified_share(evidence: Sequence[Evidence]) -> float:
    """verify(a): share of the checks with a verdict that are in favour, in [0, 1]; 0 when there is none."""
    verdicts = [_IN_FAVOUR[e.verdict] for e in evidence if e.verdict in _IN_FAVOUR]
    return fmean(verdicts) if verdicts else 0.0


@dataclass(frozen=True, slots=True)
class VerifiedVote:
    """Score S(a) (1 + 2 verify(a)) for the three answers with most votes, S the votes; others keep S.

    Attributes:
        weight: of verify(a).
        num_verified: answers whose checks count.
    """

    name = "verified_vote"

    weight: float = 2.0
    num_verified: int = 3

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        tallies = tally(attempts)
        found = verification_of(attempts)
        scores, reasons = plain_scores(tallies), []
        for t in tallies[: self.num_verified]:
            share = verified_share(found.get(t.answer, ()))
            scores[t.answer] *= 1 + self.weight * share
            if t.answer in found:
                reasons.append(f"{len(found[t.answer])} checks of {t.answer}: {_verdicts(found[t.answer])}.")
        return select_best(self.name, problem, attempts, scores, reasons=reasons or ["No answer was checked."])


@dataclass(frozen=True, slots=True)
class GenSelect:
    """The answer that a model picked when it was shown several solutions; the most picked one of several picks.

    When no pick can be read, that of a solution drawn at random (NeMo-Skills, `parallel_thinking.py`), by a seed
    derived from `seed` and the problem's id.
    """

    name = "genselect"

    seed: int = 0

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        if not votes:
            return fallback_selection(problem, no_answer_reason(attempts))
        given = {vote.answer for vote in votes}
        picks = [
            evidence.answer
            for attempt in attempts
            if attempt.pillar == GENSELECT
            for evidence in attempt.evidence
            if evidence.verdict == "SUPPORTED" and evidence.answer in given
        ]
        if picks:
            scores = {answer: float(picks.count(answer)) for answer in picks if answer is not None}
            reasons = (f"A model that was shown the solutions picked {len(picks)} times.",)
            return select_best(self.name, problem, attempts, scores, reasons=reasons)
        noise = random.Random(derive_seed(self.seed, self.name, problem.id))
        drawn = noise.choice(sorted(vote.answer for vote in votes))
        reasons = ("No pick could be read: a solution drawn at random stands.",)
        confidence = sum(vote.answer == drawn for vote in votes) / len(votes)
        return select_best(self.name, problem, attempts, {drawn: 1.0}, reasons=reasons, confidence=confidence)


def _verdicts(evidence: Sequence[Evidence]) -> str:
    counts: dict[str, int] = {}
    for e in evidence:
        counts[e.verdict] = counts.get(e.verdict, 0) + 1
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
