"""The plain vote."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.majority import FALLBACK, Majority, fallback_answer, fallback_selection, tally
from mathlete.core.attempt import Attempt, Failure
from mathlete.core.problem import AnswerKind, Problem

PROBLEM = Problem("p", "How many?")


def attempt(index: int, answer: str | None, entropy: float | None = None, failure: Failure | None = None) -> Attempt:
    features = {} if entropy is None else {"mean_entropy": entropy}
    return Attempt(f"p#{index}", "p", index, "code", 1, 0.8, answer, None, (), 1, 1.0, features, failure)


def pool_of(*answers: str | None) -> list[Attempt]:
    return [attempt(index, answer) for index, answer in enumerate(answers)]


pools = st.lists(st.tuples(st.sampled_from([None, "1", "2", "3"]), st.none() | st.floats(0, 5)), max_size=9).map(
    lambda pairs: [attempt(index, *pair) for index, pair in enumerate(pairs)]
)


@given(pools)
def test_the_winner_has_most_votes_and_everyone_is_counted_once(pool: list[Attempt]) -> None:
    counts = Counter(a.answer for a in pool if a.answer is not None)
    selection = Majority().select(PROBLEM, pool)
    if not counts:
        assert (selection.rule, selection.answer, selection.confidence) == (FALLBACK, "0", 0.0)
        return
    assert counts[selection.answer] == max(counts.values())
    assert {c.answer: c.weight for c in selection.clusters} == counts
    voters = [a for c in selection.clusters for a in c.attempt_ids]
    assert sorted(voters) == sorted(a.id for a in pool if a.answer is not None)
    assert selection.clusters[0].answer == selection.answer
    weights = [c.weight for c in selection.clusters]
    assert weights == sorted(weights, reverse=True)
    assert selection.confidence == (counts[selection.answer] + 1) / (counts.total() + 2)
    assert 0 < selection.confidence < 1


@given(pools)
def test_attempts_without_an_answer_do_not_vote(pool: list[Attempt]) -> None:
    voters = [a for a in pool if a.answer is not None]
    assert tally(pool) == tally(voters)


@given(pools, st.randoms(use_true_random=False))
def test_the_order_matters_only_in_an_exact_tie(pool: list[Attempt], noise: random.Random) -> None:
    tallies = tally(pool)
    shuffled = tally(noise.sample(pool, len(pool)))
    assert {(t.answer, t.votes, t.certainty) for t in tallies} == {(t.answer, t.votes, t.certainty) for t in shuffled}
    if len(tallies) > 1 and (tallies[0].votes, tallies[0].certainty) != (tallies[1].votes, tallies[1].certainty):
        assert shuffled[0].answer == tallies[0].answer


def test_a_tie_goes_to_the_lower_entropy_then_to_the_first() -> None:
    sure, unsure = attempt(1, "7", 0.1), attempt(0, "8", 0.9)
    selection = Majority().select(PROBLEM, [unsure, sure])
    assert selection.answer == "7"
    assert any("lower entropy" in reason for reason in selection.reasons)
    selection = Majority().select(PROBLEM, pool_of("8", "7"))
    assert selection.answer == "8"
    assert any("came first" in reason for reason in selection.reasons)


def test_more_votes_beat_any_certainty() -> None:
    pool = [attempt(0, "7", 0.0), attempt(1, "8", 9.0), attempt(2, "8", 9.0)]
    assert Majority().select(PROBLEM, pool).answer == "8"


@pytest.mark.parametrize("entropy", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_certainty_stays_within_one_per_attempt(entropy: float) -> None:
    (only,) = tally([attempt(0, "7", entropy)])
    assert 0 <= only.certainty <= 1


def test_the_reasons_count_for_a_person() -> None:
    selection = Majority().select(PROBLEM, pool_of("5", "5", None, "6", "5"))
    assert selection.reasons[:2] == ("3 of 5 attempts gave 5; next 6 with 1.", "1 had no answer and did not vote.")
    assert selection.terms == {
        "votes": 3.0,
        "runner_up_votes": 1.0,
        "num_answers": 4.0,
        "num_attempts": 5.0,
        "certainty": 0.0,
    }


def test_many_answers_are_named_briefly() -> None:
    selection = Majority().select(PROBLEM, pool_of("1", "1", "2", "3", "4", "5", "6"))
    assert selection.reasons[0] == "2 of 7 attempts gave 1; next 2 with 1, 3 with 1, 4 with 1 and 2 more."


def test_the_fallback_says_why() -> None:
    pool = [attempt(0, None, failure="length"), attempt(1, None, failure="length"), attempt(2, None)]
    assert Majority().select(PROBLEM, pool).reasons == (
        "None of 3 attempts had an answer (length 2, no_answer 1), so the fallback stands.",
    )
    assert Majority().select(PROBLEM, []).reasons == ("No attempt finished, so the fallback stands.",)
    assert fallback_selection(PROBLEM, "why").reasons == ("why",)


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**9))
def test_the_fallback_is_always_admissible(low: int, width: int) -> None:
    kind = AnswerKind(low=low, high=low + width)
    answer = int(fallback_answer(kind))
    assert kind.admits(answer)
    assert answer == 0 or not kind.admits(0)
