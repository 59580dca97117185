"""Recorded attempts, read back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import Evidence
from mathlete.lab.export import write_attempts
from mathlete.lab.metrics import majority_score
from mathlete.lab.recorded import RecordedProblem, read_recorded
from mathlete.lab.run_folder import RunFolder


def row(**fields: Any) -> dict[str, Any]:
    return {"problem_id": "p", "problem": "How many?", "gold": "42", "attempts": [{"answer": "42"}], **fields}


def write(path: Path, *rows: object) -> Path:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read_one(tmp_path: Path, **fields: Any) -> RecordedProblem:
    (problem,) = read_recorded(write(tmp_path / "few.jsonl", row(**fields)))
    return problem


@pytest.mark.parametrize("name", ["few.jsonl", "few.jsonl.gz"])
def test_the_least_that_a_row_can_say(tmp_path: Path, name: str) -> None:
    kind = AnswerKind(low=0, high=9)
    (problem,) = read_recorded(write(tmp_path / name, row(), ""), kind)
    attempt = Attempt("p#0", "p", 0, "reasoning", 0, 0, "42", None, (), 0, 0)
    assert problem == RecordedProblem(Problem("p", "How many?", kind, source="few"), "42", "p", (attempt,), (True,))


def test_everything_a_row_can_say(tmp_path: Path) -> None:
    entry = {
        "answer": " 18.0 ", "correct": True, "tokens": 90, "seconds": 7.5, "model": "big", "text": "So 18.", "round": 2,
        "features": {"mean_entropy": 0.25, "finished": True, "tail_entropy": None, "tool_calls": 3}, "discarded": 4,
        "about": ["18"], "failure": "out_of_time", "answer_source": "boxed", "seed": 5, "temperature": 0.8,
    }  # fmt: skip
    problem = read_one(tmp_path, gold="18", group="base", attempts=[entry, {**entry, "pillar": "beam"}])
    first, second = problem.attempts
    assert first == Attempt(
        "p#0", "p", 0, "code", 5, 0.8, "18.0", "boxed", (Turn("So 18.", num_tokens=90),), 90, 7.5,
        {"mean_entropy": 0.25, "finished": 1.0, "tool_calls": 3.0}, "out_of_time", None, 4, 2, ("18",), (), "big",
    )  # fmt: skip
    assert (second.index, second.pillar) == (1, "beam")
    assert problem.correct == (True, True), "the file's word, although the texts differ"
    assert problem.group == "base"


@pytest.mark.parametrize("answer, right", [("42", True), ("042", True), ("24", False), (None, False), (" ", False)])
def test_without_a_label_answers_are_compared_with_the_gold(tmp_path: Path, answer: str | None, right: bool) -> None:
    problem = read_one(tmp_path, attempts=[{"answer": answer}])
    assert problem.correct == (right,)
    (attempt,) = problem.attempts
    assert (attempt.answer is None) == (attempt.failure == "no_answer") == ((answer or "").strip() == "")


def test_the_last_output_and_the_last_part_of_the_text_are_turns(tmp_path: Path) -> None:
    problem = read_one(tmp_path, attempts=[{"answer": "42", "tail": "So 42", "last_tool_output": "42\n"}])
    assert problem.attempts[0].turns == (Turn("", tool_text="42\n"), Turn("So 42"))


def test_what_a_run_exports_is_read_back(tmp_path: Path) -> None:
    ran = Turn("```python\nprint(6*7)\n```", "print(6*7)", ToolResult("error", "", "no", 0.1), "\nno\n")
    evidence = Evidence("sympy_check", "42 solves it", "SUPPORTED", elapsed_s=1.5, detail="print(True)", answer="42")
    solved = Attempt("p#0", "p", 0, "code", 1, 0.8, "42", "stdout", (ran, Turn("So 42.")), 12, 2.5, {"x": 0.5}, round=2)
    check = Attempt("p#1", "p", 1, "sympy_check", 1, 0.8, None, None, (), 8, 1.0, about=("42",), evidence=(evidence,))
    problem = Problem("p", "How many?")
    record = ProblemRecord(problem, gold="42", group="base", attempts=(solved, check))
    folder = RunFolder.create(tmp_path, "run")
    write_attempts(RunRecord(config={"model": "small"}, problems={"p": record}), folder)
    (read,) = read_recorded(folder.attempts_jsonl)
    (first,), (second,) = read.attempts, read.checks
    text = "```python\nprint(6*7)\n```\nno\nSo 42."
    assert first.turns == (Turn(text, num_tokens=12),)
    assert first.features == {"x": 0.5, "tool_calls": 1, "tool_errors": 1}
    assert (first.pillar, first.round, first.answer_source, first.model) == ("code", 2, "stdout", "small")
    assert (second.is_check, second.about, second.evidence, second.failure) == (True, ("42",), (evidence,), None)
    assert (read.correct, read.gold, read.group) == ((True,), "42", "base")
    assert (first.id, second.id) == ("p#0", "p#1")


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    rows = read_recorded(write(tmp_path / "few.jsonl", row(), "{broken"))
    assert next(rows).problem.id == "p"
    with pytest.raises(InputError, match=r"few\.jsonl, line 2: not a line of JSON"):
        next(rows)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"problem_id": None}, "line 1: has no 'problem_id'"),
        ({"problem": " "}, "line 1: 'problem' must be text that is not blank"),
        ({"gold": None}, "line 1: has no 'gold'"),
        ({"attempts": None}, "line 1: 'attempts' must be a list, not None"),
        ({"attempts": [{}, 7]}, "line 1, attempt 1: must be an object, not 7"),
        ({"checks": {}}, "line 1: 'checks' must be a list"),
        ({"checks": [7]}, "line 1, check 0: must be an object, not 7"),
        ({"attempts": [{"answer": "1", "correct": "yes"}]}, "attempt 0: 'correct' must be true or false, not 'yes'"),
        ({"attempts": [{"answer": "1", "tokens": -1}]}, "attempt 0: 'tokens' must be a finite number"),
        ({"attempts": [{"answer": "1", "features": [1]}]}, "attempt 0: 'features' must be an object"),
        ({"attempts": [{"answer": "1", "features": {"x": "y"}}]}, "attempt 0: feature 'x' must be a number"),
        ({"attempts": [{"answer": "1", "text": ["a"]}]}, "attempt 0: 'text' must be text"),
        ({"attempts": [{"answer": None, "failure": "bored"}]}, "attempt 0: 'failure' must be one of no_answer"),
        (
            {"attempts": [{"evidence": [{"verdict": "MAYBE"}]}]},
            "attempt 0: evidence must be an object with a 'verdict'",
        ),
        ({"attempts": [{"evidence": [{"verdict": "PROVED"}]}]}, "attempt 0: evidence cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_one(tmp_path, **fields)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file not found"):
        next(read_recorded(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match=r"read from \.jsonl or \.jsonl\.gz"):
        next(read_recorded(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="line 2: problem 'p' was in line 1 already"):
        list(read_recorded(write(tmp_path / "twice.jsonl", row(), row())))


@pytest.mark.shared
@pytest.mark.parametrize(
    "name, num_problems, num_attempts, vote",
    [
        ("gptoss120b_euler.jsonl", 71, 430, 0.732),
        ("zeroeval_math_l5.jsonl", 647, 27_541, 0.723),
        ("openai_gsm8k4.jsonl.gz", 1_319, 5_276, 0.482),
    ],
)
def test_files_of_others(shared_dir: Path, name: str, num_problems: int, num_attempts: int, vote: float) -> None:
    problems = [item for item in read_recorded(shared_dir / "traces" / name) if len(item.attempts) >= 4]
    votes = [majority_score([attempt.answer for attempt in item.attempts], item.correct) for item in problems]
    assert len(problems) == num_problems
    assert sum(len(item.attempts) for item in problems) == num_attempts
    assert sum(votes) / len(votes) == pytest.approx(vote, abs=5e-4)
