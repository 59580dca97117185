"""The plain vote, and the answer that stands when nobody voted.

Knows answers and entropies of attempts. Does not know where attempts come from or whether they are right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mathlete.cic.remembering import remember_last
from mathlete.core.attempt import Attempt
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.selection import FALLBACK, AnswerCluster, Selection

_MAX_REASONED_CLUSTERS = 3


@dataclass(frozen=True, slots=True)
class Tally:
    """Votes for one answer.

    Attributes:
        answer: canonical integer text.
        votes: number of attempts that gave it.
        certainty: sum over those attempts of exp(-mean entropy), each in [0, 1]; an attempt
            without the feature adds nothing.
        attempt_ids: in the order of the pool.
    """

    answer: str
    votes: int
    certainty: float
    attempt_ids: tuple[str, ...]


class Vote(NamedTuple):
    """An answer and the attempt that gave it."""

    answer: str
    attempt: Attempt


@remember_last
def votes_of(attempts: Sequence[Attempt]) -> tuple[Vote, ...]:
    """The votes of a pool in its order; attempts without an answer and checks have none."""
    return tuple(Vote(a.answer, a) for a in attempts if a.answer is not None and not a.is_check)


def certainty(attempt: Attempt) -> float:
    """exp(-mean entropy), in [0, 1]: the effective share of its likeliest token; 0 when the entropy is not known."""
    entropy = attempt.features.get("mean_entropy")
    if entropy is None or not math.isfinite(entropy):
        return 0.0
    return math.exp(-max(0.0, entropy))


@remember_last
def tally(attempts: Sequence[Attempt]) -> tuple[Tally, ...]:
    """The votes of a pool, winner first; attempts without an answer and checks do not vote.

    Ties are broken by `certainty` (lower mean entropy), then by the answer that came first.
    """
    groups: dict[str, list[Attempt]] = {}
    for answer, attempt in votes_of(attempts):
        groups.setdefault(answer, []).append(attempt)
    tallies = [
        Tally(answer, len(group), math.fsum(map(certainty, group)), tuple(a.id for a in group))
        for answer, group in groups.items()
    ]
    return tuple(sorted(tallies, key=lambda t: (-t.votes, -t.certainty)))  # stable: first come, first


def fallback_answer(kind: AnswerKind) -> str:
    """The answer that is handed in when there is none: "0", moved into the admissible interval."""
    return str(min(max(0, kind.low), kind.high))


def fallback_selection(problem: Problem, reason: str) -> Selection:
    """A selection that says that nothing was found. Its confidence is 0."""
    return Selection(answer=fallback_answer(problem.answer_kind), rule=FALLBACK, confidence=0.0, reasons=(reason,))


class Majority:
    """One attempt, one vote. Pure.

    The confidence is (votes + 1) / (answers + 2), the mean of a Beta posterior on the leader's share under a
    uniform prior (Laplace's rule). It is not calibrated: it says how agreed the pool is, not how right.
    """

    name = "majority"

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """The most frequent answer. With no answer in the pool, a `Selection` with rule "fallback"."""
        tallies = tally(attempts)
        if not tallies:
            return fallback_selection(problem, no_answer_reason(attempts))
        leader = tallies[0]
        num_answers = sum(t.votes for t in tallies)
        runner_up = tallies[1].votes if len(tallies) > 1 else 0
        num_attempts = sum(not attempt.is_check for attempt in attempts)
        return Selection(
            answer=leader.answer,
            rule=self.name,
            confidence=(leader.votes + 1) / (num_answers + 2),
            clusters=tuple(AnswerCluster(t.answer, float(t.votes), t.attempt_ids) for t in tallies),
            terms={
                "votes": float(leader.votes),
                "runner_up_votes": float(runner_up),
                "num_answers": float(num_answers),
                "num_attempts": float(num_attempts),
                "certainty": leader.certainty,
            },
            reasons=_reasons(tallies, num_attempts),
        )


def no_answer_reason(attempts: Sequence[Attempt]) -> str:
    """Why no attempt of a pool has a vote, as a sentence."""
    attempts = [attempt for attempt in attempts if not attempt.is_check]
    if not attempts:
        return "No attempt finished, so the fallback stands."
    failures: dict[str, int] = {}
    for attempt in attempts:
        failures[attempt.failure or "no_answer"] = failures.get(attempt.failure or "no_answer", 0) + 1
    listed = ", ".join(f"{name} {count}" for name, count in sorted(failures.items()))
    return f"None of {len(attempts)} attempts had an answer ({listed}), so the fallback stands."


def _reasons(tallies: Sequence[Tally], num_attempts: int) -> tuple[str, ...]:
    leader, others = tallies[0], tallies[1:]
    num_answers = sum(t.votes for t in tallies)
    reasons = [f"{leader.votes} of {num_attempts} attempts gave {leader.answer}{_next_sentence(others)}."]
    if num_answers < num_attempts:
        reasons.append(f"{num_attempts - num_answers} had no answer and did not vote.")
    tied = [t for t in others if t.votes == leader.votes]
    if tied:
        names = ", ".join(t.answer for t in tied)
        if leader.certainty > tied[0].certainty:
            reasons.append(f"Tied with {names}; {leader.answer} won by the lower entropy of its attempts.")
        else:
            reasons.append(f"Tied with {names}; {leader.answer} won because it came first.")
    reasons.append("The confidence is (votes + 1) / (answers + 2), uncalibrated.")
    return tuple(reasons)


def _next_sentence(others: Sequence[Tally]) -> str:
    if not others:
        return ""
    shown = others[:_MAX_REASONED_CLUSTERS]
    listed = ", ".join(f"{t.answer} with {t.votes}" for t in shown)
    more = len(others) - len(shown)
    return f"; next {listed}" + (f" and {more} more" if more else "")
