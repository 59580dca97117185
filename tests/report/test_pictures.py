import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from page_check import complaints
from sample_run import attempt, sample_run, turn

from mathlete.core.attempt import Attempt
from mathlete.core.selection import Selection
from mathlete.report.confidence import MAX_POINTS, curve_of, draw_curve, shared_ceiling
from mathlete.report.summary import ProblemSummary, summarise_problem, summarise_run
from mathlete.report.timeline import assign_lanes, draw_timeline, format_s
from mathlete.report.vote import MAX_ANSWERS, draw_vote, vote_bars


def pool_of(answers: list[str | None], chosen: str, gold: str | None) -> ProblemSummary:
    """A finished problem whose attempts gave `answers`."""
    attempts: list[Attempt] = [
        attempt("p", i, (turn("x"),), answer, 1.0, failure=None if answer else "length")
        for i, answer in enumerate(answers)
    ]
    record = replace(
        sample_run().problems["gsm8k-test-0"],
        attempts=tuple(attempts),
        selection=Selection(chosen, "majority", 0.5),
        gold=gold,
    )
    return summarise_problem(1, record, 10.0)


def test_bars_say_what_was_chosen_and_what_is_right() -> None:
    bars = vote_bars(summarise_run(sample_run()).problems[1])
    assert [(b.label, b.votes, b.kind, b.note) for b in bars] == [
        ("571", 3, "chosen", "chosen, wrong ✗"),
        ("570", 2, "other", "right answer ✓"),
        ("286", 1, "other", ""),
        ("no answer", 2, "silent", ""),
    ]


def test_a_right_answer_without_votes_has_a_row() -> None:
    bars = vote_bars(pool_of(["1", "1"], "1", "2"))
    assert [(b.label, b.votes) for b in bars] == [("1", 2), ("2", 0)]


def test_many_answers_are_summed_up_but_chosen_and_gold_are_kept() -> None:
    bars = vote_bars(pool_of([str(n) for n in range(40)], "38", "39"))
    assert len(bars) == MAX_ANSWERS + 3
    assert {"38", "39"} < {b.label for b in bars}
    assert sum(b.votes for b in bars) == 40


def test_a_fallback_is_no_bar() -> None:
    problem = summarise_run(sample_run()).problems[2]
    assert [(b.label, b.votes) for b in vote_bars(problem)] == [("65", 0), ("no answer", 3)]


def test_the_vote_is_drawn_to_scale_and_told_in_words() -> None:
    drawn = ElementTree.fromstring(draw_vote(pool_of(["1", "1", "1", "1", "2", None], "1", "1")))
    widths = [int(rect.attrib["width"]) for rect in drawn.iter("rect")]
    assert widths[0] == pytest.approx(4 * widths[1], abs=3) and widths[1] == widths[2]
    assert drawn.attrib["aria-label"] == "Votes per answer. 1: 4 · chosen, right ✓; 2: 1; no answer: 1"


def test_a_hostile_answer_in_the_vote_is_text() -> None:
    hostile = '"><script>alert(1)</script>' + "9" * 10_000
    drawn = draw_vote(pool_of([hostile, "1"], hostile, None))
    assert complaints(drawn) == []
    assert not draw_vote(pool_of([], "1", None))


def test_a_curve_keeps_its_mean_when_it_is_thinned_out() -> None:
    values = [float(i % 7) for i in range(12 * MAX_POINTS)]
    curve = curve_of([values[:100], values[100:]])
    assert curve is not None and len(curve.points) == MAX_POINTS
    assert sum(curve.points) / MAX_POINTS == pytest.approx(sum(values) / len(values)) == pytest.approx(curve.mean)
    assert curve.highest == 6.0 and curve.boundaries == (100 / len(values),)


def test_a_curve_survives_bad_numbers() -> None:
    curve = curve_of([[math.nan, 1.0, math.inf, -0.5], []])
    assert curve is not None and curve.points == (1.0, 0.0) and curve.boundaries == ()
    assert curve_of([]) is None and curve_of([(), (math.nan,)]) is None


def test_curves_share_a_ceiling_and_are_told_in_words() -> None:
    low, high = curve_of([[0.1, 0.1]]), curve_of([[2.0, 1.0]])
    assert low is not None and high is not None
    assert shared_ceiling([]) == shared_ceiling([low]) == 0.5 and shared_ceiling([low, high]) == 2.0
    drawn = ElementTree.fromstring(draw_curve(high, 2.0, "spark"))
    assert drawn.find("path").attrib["d"] == "M0 100V0h1V50h1V100z"  # type: ignore[union-attr]
    assert drawn.attrib["aria-label"] == "Entropy along 2 tokens: mean 1.50, highest 2.00 nats"


def test_problems_open_at_the_same_time_get_lanes() -> None:
    assert assign_lanes([(0, 5), (1, 3), (3, 4), (5, 6), (5, 7)]) == (0, 1, 1, 0, 1)


def test_the_timeline_links_every_opened_problem() -> None:
    run = sample_run()
    drawn = ElementTree.fromstring(draw_timeline(summarise_run(run).problems, run.elapsed_s, 120.0))
    links = [link.attrib["href"] for link in drawn.iter("a")]
    assert links == [f"#problem-{number}" for number in (1, 2, 3, 4, 5)]
    assert not draw_timeline([], 0.0, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (59.7, "1 min 00 s"), (61, "1 min 01 s"), (3_725, "1 h 02 min")],
)
def test_seconds_for_a_person(seconds: float, text: str) -> None:
    assert format_s(seconds) == text
