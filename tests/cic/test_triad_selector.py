"""The learned rule: features of pools, the conditional logit, the shipped weights, and what the rule makes of them."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace

import pytest
from cic_pools import ANSWERS, PROBLEM, attempt, check, pool_of
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.choice_model import ChoiceModel, Weight, load_model, shipped_model
from mathlete.cic.majority import Majority
from mathlete.cic.pool_features import CLASS_FEATURES, OUTSIDE_FEATURES, pool_features
from mathlete.cic.triad_selector import MemberVote, TriadSelector
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.errors import InputError
from mathlete.core.problem import Problem
from mathlete.core.selection import FALLBACK

TRIAD = TriadSelector()


def features_of(attempts: list[Attempt], answer: str, problem: Problem = PROBLEM) -> dict[str, float]:
    (found,) = (group for group in pool_features(problem, attempts).classes if group.answer == answer)
    return dict(found.features)


def model(outside: float = 0.0, **weights: float) -> ChoiceModel:
    return ChoiceModel({name: Weight(value) for name, value in weights.items()}, {"constant": Weight(outside)})


# Features


def test_votes_and_shapes() -> None:
    problem = Problem("p", "What is left of 1{,}234 apples after 7 are eaten?")
    pool = [*pool_of("1234", "1234", "7", "0", "-1", "5/2", None), check(9, "7", "SUPPORTED")]
    features = features_of(pool, "1234", problem)
    assert set(CLASS_FEATURES) == {name for name in features if not name.startswith("member:")}
    assert features["log_votes"] == pytest.approx(math.log(2))
    assert features["vote_share"] == pytest.approx(2 / 6)
    shapes = ("is_zero", "is_one", "in_statement", "not_integer")
    shown = {answer: [features_of(pool, answer, problem)[name] for name in shapes] for answer in ("1234", "0", "-1")}
    assert shown == {"1234": [0, 0, 1, 0], "0": [1, 0, 0, 0], "-1": [0, 1, 0, 0]}
    assert features_of(pool, "5/2", problem)["not_integer"] == 1
    assert features_of(pool, "7", problem)["supported_by_program"] == 1
    outside = pool_features(problem, pool).outside
    assert set(outside) == set(OUTSIDE_FEATURES)
    assert outside["null_share"] == pytest.approx(1 / 7), "the check is no attempt at an answer"
    assert outside["entropy_unknown"] == 1


def test_quantities_are_relative_to_the_pool() -> None:
    pool = [attempt(0, "5", {"mean_entropy": 0.4}), attempt(1, "6", {"mean_entropy": 0.1}), attempt(2, "7")]
    values = [features_of(pool, answer)["entropy"] for answer in ("5", "6", "7")]
    assert values == pytest.approx([math.log(4) / 2, -math.log(4) / 2, 0.0]), "who does not tell is like the mean"
    surer = [replace(a, features={name: 3 * value for name, value in a.features.items()}) for a in pool]
    assert [features_of(surer, answer)["entropy"] for answer in ("5", "6", "7")] == pytest.approx(values)


def test_programs_and_doubts() -> None:
    failed = Turn("x", "1/0", ToolResult("error", "", "ZeroDivisionError", 0.1))
    pool = [
        replace(attempt(0, "5"), turns=(failed, failed, Turn("I am not sure, so I guess 5."))),
        replace(attempt(1, "6", {"tool_calls": 2.0, "tool_errors": 0.0}), turns=(Turn("So it is 6."),)),
    ]
    first, second = features_of(pool, "5"), features_of(pool, "6")
    assert first["tool_calls"] == second["tool_calls"] == 0, "both ran two"
    assert first["tool_errors"] - second["tool_errors"] == pytest.approx(math.log(3))
    assert first["doubts"] - second["doubts"] == pytest.approx(math.log(3))


def test_later_rounds_pillars_and_verdicts() -> None:
    pool = [
        replace(attempt(0, "5"), pillar="reasoning"),
        attempt(1, "5"),
        replace(attempt(2, "5"), round=2, answer_source="stdout"),
        *(check(3 + n, "5", "REFUTED", "genselect_check") for n in range(5)),
        check(9, "5", "PROVED", "lean_check"),
        check(10, "5", "UNKNOWN"),
    ]
    features = features_of(pool, "5")
    assert features["more_pillars"] == 1
    assert features["dependent_share"] == features["not_boxed"] == pytest.approx(1 / 3)
    assert (features["refuted_by_model"], features["proved"]) == (3, 1)
    assert features["supported_by_program"] == features["refuted_by_program"] == 0
    assert (features["member:code"], features["member:reasoning"]) == (2, 1)


# The model


def test_chances_are_a_softmax_with_an_outside_option() -> None:
    pool = pool_features(PROBLEM, pool_of("5", "5", "6"))
    chances = model(outside=math.log(3), log_votes=2.0).probabilities(pool)
    assert chances == pytest.approx((4 / 8, 1 / 8))
    assert model(outside=-1e6, log_votes=1e6).probabilities(pool) == pytest.approx((1, 0)), "no overflow"


def test_a_model_is_read_back() -> None:
    written = ChoiceModel(
        {"log_votes": Weight(1.5, 0.5, 1.0), "member:big": Weight(0.5)}, {"constant": Weight(-1)}, {"a": 1}, {"b": 2}
    )
    assert load_model(written.to_json(), "x.json") == written


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": 2}, "x.json: not a file of weights of format 1"),
        ({"classes": {"charm": {"weight": 1}}}, "there is no feature 'charm'"),
        ({"outside": {"log_votes": {"weight": 1}}}, "there is no feature 'log_votes'"),
        ({"classes": {"log_votes": {"weight": -1}}}, "'log_votes' has the wrong sign"),
        ({"classes": {"proved": {"weight": math.nan}}}, "'proved' is not a finite number"),
        ({"classes": {"proved": {"wait": 1}}}, "'classes' must map features to their weights"),
        ({"classes": None}, "'classes' must map features to their weights"),
    ],
)
def test_a_file_that_is_no_model_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(json.dumps({**json.loads(model().to_json()), **change}), "x.json")
    with pytest.raises(InputError, match="not JSON"):
        load_model("{", "x.json")


# The shipped weights


def test_the_shipped_weights_say_where_they_come_from() -> None:
    shipped = shipped_model()
    assert set(shipped.classes) == set(CLASS_FEATURES) and set(shipped.outside) == set(OUTSIDE_FEATURES)
    files = shipped.training["files"]
    assert files and all(re.fullmatch("[0-9a-f]{64}", item["sha256"]) for item in files)
    assert all(item["problems"] > 0 and item["attempts"] >= item["problems"] for item in files)
    assert {item["name"] for item in files} == set(shipped.held_out["files"])
    curve = shipped.held_out["calibration"]
    assert sum(item["count"] for item in curve["bins"]) == curve["count"]
    assert 0 <= curve["ece"] < 0.1


def test_features_that_no_training_pool_had_are_marked() -> None:
    shipped = shipped_model()
    unseen = {name for name, item in shipped.classes.items() if not item.fitted}
    assert all(shipped.classes[name].scale == 0 for name in unseen)
    assert shipped.classes["log_votes"].fitted


# The rule


def test_without_features_it_is_the_vote() -> None:
    for answers in (("5", "6", "6"), ("5", "6", "7", "7", None), ("12", "13"), ("40",)):
        selection = TRIAD.select(PROBLEM, pool_of(*answers))
        assert selection.answer == Majority().select(PROBLEM, pool_of(*answers)).answer
        assert selection.rule == "triad" and 0 < selection.confidence < 1


def test_more_agreement_is_more_confidence() -> None:
    chances = [TRIAD.select(PROBLEM, pool_of(*["40"] * n, *["41"] * (8 - n))).confidence for n in range(5, 9)]
    assert chances == sorted(chances) and chances[0] < 0.8 < chances[-1]


def test_the_chances_and_that_none_is_right_sum_to_one() -> None:
    selection = TRIAD.select(PROBLEM, pool_of("40", "40", "41", "0", None))
    total = sum(cluster.weight for cluster in selection.clusters) + selection.terms["none_right"]
    assert total == pytest.approx(1)
    assert selection.clusters[0].answer == selection.answer
    assert selection.confidence == selection.clusters[0].weight
    assert "40 is right with probability" in selection.reasons[0]
    assert "Between the two: log votes" in selection.reasons[1]


def test_evidence_decides_a_tie_and_acceptance() -> None:
    pool = pool_of("40", "40", "41", "41")
    assert TRIAD.select(PROBLEM, pool).accepted is False
    backed = TRIAD.select(PROBLEM, [*pool, check(7, "41", "SUPPORTED")])
    assert (backed.answer, backed.accepted) == ("41", True)
    doubted = TRIAD.select(PROBLEM, [*pool, check(7, "40", "REFUTED")])
    assert (doubted.answer, doubted.accepted) == ("41", False)
    assert TRIAD.select(PROBLEM, [*pool, check(7, "41", "UNKNOWN")]).answer == "40", "nothing is known of either"


def test_a_vote_that_knew_of_others_helps_but_less() -> None:
    pool = pool_of("40", "41")
    plain, later = ([*pool, replace(attempt(2, "40"), round=number)] for number in (1, 2))
    alone, twice, shown = (TRIAD.select(PROBLEM, attempts).confidence for attempts in (pool, plain, later))
    assert alone < shown < twice


def test_nothing_to_choose_from() -> None:
    assert TRIAD.select(PROBLEM, pool_of(None, None)).rule == FALLBACK
    assert TRIAD.select(PROBLEM, []).confidence == 0


@given(
    st.lists(st.tuples(st.sampled_from(ANSWERS), st.floats(0.01, 3), st.integers(1, 2)), min_size=1, max_size=9),
    st.integers(0, 8),
)
def test_one_more_attempt_like_it_never_takes_the_choice_away(drawn: list[tuple[str, float, int]], place: int) -> None:
    entropies = {answer: entropy for answer, entropy, _ in drawn}
    pool = [
        replace(attempt(index, answer, {"mean_entropy": entropies[answer]}), pillar=("code", "reasoning")[kind - 1])
        for index, (answer, _, kind) in enumerate(drawn)
    ]
    before = TRIAD.select(PROBLEM, pool)
    model = replace(pool[place % len(pool)], id="p#99", index=99)
    after = TRIAD.select(PROBLEM, [*pool, model])
    share = {cluster.answer: cluster.weight for cluster in after.clusters}
    if model.answer == before.answer:
        assert after.answer == before.answer
    for cluster in before.clusters:  # against every other answer it gains
        if cluster.answer != model.answer:
            was = next(c.weight for c in before.clusters if c.answer == model.answer) / cluster.weight
            assert share[model.answer] / share[cluster.answer] >= was * (1 - 1e-9)


def test_members_have_their_own_weights() -> None:
    pool = [replace(attempt(index, answer), model=name) for index, (answer, name) in enumerate(
        [("5", "weak"), ("5", "weak too"), ("6", "strong"), ("7", "stranger")])]  # fmt: skip
    vote = MemberVote(model(log_votes=0.5, **{"member:weak": 0.1, "member:strong": 2.0}))
    selection = vote.select(PROBLEM, pool)
    assert (selection.answer, selection.rule) == ("6", "member_vote")
    assert Majority().select(PROBLEM, pool).answer == "5"


def test_a_choice_is_made_at_once() -> None:
    pool = [
        replace(attempt(n, str(n % 3), {"mean_entropy": 0.5}), turns=(Turn("Perhaps it is so. " * 100),))
        for n in range(8)
    ]
    begun = time.process_time()
    for _ in range(50):
        TRIAD.select(PROBLEM, pool)
    assert (time.process_time() - begun) / 50 < 0.05
