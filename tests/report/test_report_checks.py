"""Checks, rounds, sessions and the standing of an answer, as the report shows them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from checked_run import check, checked_run, evidence
from page_check import complaints, inspect
from sample_run import sample_run
from test_report_page import HOSTILE

from mathlete.core.code import ToolResult
from mathlete.core.selection import Evidence
from mathlete.report import render_report
from mathlete.report.checks import MAX_ANSWERS, render_evidence, render_findings, verdicts_in_short
from mathlete.report.detail import Detail
from mathlete.report.program import render_result
from mathlete.report.summary import summarise_run

PLAIN, TYPESET = Detail(False, 1_000), Detail(True, 1_000)


def test_checks_have_no_vote_and_are_counted_apart() -> None:
    summary = summarise_run(checked_run())
    first, second = summary.problems
    assert (first.num_solutions, first.num_checks, first.votes, first.silent) == (3, 2, {"9": 2, "2": 1}, {})
    assert (second.num_solutions, second.num_checks) == (4, 1)
    assert (summary.num_attempts, summary.num_voting, summary.num_checks) == (7, 7, 3)
    with_checks = sum(attempt.num_tokens for attempt in first.record.attempts)
    assert first.num_tokens == with_checks, "their tokens were sampled all the same"


def test_accepted_and_offered_are_counted() -> None:
    summary = summarise_run(checked_run())
    assert (summary.num_accepted, summary.num_accepted_right, summary.num_offered) == (1, 1, 1)
    plain = summarise_run(sample_run())
    assert (plain.num_accepted, plain.num_offered) == (0, 0) and plain.problems[0].accepted is None


def test_the_page_tells_what_was_checked_and_how_the_answer_stands() -> None:
    text = inspect(render_report(checked_run())).text
    for words in (
        "1 of them right, 1 only offered",
        "judged answers and have no vote",
        "Programs isolated by" + "netns, mountns, seccomp, landlock, rlimits",
        "9 supported ✓, 2 refuted ✗",
        "no verdict",
        "9 fits what the problem asks for sympy_check · 0.4 s",
        "smt_check · 0.4 s · out of time",
        "asked about 9, 2",
        "was shown 18, 26, 32",
        "round 2",
        "Its session had died",
        "in 0.21 s, after waiting 1.25 s for a free worker",
        "2 of 4 attempts gave it",
        "2 of 3",
    ):
        assert words in text, words
    assert "accepted" not in inspect(render_report(sample_run())).text.lower()


def test_checks_stand_apart_from_attempts() -> None:
    page = render_report(checked_run())
    assert re.findall(r'<details class="attempt (\w+)"', page) == [
        *("right", "wrong", "right", "check", "check"),
        *("right", "wrong", "wrong", "right", "check"),
    ]
    headings = [heading for heading in re.findall(r"<h3>([^<]*)", page) if heading.startswith(("Attempts", "Checks"))]
    assert headings == ["Checks", "Attempts ", "Checks of answers ", "Checks", "Attempts ", "Checks of answers "]
    assert complaints(page) == []


def test_what_checks_say_on_each_answer_is_put_together() -> None:
    first, second = summarise_run(checked_run()).problems
    assert inspect(render_findings(first)).text == "Checks9 sympy supported ✓ smt unknown2 sympy refuted ✗"
    assert inspect(render_findings(second)).text == "Checks26 genselect supported ✓"
    assert render_findings(summarise_run(sample_run()).problems[0]) == ""


def test_many_answers_and_much_evidence_are_cut_and_said() -> None:
    many = tuple(evidence(str(n), "REFUTED") for n in range(100))
    problem = summarise_run(checked_run()).problems[0]
    record = replace(problem.record, attempts=(check("math500-3", 0, "smt_check", many),))
    told = inspect(render_findings(replace(problem, record=record))).text
    assert told.count("refuted") == MAX_ANSWERS and told.endswith("and 94 more answers")
    assert "60 more are left out of this page." in inspect(render_evidence(many, PLAIN)).text
    assert verdicts_in_short(many) == "0 refuted ✗, 1 refuted ✗, 2 refuted ✗ and 97 more"


def test_evidence_says_what_it_rests_on() -> None:
    claim = Evidence("lean_check", "the goal holds", "PROVED", elapsed_s=2.0, detail="theorem t : 1 < 2", answer="7")
    text = inspect(render_evidence((claim,), TYPESET)).text
    assert text == "proved ✓ 7: the goal holds lean_check · 2.0 sWhat it rests ontheorem t : 1 < 2"
    assert "What it rests on" not in render_evidence((replace(claim, detail=" "),), PLAIN)
    assert "It left no evidence." in render_evidence((), PLAIN)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_evidence_brings_in_nothing(text: str) -> None:
    run = checked_run()
    record = run.problems["math500-3"]
    hostile = Evidence(text, text, "REFUTED", text, 0.1, text, text)
    attempts = tuple(
        replace(item, evidence=(hostile,) if item.is_check else (), about=(text,), round=2) for item in record.attempts
    )
    changed = replace(run, problems={"math500-3": replace(record, attempts=attempts)}, config={"isolation": [text]})
    assert complaints(render_report(changed)) == []


@pytest.mark.parametrize(("waited_s", "restarted"), [(0.0, False), (0.01, False), (2.0, True)])
def test_waiting_and_restarts_are_told_where_there_were_any(waited_s: float, restarted: bool) -> None:
    result = ToolResult("ok", "7\n", "", 0.5, (), waited_s, restarted)
    text = inspect(render_result(result, 100)).text
    assert ("waiting 2.00 s" in text) == ("fresh one" in text) == restarted
