import re
from dataclasses import replace

import pytest
from page_check import complaints, inspect
from sample_run import finished_run_without_gold, large_run, sample_run

from mathlete.core.record import RunRecord
from mathlete.lab.at_k import majority_score
from mathlete.report.chart import Axis, Line, draw_lines, round_ticks, show_count, show_time, time_ticks
from mathlete.report.course import at_k, course_of, thin_out
from mathlete.report.course_section import render_course
from mathlete.report.summary import summarise_run


def test_the_course_ends_where_the_summary_stands() -> None:
    run = sample_run()
    course, summary = course_of(run), summarise_run(run)
    assert course is not None and course.graded and course.num_problems == 4
    last = course.standings[-1]
    assert last.right == summary.num_right / summary.num_graded == 0.5
    assert last.pool == summary.num_in_pool / summary.num_graded == 0.75
    assert last.at_s == 66.5
    finished = sum(item.num_tokens for record in run.problems.values() for item in record.attempts if record.moments)
    assert last.num_tokens == finished


def test_the_course_by_hand() -> None:
    record = sample_run().problems["gsm8k-test-0"]  # answers 18, 26, 18, 18, 18, none, from 0.4 s to 9.6 s
    course = course_of(RunRecord({}, {record.problem.id: record}))
    assert course is not None
    assert [item.vote for item in course.standings] == [0, 1, 0.5, 1, 1, 1, 1, 1]
    assert [item.pool for item in course.standings] == [0, *[1] * 7]
    assert [item.right for item in course.standings] == [*[0] * 7, 1]
    tokens = [item.num_tokens for item in course.standings]
    assert tokens[0] == 0 and tokens[1] == record.attempts[0].num_tokens and tokens == sorted(tokens)


def test_without_golds_the_course_tells_of_answers() -> None:
    course = course_of(finished_run_without_gold())
    assert course is not None and not course.graded and course.standings[-1].right == 1.0
    text = inspect(render_course(finished_run_without_gold())).text
    assert "Answers and their price" in text and "right" not in text


def test_a_run_whose_trace_tells_no_times_has_no_course() -> None:
    run = sample_run()
    bare = {key: replace(record, moments=(), finished_at_s=None) for key, record in run.problems.items()}
    assert course_of(replace(run, problems=bare)) is None
    assert render_course(RunRecord({}, {})) == ""


def test_figures_at_k() -> None:
    run = sample_run()
    figures = at_k(run)
    assert [item.k for item in figures] == list(range(1, 9))
    assert figures[0].any_right.value == pytest.approx(figures[0].vote.value)
    assert figures[-1].any_right.value == 0.75
    assert all(a.any_right.value <= b.any_right.value for a, b in zip(figures[:-1], figures[1:], strict=True))
    assert all(item.vote.low <= item.vote.value <= item.vote.high for item in figures)
    ducks = [item.answer for item in run.problems["gsm8k-test-0"].attempts[:5]]  # the sixth was stopped
    one = at_k(replace(run, problems={"gsm8k-test-0": run.problems["gsm8k-test-0"]}))
    assert one[-1].k == 5 and one[-1].vote.value == majority_score(ducks, [answer == "18" for answer in ducks])
    assert at_k(finished_run_without_gold()) == ()


def test_the_section_shows_pictures_and_the_same_as_tables() -> None:
    page = render_course(sample_run())
    assert complaints(page) == []
    inspected = inspect(page)
    assert sum(tag == "svg" for tag, _ in inspected.elements) == 3
    assert sum(tag == "table" for tag, _ in inspected.elements) == 2
    assert all(a["aria-label"] for tag, a in inspected.elements if tag == "svg")
    for words in ("Handed in", "majority@k", "pass@k", "50.0%", "75.0%", "95 % intervals", "fewer than 8 attempts"):
        assert words in inspected.text, words


def test_pictures_of_a_large_run_stay_small() -> None:
    assert len(render_course(large_run(100, 64, 50))) < 60_000


def test_thinning_keeps_the_ends() -> None:
    course = course_of(large_run(10, 8, 50))
    assert course is not None
    thinned = thin_out(course.standings, 7)
    assert len(thinned) == 7 and thinned[0] == course.standings[0] and thinned[-1] == course.standings[-1]
    assert thin_out(thinned, 7) == thinned


def test_lines_stay_inside_the_picture_and_names_apart() -> None:
    lines = [
        Line("handed in", "first", ((0.0, 0.0), (50.0, 0.5), (100.0, 0.62)), steps=True),
        Line("vote", "second", ((0.0, 0.1), (100.0, 0.61)), band=((0.0, 0.2), (0.5, 0.7))),
    ]
    picture = draw_lines(lines, Axis(0.0, 100.0, (0.0, 50.0, 100.0), show_count), "Shares.")
    assert complaints(picture) == []
    assert "handed in 62%" in picture and "Shares. At the end: handed in 62%; vote 61%." in picture
    _, _, width, height = map(float, re.search(r'viewBox="([^"]*)"', picture)[1].split())  # type: ignore[index]
    for path in re.findall(r' d="([^"]*)"', picture):
        assert all(-1 <= float(number) <= max(width, height) for number in re.findall(r"-?[\d.]+", path))
    names = [float(y) for y in re.findall(r'y="([\d.]+)" class="name', picture)]
    assert abs(names[0] - names[1]) >= 14
    assert draw_lines([Line("none", "first", ())], Axis(0.0, 1.0, (0.0,), show_count), "") == ""


@pytest.mark.parametrize(
    ("most", "ticks"),
    [(100, (0, 25, 50, 75, 100)), (457_214, (0, 200_000, 400_000)), (7, (0, 2, 4, 6)), (0, (0,)), (3, (0, 1, 2, 3))],
)
def test_ticks_are_round_and_within(most: float, ticks: tuple[float, ...]) -> None:
    assert round_ticks(most) == pytest.approx(ticks)


def test_moments_are_round_on_a_clock() -> None:
    assert [show_time(tick) for tick in time_ticks(2_632)] == ["0 s", "20 min", "40 min"]
    assert [show_time(tick) for tick in time_ticks(66.5)] == ["0 s", "20 s", "40 s", "1 min"]
    assert [show_time(tick) for tick in time_ticks(18_000)] == ["0 s", "2 h", "4 h"]
    assert [show_count(number) for number in (800, 2_500, 1_500_000)] == ["800", "2.5k", "1.5M"]
