"""The specification's pipeline: the best-scored attempt's integer, clamped in the open; a pure function of the pool."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_run import drive

from mathlete.contest.policy import ALL_FINISHED, OUT_OF_TIME, FixedPolicy
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.generation import GenerateRequest
from mathlete.core.policy import Launch, PoolState, Stop, Wait
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.selection import FALLBACK, Selection
from mathlete.triad.pipeline import SCORERS, SCORES, PipelineSelector, clamped, integer_of
from mathlete.triad.policies import PolicySettings, make_policy, selector_of
from mathlete.verify.ceilings import MAX_ANSWER_CHARS

PROBLEM = Problem("p", "How many?")
KIND = AnswerKind()


def attempt(index: int, answer: str | None, score: float | None = None, **fields: object) -> Attempt:
    features = {} if score is None else {"mean_logprob": score}
    failure = None if answer is not None else "no_answer"
    done = Attempt(f"p#{index}", "p", index, "code", 1, 0.8, answer, None, (), 10, 1.0, features, failure)
    return replace(done, **fields)  # type: ignore[arg-type]


def out_of_range(index: int, text: str, score: float | None = None) -> Attempt:
    return attempt(index, None, score, failure="out_of_range", turns=(Turn(text),))


def select(*attempts: Attempt, scorer: str = "available", problem: Problem = PROBLEM) -> Selection:
    return PipelineSelector(scorer).select(problem, attempts)


def state(attempts: tuple[Attempt, ...], in_flight: int = 0, remaining_s: float = 10.0) -> PoolState:
    return PoolState(PROBLEM, attempts, in_flight, len(attempts) + in_flight, 1.0, remaining_s)


def test_the_best_scored_attempt_is_right_however_many_say_otherwise() -> None:
    selection = select(attempt(0, "7", -0.5), attempt(1, "8", -0.1), attempt(2, "7", -0.2))
    assert (selection.answer, selection.rule, selection.accepted) == ("8", "pipeline", None)
    assert selection.terms == {"num_candidates": 3.0, "clamped": 0.0, "score": -0.1}
    assert selection.reasons == ("p#1 has the highest mean_logprob of 3 attempts: -0.1.",)
    assert [(cluster.answer, cluster.weight) for cluster in selection.clusters] == [("7", 2.0), ("8", 1.0)]
    assert selection.confidence == pytest.approx(1 / 3), "agreement, and no more"


def test_ties_go_to_the_first_and_one_without_an_integer_to_the_next_best() -> None:
    assert select(attempt(3, "1", -0.2), attempt(1, "2", -0.2)).answer == "1"
    selection = select(
        attempt(0, None, -0.01), attempt(1, "5", -0.3), attempt(2, r"\frac12", -0.02), attempt(3, "6", -0.9)
    )
    assert selection.answer == "5"
    assert "Attempts without an integer, passed over: 2." in selection.reasons


def test_no_integer_is_a_fallback() -> None:
    assert select().rule == FALLBACK
    selection = select(attempt(0, None), attempt(1, "1/2"), attempt(2, "9", pillar="sympy_check"))
    assert (selection.rule, selection.answer, selection.reasons) == (
        FALLBACK, "0", ("None of 2 attempts had an integer.",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value", "answer", "said"),
    [
        (r"So \boxed{123456}.", 123456, "99999", "It ended with 123456, above the largest admissible integer"),
        (r"So \boxed{-17}.", -17, "0", "It ended with -17, below the smallest admissible integer"),
        ("The answer is 100000", 100000, "99999", "which was clamped to 99999."),
        ("The answer is 100000. It is of", 100000, "99999", "which was clamped to 99999."),
        (r"\boxed{10^{400}}", 10**400, "99999", "a number of about 398 digits, above the largest"),
    ],
)
def test_clamping_is_done_in_the_open(text: str, value: int, answer: str, said: str) -> None:
    best, other = out_of_range(0, text, -0.1), attempt(1, "42", -0.2)
    assert integer_of(best, KIND) == value
    selection = select(best, other)
    assert (selection.answer, selection.terms["clamped"]) == (answer, 1.0)
    assert any(said in reason for reason in selection.reasons), selection.reasons
    assert select(replace(best, features={"mean_logprob": -0.3}), other).answer == "42", "only of the best"


def test_a_number_too_long_to_print_is_clamped_without_printing_it() -> None:
    selection = select(out_of_range(0, r"\boxed{2000!}"))
    assert selection.answer == "99999" and "a number of about 5715 digits" in selection.reasons[1]


def test_what_a_program_printed_is_clamped_too() -> None:
    printed = Turn("```python\n...\n```\n", "...", ToolResult("ok", "250000\n", "", 0.1), "```output\n250000\n```\n", 9)
    assert select(attempt(0, None, failure="out_of_range", turns=(printed, Turn("Done.")))).answer == "99999"


def test_an_integer_out_of_range_that_is_not_recorded_is_none() -> None:
    assert integer_of(attempt(0, None, failure="out_of_range"), KIND) is None
    assert integer_of(attempt(0, None, failure="length", turns=(Turn(r"\boxed{123456}"),)), KIND) is None
    assert integer_of(out_of_range(0, r"\boxed{12}"), KIND) is None, "that is no integer out of range"


def test_recorded_answers_of_other_programs_are_integers_or_none() -> None:
    for text, value in (("+7", 7), ("-12", -12), ("123456", 123456), ("1/2", None), ("", None), ("x", None)):
        assert integer_of(attempt(0, text), KIND) == value
    assert integer_of(attempt(0, "9" * (MAX_ANSWER_CHARS + 1)), KIND) is None
    assert select(attempt(0, "123456", -0.1)).answer == "99999"
    assert select(attempt(0, "-5"), problem=replace(PROBLEM, answer_kind=AnswerKind(low=-9, high=9))).answer == "-5"


def test_the_admissible_range_is_the_problems() -> None:
    narrow = replace(PROBLEM, answer_kind=AnswerKind(low=1, high=999))
    assert select(attempt(0, "1000"), problem=narrow).answer == "999"
    assert select(attempt(0, "-3"), problem=narrow).answer == "1"


@given(st.integers(-(10**9), 10**9), st.integers(-100, 100), st.integers(0, 100))
def test_clamping_moves_to_the_nearest(value: int, low: int, width: int) -> None:
    kind = AnswerKind(low=low, high=low + width)
    found = clamped(value, kind)
    assert kind.admits(found) and abs(found - value) == min(abs(item - value) for item in range(low, low + width + 1))


TOLD = {
    "mean_logprob": ({"mean_logprob": -0.1}, {"mean_logprob": -0.2}),
    "mean_confidence": ({"mean_confidence": 3.0}, {"mean_confidence": 2.0}),
    "tail_confidence": ({"tail_confidence": 3.0}, {"tail_confidence": 2.0}),
    "bottom_10_percent_group": ({"bottom_10_percent_group": 3.0}, {"bottom_10_percent_group": 2.0}),
    "min_window_confidence": ({"min_window_confidence": 3.0}, {"min_window_confidence": 2.0}),
    "inverse_entropy": ({"mean_entropy": 0.1}, {"mean_entropy": 0.3}),
    "inverse_top5_entropy": ({"top5_entropy_bits": 0.1}, {"top5_entropy_bits": 0.3}),
}


@pytest.mark.parametrize("scorer", TOLD)
def test_each_score_prefers_the_surer_attempt(scorer: str) -> None:
    sure, unsure = TOLD[scorer]
    pool = (attempt(0, "1", features=unsure), attempt(1, "2", features=sure), attempt(2, "3", features={}))
    assert select(*pool, scorer=scorer).answer == "2"
    assert select(pool[0], pool[2], scorer=scorer).answer == "1", "one that does not tell comes last"
    selection = select(pool[2], attempt(3, "4", features={}), scorer=scorer)
    assert selection.answer == "3" and f"No attempt tells {scorer}" in selection.reasons[0]
    assert "score" not in selection.terms


def test_every_score_is_tried() -> None:
    assert {*TOLD, "fewest_tokens"} == set(SCORES) and set(SCORERS) == {"available", *SCORES}
    pool = (attempt(0, "1", num_tokens=30), attempt(1, "2", num_tokens=20), attempt(2, "3", num_tokens=0))
    assert select(*pool, scorer="fewest_tokens").answer == "2"
    assert select(*pool, scorer="mean_logprob").answer == "1"


def test_available_is_the_first_score_that_all_tell() -> None:
    both = {"mean_logprob": -0.1, "mean_entropy": 0.9}
    pool = (attempt(0, "1", features=both), attempt(1, "2", features={"mean_entropy": 0.2}))
    assert "inverse_entropy" in select(*pool).reasons[0] and select(*pool).answer == "2"
    assert "fewest_tokens" in select(*pool, attempt(2, "3", num_tokens=3)).reasons[0]
    silent = (attempt(0, "1", num_tokens=0), attempt(1, "2", num_tokens=0))
    assert select(*silent).answer == "1" and "No attempt tells any score" in select(*silent).reasons[0]
    odd = (attempt(0, "1", float("nan")), attempt(1, "2", -0.4))
    assert select(*odd, scorer="mean_logprob").answer == "2"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["1", "2", "-3", "123456", None, "x"]),
            st.one_of(st.none(), st.floats(-9, 0), st.just(float("inf")), st.just(float("nan"))),
        ),
        max_size=9,
    ),
    st.sampled_from(SCORERS),
)
def test_every_pool_has_an_admissible_answer(pool: list[tuple[str | None, float | None]], scorer: str) -> None:
    attempts = tuple(attempt(index, *item) for index, item in enumerate(pool))
    selection = select(*attempts, scorer=scorer)
    assert KIND.admits(int(selection.answer)) and 0 <= selection.confidence <= 1 and selection.reasons
    assert selection == select(*attempts, scorer=scorer), "pure"
    told = {item.id for item in attempts if integer_of(item, KIND) is not None}
    assert {id_ for cluster in selection.clusters for id_ in cluster.attempt_ids} == told
    assert (selection.rule == FALLBACK) == (not told)


def test_the_policy_launches_all_and_waits_for_all_or_the_clock() -> None:
    policy = make_policy(PolicySettings("pipeline", 4, pillars=("reasoning",), temperature=0.6))
    assert isinstance(policy, FixedPolicy) and isinstance(policy.selector, PipelineSelector)
    assert policy.decide(state(())) == Launch(4, "reasoning", 0.6)
    done = (attempt(0, "7", -0.3), attempt(1, "7", -0.4), attempt(2, "8", -0.1))
    assert policy.decide(state(done, in_flight=1)) == Wait(), "although nothing could change the vote"
    stop = policy.decide(state((*done, attempt(3, "7", -0.2))))
    assert isinstance(stop, Stop) and (stop.selection.answer, stop.reason) == ("8", ALL_FINISHED)
    stop = policy.decide(state(done[:1], in_flight=3, remaining_s=0.0))
    assert isinstance(stop, Stop) and (stop.selection.answer, stop.reason) == ("7", OUT_OF_TIME)


def test_its_settings_are_checked_and_its_selector_is_its_own() -> None:
    with pytest.raises(ValueError, match="scorer must be one of available, mean_logprob"):
        PolicySettings("pipeline", scorer="luck")
    with pytest.raises(ValueError, match="scorer must be one of"):
        PipelineSelector("luck")
    assert selector_of(PolicySettings("pipeline", scorer="fewest_tokens")) == PipelineSelector("fewest_tokens")
    assert selector_of(PolicySettings("fixed", selector="majority")).name == "majority"


def test_a_driven_run_clamps_what_the_model_really_wrote() -> None:
    def script(request: GenerateRequest) -> str:
        index = int(request.request_id.split("#")[1].split("/")[0])
        return r"It is \boxed{700000}." if index == 0 else rf"It is \boxed{{{index}}}."

    problems = [Problem("p", "How many?")]
    policy = make_policy(PolicySettings("pipeline", 3, pillars=("reasoning",), scorer="fewest_tokens"))
    session = drive(script, problems=problems, policy=policy)
    (item,) = session.record.problems.values()
    by_id = {one.id: one for one in item.attempts}
    assert by_id["p#0"].failure == "out_of_range" and integer_of(by_id["p#0"], KIND) == 700000
    assert item.selection is not None and item.selection.rule == "pipeline"
    assert sorted(cluster.answer for cluster in item.selection.clusters) == ["1", "2", "99999"]
    again = PipelineSelector("fewest_tokens").select(problems[0], item.attempts)
    assert again == item.selection, "decided again from what was recorded"


def test_order_decides_nothing_but_ties() -> None:
    pool = [attempt(index, str(index), -0.1 * (1 + index)) for index in range(6)]
    for seed in range(5):
        mixed = random.Random(seed).sample(pool, len(pool))
        assert select(*mixed).answer == "0"
