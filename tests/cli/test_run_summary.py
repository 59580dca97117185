"""What a run came to: checks are no attempts, and answers are accepted or offered."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import AnswerCluster, Evidence, Selection
from mathlete.session.summary import show_summary, summary


def attempt(problem_id: str, index: int, answer: str | None, pillar: str = "code") -> Attempt:
    evidence = (Evidence("sympy_check", "it fits", "SUPPORTED", answer="42"),) if pillar != "code" else ()
    return Attempt(
        f"{problem_id}#{index}", problem_id, index, pillar, 1, 0.8, answer, None, (), 100, 1.0, evidence=evidence
    )


def record(problem_id: str, accepted: bool | None, gold: str | None = None) -> ProblemRecord:
    pool = (attempt(problem_id, 0, "42"), attempt(problem_id, 1, "42"), attempt(problem_id, 2, None, "sympy_check"))
    clusters = (AnswerCluster("42", 2.0, (f"{problem_id}#0", f"{problem_id}#1")),)
    selection = Selection("42", "triad", 0.9, clusters, accepted=accepted)
    return ProblemRecord(Problem(problem_id, "How many?"), pool, selection, "sure", gold=gold)


def run_of(*records: ProblemRecord) -> RunRecord:
    return RunRecord({"command": "solve"}, {item.problem.id: item for item in records}, 9.0, "complete")


def shown(run: RunRecord) -> str:
    console = Console(file=io.StringIO(), record=True, width=110)
    show_summary(run, Path("runs/x"), console)
    return console.export_text()


def test_plain_data_tells_checks_apart() -> None:
    first, second = summary(run_of(record("a", True), record("b", False)), Path("runs/x"))["problems"]
    assert (first["num_attempts"], first["num_checks"], first["num_tokens"]) == (2, 1, 300)
    assert (first["accepted"], second["accepted"]) == (True, False)


def test_accepted_and_offered_answers_are_told_and_counted() -> None:
    text = shown(run_of(record("a", True, "42"), record("b", False, "42"), record("c", True, "41")))
    assert "2 accepted (1 of 2 right), 1 offered" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["problem", "answer", "label", "standing", "votes", "attempts", "why", "it", "ended"] in rows
    assert ["a", "42", "42", "accepted", "2", "2", "sure"] in rows and [
        "b",
        "42",
        "42",
        "offered",
        "2",
        "2",
        "sure",
    ] in rows
    assert "1 accepted, 1 offered" in shown(run_of(record("a", True), record("b", False)))


def test_a_rule_that_does_not_ask_is_not_asked() -> None:
    text = shown(run_of(record("a", None)))
    assert "accepted" not in text and "offered" not in text and "standing" not in text
    assert "accepted" not in shown(run_of(replace(record("a", None), selection=None)))
