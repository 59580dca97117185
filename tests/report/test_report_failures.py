"""The sections that say why: why an answer was chosen, how it came to that, and why a problem failed."""

from dataclasses import replace

from page_check import complaints, inspect
from sample_run import attempt, finished_run_without_gold, sample_run, turn

from mathlete.cic.cluster_votes import Cic
from mathlete.cic.triad_selector import TriadSelector
from mathlete.core.record import Moment, ProblemRecord, RunRecord
from mathlete.core.selection import Evidence, Selection
from mathlete.lab.post_mortem import post_mortem
from mathlete.lab.run_habits import habits_of
from mathlete.report import render_report
from mathlete.report.decisions import render_decisions, steps_of
from mathlete.report.post_mortem import render_post_mortem
from mathlete.report.why import render_why


def test_the_page_sorts_failures_by_cause_and_links_each_problem() -> None:
    page = render_report(sample_run())
    inspected = inspect(page)
    assert complaints(page) == []
    assert "2 of 4 problems failed." in inspected.text
    links = [a["href"] for tag, a in inspected.elements if tag == "a"]
    ids = {a.get("id") for _, a in inspected.elements}
    for cause in {problem.cause for problem in post_mortem(sample_run()).problems}:
        assert links.count(f"#cause-{cause}") >= 2 and f"cause-{cause}" in ids
    for words in (
        "What one could do:",
        "How the answers were come by",
        "4 of 6 that ran a program",
        "pool 3 × 571, 2 × 570, 1 × 286",
        "chose 571, right is 570",
        "nobody voted",
    ):
        assert words in inspected.text, words


def test_without_golds_it_says_what_cannot_be_told() -> None:
    text = inspect(render_report(finished_run_without_gold())).text
    assert "Golds are not known, so wrong answers cannot be told." in text


def test_nothing_finished_means_no_section() -> None:
    run = RunRecord({}, {})
    assert render_post_mortem(post_mortem(run), habits=habits_of(run)) == ""


def test_an_outline_says_that_texts_are_elsewhere() -> None:
    run = sample_run()
    bare = {
        key: replace(record, attempts=tuple(replace(item, turns=()) for item in record.attempts))
        for key, record in run.problems.items()
    }
    text = inspect(render_report(replace(run, problems=bare))).text
    assert "What it wrote is not loaded here" in text
    assert "The text of 22 attempts is not loaded here" not in text  # one problem is still open: only 21 were searched
    assert "The text of 21 attempts is not loaded here and was not searched" in text
    assert text.count("Nothing was written.") == 1  # the one unfinished attempt that has no turn yet


def test_the_story_of_a_problem() -> None:
    record = sample_run().problems["gsm8k-test-0"]
    told = [step.words for step in steps_of(record)]
    assert told[0] == "Opened, with 20 s of the clock and room for 8 attempts."
    assert told[1] == "Launched 6 × code."
    assert told[2:5] == [
        "Attempt #0: 18; 18 leads, 1 of 1.",
        "Attempt #1: 26; 2 answers are level at 1.",
        "Attempt #2: 18; 18 leads, 2 of 3.",
    ]
    assert told[-2:] == ["Attempt #5: stopped, vote settled.", "Stopped: leader cannot be caught."]
    assert [step.at_s for step in steps_of(record)] == sorted(step.at_s for step in steps_of(record))


def test_launches_in_a_row_are_told_together_and_checks_with_what_they_found() -> None:
    evidence = (Evidence("sympy", "7 solves it", "SUPPORTED", answer="7"),)
    check = replace(attempt("p", 2, (turn("x"),), None, 1.0), pillar="sympy_check", evidence=evidence)
    record = replace(
        sample_run().problems["gsm8k-test-0"],
        attempts=(check,),
        opened_at_s=1.0,
        moments=(
            Moment(1.0, "problem_opened"),
            Moment(1.0, "decision", None, {"action": "launch", "n": 2, "pillar": "code"}),
            Moment(1.1, "attempt_started", "p#0"),
            Moment(1.2, "decision", None, {"action": "launch", "n": 1, "pillar": "reasoning", "round": 2}),
            Moment(1.3, "decision", None, {"action": "launch", "n": 1, "pillar": "sympy_check", "about": ["7", "8"]}),
            Moment(4.0, "attempt_finished", "p#2"),
            Moment(5.0, "decision", None, {"action": "launch", "n": "?", "pillar": None}),
        ),
    )
    assert [step.words for step in steps_of(record)] == [
        "Opened.",
        "Launched 2 × code, 1 × reasoning of round 2, 1 × sympy check on 7 and 8.",
        "Check #2 (sympy): 7 supported ✓.",
        "Launched 1 × None.",
    ]
    assert complaints(render_decisions(record)) == []


def test_a_record_without_moments_has_no_story() -> None:
    assert render_decisions(ProblemRecord(sample_run().problems["gsm8k-test-0"].problem)) == ""


def test_what_each_learned_feature_adds_is_shown() -> None:
    record = sample_run().problems["cubes-mod-7"]
    selection = TriadSelector().select(record.problem, record.attempts)
    assert any(name.startswith("nats_") for name in selection.terms)
    assert any(name.startswith("next_nats_") for name in selection.terms)
    page = render_why(selection, "all attempts finished")
    text = inspect(page).text
    assert complaints(page) == [] and "What each feature adds" in text and "chance that no answer of the pool" in text
    assert "nats_" not in text and "nats " not in text.replace("nats of utility", "").replace("(nats)", "")


def test_the_terms_of_the_functional_are_named() -> None:
    record = sample_run().problems["cubes-mod-7"]
    text = inspect(render_why(Cic().select(record.problem, record.attempts), None)).text
    for words in ("Φ", "cohesion of the attempts", "H", "disorder of the answers", "C multi", "Φ − λ H + γ C multi"):
        assert words in text, words


def test_a_selection_that_says_nothing_is_shown_as_such() -> None:
    text = inspect(render_why(Selection("5", "majority", 0.5), None)).text
    assert "No reason was recorded." in text and "What each feature adds" not in text


def test_where_others_judged_the_attempts_the_page_says_what_they_said() -> None:
    record = sample_run().problems["gsm8k-test-0"]
    pool = tuple(replace(item, answer=None if item.answer is None else f"{item.answer}/1") for item in record.attempts)
    right = frozenset(item.id for item in pool if item.answer == "18/1")
    selection = replace(record.selection, answer="26/1")  # type: ignore[type-var]
    judged = replace(record, attempts=pool, selection=selection, correct=right)
    page = render_report(RunRecord({}, {"p": judged}))
    assert page.count('class="attempt right"') == 4 and page.count('class="attempt wrong"') == 1
    assert "was in the pool: 4 of 6 attempts gave it." in inspect(page).text
    assert "Selection." in inspect(page).text
