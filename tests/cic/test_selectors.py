"""Every selector: by hand where its formula can be, and what all of them promise."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest
from cic_pools import PROBLEM, REAL_PROBLEM, attempt, check, featured, pool_of, pools, told
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.deepconf import FEATURES, DeepConf, percentile
from mathlete.cic.majority import FALLBACK, tally, votes_of
from mathlete.cic.ncd import cohesion, trace_of
from mathlete.cic.registry import SELECTORS, make_selector
from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.core.problem import Problem

PUBLISHED = tuple(name for name in SELECTORS if name != "triad")  # it has a test of its own
SAME = "Let the sides be a and b. Then a + b = 12 and ab = 35, so the sides are 5 and 7."


def chosen(name: str, pool: list[Attempt], problem: Problem = PROBLEM) -> str:
    return make_selector(name).select(problem, pool).answer


def scores(name: str, pool: list[Attempt]) -> dict[str, float]:
    return {c.answer: c.weight for c in make_selector(name).select(PROBLEM, pool).clusters}


# What all of them promise.


@given(pool=pools, real=st.booleans())
def test_any_pool_gets_an_answer_that_somebody_gave(pool: list[Attempt], real: bool) -> None:
    for name in PUBLISHED:
        keeps_its_promises(name, REAL_PROBLEM if real else PROBLEM, pool)


def keeps_its_promises(name: str, problem: Problem, pool: list[Attempt]) -> None:
    selection = make_selector(name).select(problem, pool)
    assert selection == make_selector(name).select(problem, pool), "pure"
    given_answers = Counter(vote.answer for vote in votes_of(pool))
    assert 0 <= selection.confidence <= 1
    assert selection.reasons
    if selection.rule == FALLBACK:
        assert selection.answer == "0" and (not given_answers or name == "majority_null")
        return
    assert selection.rule == name
    if name != "cic_refined":
        assert selection.answer in given_answers
        assert selection.clusters[0].answer == selection.answer
    assert {c.answer: len(c.attempt_ids) for c in selection.clusters} == given_answers
    assert all(math.isfinite(c.weight) for c in selection.clusters)
    assert all(math.isfinite(term) for term in selection.terms.values())


@given(pool=pools, noise=st.randoms(use_true_random=False))
def test_the_order_of_the_pool_decides_nothing_but_exact_ties(pool: list[Attempt], noise: random.Random) -> None:
    shuffled = noise.sample(pool, len(pool))
    known = {t.answer: (t.votes, t.certainty) for t in tally(pool)}
    for name in PUBLISHED:
        first, second = (make_selector(name).select(PROBLEM, order) for order in (pool, shuffled))
        weights = {c.answer: c.weight for c in first.clusters}
        assert weights == {c.answer: c.weight for c in second.clusters}, name
        if first.answer != second.answer and name != "cic_refined":
            assert weights[first.answer] == weights[second.answer], name
            assert known[first.answer] == known[second.answer], name


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_unanimous_pool_has_one_answer(name: str) -> None:
    assert chosen(name, pool_of("42", "42", None, "42", "42")) == "42"
    selection = make_selector(name).select(PROBLEM, told(*[("42", SAME)] * 3))
    assert (selection.answer, selection.rule) == ("42", name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_pitfall_empty_and_all_null_pools_fall_back(name: str) -> None:
    for pool in ([], pool_of(None, None), [check(0, "5", "SUPPORTED")]):
        selection = make_selector(name).select(Problem("p", "?"), pool)
        assert (selection.answer, selection.rule, selection.confidence) == ("0", FALLBACK, 0.0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_pitfall_checks_never_vote(name: str) -> None:
    stray = Attempt("p#9", "p", 9, "sympy_check", 1, 0.8, "7", None, (), 1, 1.0)
    pool = [*pool_of("5", "5", "5"), stray, stray, stray, stray]
    assert chosen(name, pool) == "5"


@pytest.mark.parametrize("name", PUBLISHED)
def test_pitfall_huge_integers_nan_and_infinite_features(name: str) -> None:
    huge = str(10**40)
    broken = {feature: math.nan for feature in ("mean_entropy", "tail_confidence", "prm_last", "top5_entropy_bits")}
    infinite = {feature: math.inf for feature in broken}
    enormous = {feature: 1.7e308 for feature in broken}
    pool = [attempt(0, huge, broken), attempt(1, huge, infinite), attempt(2, huge, enormous), attempt(3, "-1", broken)]
    assert chosen(name, pool) == huge


def test_an_unknown_name_is_refused_with_the_list() -> None:
    with pytest.raises(InputError, match=r"no selector 'best'.*majority, .*aimo3_entropy.*cic_cluster_mode"):
        make_selector("best")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_registry_and_the_selector_agree_on_the_name(name: str) -> None:
    assert make_selector(name).name == name


def test_the_document_tells_of_every_rule() -> None:
    document = (Path(__file__).parents[2] / "docs" / "selection.md").read_text("utf-8")
    assert [name for name in SELECTORS if f"`{name}`" not in document] == []


# Majority with other tie-breaks, and null as a party.


def test_a_tie_goes_to_the_larger() -> None:
    assert chosen("majority_larger", pool_of("5", "90", "5", "90", "7")) == "90"
    assert chosen("majority_larger", pool_of("9", "10", "none")) == "10"
    assert chosen("majority_larger", pool_of("1/2", "0.7", "0.6", "0.6")) == "0.6"
    assert chosen("majority", pool_of("5", "90", "5", "90", "7")) == "5"


def test_a_tie_at_random_is_fair_and_repeatable() -> None:
    drawn = Counter(
        chosen("majority_random", pool_of("1", "2", "3", "3", "1"), Problem(f"p{k}", "?")) for k in range(300)
    )
    assert set(drawn) == {"1", "3"} and min(drawn.values()) > 110
    for k in range(20):
        problem = Problem(f"p{k}", "?")
        one, two = (chosen("majority_random", pool_of(*order), problem) for order in (("1", "3"), ("3", "1")))
        assert one == two, "the order of the pool does not decide"


def test_null_as_a_party_wins_only_with_more_votes() -> None:
    selection = make_selector("majority_null").select(PROBLEM, pool_of("5", None, None))
    assert (selection.answer, selection.rule) == ("0", FALLBACK)
    assert "2 attempts had no answer and 1 gave 5" in selection.reasons[0]
    assert chosen("majority_null", pool_of("5", None, "5", None)) == "5"
    assert chosen("majority", pool_of("5", None, None)) == "5"


# Entropy.


def test_inverse_entropy_outweighs_the_majority() -> None:
    pool = featured("top5_entropy_bits", ("5", 1.0), ("5", 1.0), ("8", 0.25))
    assert scores("aimo3_entropy", pool) == {"8": 4.0, "5": 2.0}
    assert chosen("aimo3_entropy", pool) == "8"


def test_entropy_in_nats_is_taken_as_bits_and_none_as_a_plain_vote() -> None:
    nats = featured("mean_entropy", ("5", math.log(2)), ("8", 2 * math.log(2)))
    assert scores("aimo3_entropy", nats) == pytest.approx({"5": 1.0, "8": 0.5})
    assert scores("aimo3_entropy", featured("mean_entropy", ("5", None), ("5", math.nan))) == {"5": 2.0}
    assert scores("aimo3_entropy", featured("top5_entropy_bits", ("5", 0.0))) == pytest.approx({"5": 1e9})


def test_second_place_by_hand() -> None:
    pool = featured("tail_top5_entropy_bits", ("5", 1.0), ("5", 0.5), ("5", 0.25), ("8", 0.1), ("9", None))
    found = scores("aimo3_second", pool)
    assert found["5"] == pytest.approx(2.0 * 3 / 5 + 0.3 / 0.5 + 0.5)
    assert found["8"] == pytest.approx(2.0 / 5 + 0.3 / 0.1)
    assert found["9"] == pytest.approx(2.0 / 5 + 0.3 / 0.375), "the median of all four that told"
    assert chosen("aimo3_second", pool) == "8", "a single sure attempt beats three"
    assert scores("aimo3_second", pool_of("5", "8")) == {"5": 1.0, "8": 1.0}, "half is no majority"


# The answer's own size.


def test_huikang_by_hand() -> None:
    assert scores("huikang", pool_of("1", "1", "1", "500", "-500", "one")) == pytest.approx(
        {"1": 3 * math.log(2.25), "500": math.log(501.25), "-500": math.log(501.25), "one": math.log(1.25)}
    )
    assert chosen("huikang", pool_of("1", "1", "1", "500")) == "500"
    assert chosen("huikang", pool_of("-7", "7")) == "7", "a tie goes to the larger"
    assert scores("huikang", pool_of("9" * 900))["9" * 900] == pytest.approx(900 * math.log(10))


def test_imagination_research_by_hand() -> None:
    pool = pool_of("20", "20", "21", "300", "-4", "x")
    assert scores("imagination_research", pool) == {"20": 1.2, "21": 1.0, "300": 0.6, "-4": 0.6, "x": 0.6}
    assert chosen("imagination_research", pool_of("1", "1", "3", "55", "34")) == "1"
    assert chosen("imagination_research", pool_of("34", "55")) == "55", "a tie goes to the larger"


# DeepConf and step scores.


def test_the_most_confident_tenth_votes() -> None:
    pairs = [("5", 1.0)] * 15 + [("8", 2.0), ("8", 2.5), ("9", 4.0), ("5", 1.5), ("5", 1.2)]
    pool = featured("tail_confidence", *pairs)
    selection = make_selector("deepconf_tail").select(PROBLEM, pool)
    assert selection.terms["threshold"] == pytest.approx(2.05), "between the 18th and the 19th of 20"
    assert {c.answer: c.weight for c in selection.clusters} == {"9": 4.0, "8": 2.5, "5": 0.0}
    everyone = DeepConf("deepconf_tail", keep=1.0).select(PROBLEM, pool)
    assert everyone.answer == "5" and everyone.clusters[0].weight == pytest.approx(17.7)


def test_attempts_without_an_answer_do_not_set_the_threshold() -> None:
    pool = featured("mean_confidence", (None, 9.0), ("5", 3.0), ("8", 1.0), ("8", 1.0))
    assert chosen("deepconf_mean", pool) == "5"


@pytest.mark.parametrize(("name", "feature"), FEATURES.items())
def test_each_confidence_is_read_and_missing_ones_make_a_plain_vote(name: str, feature: str) -> None:
    assert chosen(name, featured(feature, ("5", 1.0), ("5", None), ("8", 2.0))) == "8"
    selection = make_selector(name).select(PROBLEM, pool_of("5", "8", "8"))
    assert selection.answer == "8" and "plain vote" in selection.reasons[1]


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [([1, 2, 3, 4], 0.5, 2.5), ([1], 0.9, 1), ([3, 1], 1.0, 3), ([3, 1], 0.0, 1), ([0, 10], 0.9, 9)],
)
def test_percentiles_are_linear_between_ranks(values: list[float], part: float, expected: float) -> None:
    assert percentile(values, part) == pytest.approx(expected)


@pytest.mark.parametrize(("field", "value"), [("name", "deepconf"), ("keep", 0.0)])
def test_a_deepconf_setting_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        DeepConf(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["prm_last", "prm_min", "prm_prod", "prm_mean"])
def test_step_scores_are_summed_for_each_answer(name: str) -> None:
    pool = featured(name, ("5", 0.2), ("5", 0.3), ("8", 0.75), ("9", None), ("9", -4.0))
    assert scores(name, pool) == {"8": 0.75, "5": 0.5, "9": 0.0}
    assert chosen(name, pool_of("5", "9", "9")) == "9", "without scores, the plain vote"


# Evidence.


def test_verified_vote_by_hand() -> None:
    pool = [*pool_of("5", "5", "5", "8", "8", "9", "4"), check(10, "8", "SUPPORTED"), check(11, "5", "REFUTED")]
    assert scores("verified_vote", pool) == {"8": 6.0, "5": 3.0, "9": 1.0, "4": 1.0}
    half = [*pool, check(12, "8", "REFUTED"), check(13, "8", "UNKNOWN")]
    assert scores("verified_vote", half)["8"] == pytest.approx(2 * (1 + 2 * 0.5)), "UNKNOWN counts neither way"


def test_only_the_top_three_are_verified_and_a_pick_is_no_check() -> None:
    pool = [
        *pool_of("1", "1", "2", "2", "3", "3", "4"),
        check(10, "4", "PROVED"),
        check(11, "3", "SUPPORTED", "genselect_check"),
    ]
    assert scores("verified_vote", pool) == {"1": 2.0, "2": 2.0, "3": 2.0, "4": 1.0}


def test_genselect_takes_the_pick() -> None:
    picks = [check(10 + k, answer, "SUPPORTED", "genselect_check") for k, answer in enumerate(["8", "8", "5"])]
    assert chosen("genselect", [*pool_of("5", "5", "5", "8"), *picks]) == "8"
    refused = [
        check(10, "8", "REFUTED", "genselect_check"),
        check(11, "8", "SUPPORTED"),
        check(12, "77", "SUPPORTED", "genselect_check"),
    ]
    selection = make_selector("genselect").select(PROBLEM, [*pool_of("5", "5", "8"), *refused])
    assert "No pick could be read" in selection.reasons[1]


def test_genselect_without_a_pick_draws_a_solution() -> None:
    pool = pool_of("5", "5", "5", "8")
    drawn = Counter(chosen("genselect", pool, Problem(f"p{k}", "?")) for k in range(400))
    assert set(drawn) == {"5", "8"} and 250 < drawn["5"] < 350, "solutions are drawn, not answers"


# Clusters.


def test_pitfall_the_middle_of_a_basin_turns_right_integers_wrong() -> None:
    """Half of the votes are right; refinement hands in a number that nobody gave."""
    pool = pool_of("1000", "1000", "1000", "1000", "1013", "1019", "1031", "1037")
    assert chosen("majority", pool) == "1000"
    assert chosen("cic_cluster_mode", pool) == "1000"
    assert chosen("cic", pool) == "1000"
    refined = chosen("cic_refined", pool)
    assert refined == "1007" and refined not in {a.answer for a in pool}
    assert chosen("proximity_vote", pool) == "1013", "the upper of the two middle members"


def test_refinement_of_integers_cuts_towards_zero_and_of_reals_is_exact() -> None:
    assert chosen("cic_refined", pool_of("100", "101")) == "100"
    assert chosen("cic_refined", pool_of("-100", "-101")) == "-100"
    assert chosen("cic_refined", pool_of("100", "101"), REAL_PROBLEM) == "201/2"
    assert chosen("cic_refined", pool_of("2.5", "2.5"), REAL_PROBLEM) == "5/2"
    assert chosen("cic_refined", pool_of("no", "no", "3"), REAL_PROBLEM) == "no"


def test_the_mode_of_the_best_cluster_may_beat_the_majority() -> None:
    pool = pool_of("7", "7", "7", "1000", "1000", "1003", "1004")
    assert chosen("majority", pool) == "7"
    assert chosen("cic_cluster_mode", pool) == "1000"
    assert scores("cic_cluster_mode", pool)["7"] == 3.0


def test_cic_by_hand() -> None:
    near, far = SAME, "Count the lattice paths by reflection: C(8, 4) - C(8, 3) = 14."
    pool = told(("35", near), ("35", near + " So 35."), ("14", far), ("14", "Guess."), ("14", "Perhaps 14?"))
    found = scores("cic", pool)
    phi = cohesion([trace_of(a) for a in pool[:2]])
    assert phi is not None
    assert found["35"] == pytest.approx(phi + 0.3)
    assert chosen("cic", pool) == "35", "two alike beat three unlike"
    selection = make_selector("cic").select(PROBLEM, pool)
    assert {"phi", "entropy", "coherence", "f"} <= set(selection.terms)
    assert selection.confidence == pytest.approx(0.5 + selection.terms["f"] / 2)


def test_cic_without_texts_goes_by_the_answers() -> None:
    selection = make_selector("cic").select(PROBLEM, pool_of("4", "4", "9"))
    assert selection.answer == "4" and "phi" not in selection.terms
    assert "no traces for Phi" in selection.reasons[1]
    assert scores("cic", pool_of("4", "4", "9")) == pytest.approx({"4": 0.3, "9": 0.3 * 0.7})


def test_nu_by_hand() -> None:
    found = scores("nu_vote", pool_of("4", "4", "4", "900"))
    nu = math.hypot(0.7632, 0.25) / math.sqrt(2)
    assert found == pytest.approx({"4": 0.75 * (1 - nu), "900": 0.25 * (1 - nu)})
    selection = make_selector("nu_vote").select(PROBLEM, pool_of("4", "4", "4", "900"))
    assert selection.terms["nu"] == pytest.approx(math.hypot(1 - 0.7632, 0.25) / math.sqrt(2))


def test_ncd_vote_by_hand() -> None:
    pool = told(("35", SAME), ("35", SAME), ("14", "By reflection, 14."), ("14", "Guess."), ("9", "Nine."))
    phi_same, phi_far = (cohesion([trace_of(a) for a in pool[k : k + 2]]) for k in (0, 2))
    assert phi_same is not None and phi_far is not None
    assert scores("ncd_vote", pool) == pytest.approx({"35": 2 * (1 + phi_same), "14": 2 * (1 + phi_far), "9": 1.5})
    assert scores("ncd_vote", pool_of("1000", "1009", "0", "0.001")) == {"1000": 2, "1009": 2, "0": 2, "0.001": 2}
    assert scores("ncd_vote", pool_of("1000", "1011")) == {"1000": 1, "1011": 1}
