"""Several runs side by side: figures, flips first, and a page that any text leaves whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from page_check import complaints, inspect
from sample_run import finished_run_without_gold, sample_run

from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.lab.bootstrap import wilson_interval
from mathlete.report.comparison import render_comparison
from mathlete.report.comparison_figures import compare

HOSTILE = "<script>alert(1)</script> \u202e\x00 <img src=x onerror=alert(2)> '\"&lt;"


def with_answer(run: RunRecord, problem_id: str, answer: str) -> RunRecord:
    """The run, had it handed in another answer."""
    record = run.problems[problem_id]
    assert record.selection is not None
    changed = replace(record, selection=replace(record.selection, answer=answer))
    return replace(run, problems={**run.problems, problem_id: changed})


def test_flips_come_first_and_figures_are_those_of_the_lab() -> None:
    run = sample_run()
    other = with_answer(with_answer(run, "math500-3", "8"), "cubes-mod-7", "570")
    compared = compare([("before", run), ("after", other)])
    kinds = [row.kind for row in compared.rows]
    assert kinds == sorted(kinds, key=["flip", "differs", "same"].index) and kinds[0] == "flip"
    flip = next(row for row in compared.rows if row.problem_id == "math500-3")
    assert [cell.verdict for cell in flip.cells] == ["right", "wrong"] and flip.cells[1].in_pool
    before, after = compared.runs
    assert before.accuracy == wilson_interval(before.num_right, before.num_graded)
    (difference,) = compared.differences
    assert difference.scores.num_problems == before.num_graded == 4
    gained, lost = difference.scores.mcnemar.only_second, difference.scores.mcnemar.only_first
    assert gained - lost == after.num_right - before.num_right and lost >= 1
    assert difference.scores.difference.value == pytest.approx((gained - lost) / 4)


def test_a_run_without_golds_borrows_those_of_another() -> None:
    compared = compare([("graded", sample_run()), ("not", finished_run_without_gold())])
    assert compared.runs[1].num_graded == compared.runs[0].num_graded == 4
    assert compared.differences[0].scores.mcnemar.only_first == 0


def test_who_recorded_the_attempts_has_the_last_word() -> None:
    run = sample_run()
    record = run.problems["math500-3"]
    judged = replace(record, gold="\\sqrt{81}", correct=frozenset(item.id for item in record.attempts))
    imported = replace(run, problems={**run.problems, "math500-3": judged})
    compared = compare([("imported", imported), ("live", run)])
    row = next(row for row in compared.rows if row.problem_id == "math500-3")
    assert [cell.verdict for cell in row.cells] == ["right", "right"] and row.kind == "same"


def test_without_any_gold_answers_are_compared_and_nothing_is_called_better() -> None:
    run = finished_run_without_gold()
    compared = compare([("a", run), ("b", with_answer(run, "math500-3", "8"))])
    assert [row.kind for row in compared.rows].count("differs") == 1 and not compared.differences
    page = render_comparison([("a", run), ("b", with_answer(run, "math500-3", "8"))])
    text = inspect(page).text
    assert "have no gold answers" in text and "Right answer" not in text and 'class="lines' not in page


def test_problems_of_one_run_only_and_other_statements_under_an_id() -> None:
    run = sample_run()
    first, second, *_ = run.problems
    problems = {key: record for key, record in run.problems.items() if key != first}
    changed = problems[second]
    problems[second] = replace(changed, problem=replace(changed.problem, statement="Something else?"))
    compared = compare([("a", run), ("b", replace(run, problems=problems))])
    verdicts = {row.problem_id: [cell.verdict for cell in row.cells] for row in compared.rows}
    assert verdicts[first][1] == "absent" and verdicts[second][1] == "absent"
    assert compared.num_mismatched == 1
    assert (
        "1 ids name different problems"
        in inspect(render_comparison([("a", run), ("b", replace(run, problems=problems))])).text
    )


def test_nothing_in_common_and_nothing_done() -> None:
    run = sample_run()
    renamed = {
        f"other-{key}": replace(record, problem=replace(record.problem, id=f"other-{key}"))
        for key, record in run.problems.items()
    }
    empty = replace(run, problems={}, elapsed_s=0.0)
    begun = {key: ProblemRecord(record.problem) for key, record in run.problems.items()}
    for second in (replace(run, problems=renamed), empty, replace(run, problems=begun, elapsed_s=0.0)):
        page = render_comparison([("a", run), ("b", second)])
        assert complaints(page) == [] and "share no graded problem" in page
    assert complaints(render_comparison([("a", empty), ("b", empty)])) == []
    with pytest.raises(ValueError, match="two runs"):
        compare([("a", run)])


def test_runs_without_a_course_are_compared() -> None:
    """As recordings of others: they have labels, and nobody handed anything in."""
    run = sample_run()
    known = {
        key: replace(record, selection=None, stop_reason=None, finished_at_s=None, moments=())
        for key, record in run.problems.items()
    }
    page = render_comparison([("a", replace(run, problems=known)), ("b", replace(run, problems=known))])
    assert complaints(page) == []


def test_the_page_shows_each_run_with_interval_picture_and_links() -> None:
    run = sample_run()
    runs = [("before", run), ("after", with_answer(run, "math500-3", "8"))]
    page = render_comparison(runs, lambda index, number: None if number is None else f"#r{index}-{number}")
    text = inspect(page).text
    assert complaints(page) == []
    assert "before" in text and "after" in text and "[" in text and "B − A" in text
    assert page.count('class="lines prices"') == 2 and 'href="#r1-4"' in page
    assert text.index("math500-3") < text.index("gsm8k-test-0")  # the flip comes first
    assert 'href="#differs-1"' in page and 'id="differs-1"' in page


def test_many_runs() -> None:
    run = sample_run()
    page = render_comparison([(f"run {number}", run) for number in range(9)])
    assert complaints(page) == [] and "Both are right on the same problems." in page and ">I<" in page


def test_hostile_text_leaves_the_page_whole() -> None:
    run = sample_run()
    record = run.problems["math500-3"]
    assert record.selection is not None
    selection = replace(record.selection, answer=HOSTILE, reasons=(HOSTILE,))
    problem = replace(record.problem, id=HOSTILE, statement=f"{HOSTILE} ${HOSTILE}$")
    attempts = tuple(replace(attempt, answer=HOSTILE) for attempt in record.attempts)
    hostile = replace(record, problem=problem, selection=selection, attempts=attempts, gold=HOSTILE)
    bad = replace(run, problems={HOSTILE: hostile}, config={"model": HOSTILE})
    page = render_comparison([(HOSTILE, bad), ("b", replace(bad, problems={HOSTILE: replace(hostile, gold="1")}))])
    assert complaints(page) == [] and "\x00" not in page and "\u202e" not in page
