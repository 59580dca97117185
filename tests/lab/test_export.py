"""The files a run hands out."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.errors import StorageError
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import Evidence, Selection
from mathlete.lab.export import write_attempts, write_interchange, write_submission
from mathlete.lab.run_folder import RunFolder


def attempt(index: int, answer: str | None, *turns: Turn, **fields: object) -> Attempt:
    values = {"features": {"mean_entropy": 0.5}, "failure": None if answer else "no_answer", **fields}
    return Attempt(f"p#{index}", "p", index, "code", 1, 0.8, answer, None, turns, 120, 2.34567, **values)  # type: ignore[arg-type]


def record(problem_id: str, answer: str | None = None, **fields: object) -> ProblemRecord:
    selection = None if answer is None else Selection(answer, "majority", 0.5)
    return ProblemRecord(Problem(problem_id, "How many?"), selection=selection, **fields)  # type: ignore[arg-type]


def run_of(*records: ProblemRecord) -> RunRecord:
    return RunRecord(config={"model": "small"}, problems={r.problem.id: r for r in records})


def read_csv(folder: RunFolder) -> list[list[str]]:
    with folder.submission_csv.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run")


def test_both_submissions_say_the_same_in_the_inputs_order(folder: RunFolder) -> None:
    write_submission(run_of(record("zeta", "336"), record("alpha", "0"), record("007", "99999")), folder)
    assert folder.submission_csv.read_text() == "id,answer\nzeta,336\nalpha,0\n007,99999\n"
    table = pyarrow.parquet.read_table(folder.submission_parquet)
    assert table.schema.names == ["id", "answer"]
    assert [field.type for field in table.schema] == [pyarrow.string(), pyarrow.int64()]
    assert table.to_pylist() == [
        {"id": "zeta", "answer": 336},
        {"id": "alpha", "answer": 0},
        {"id": "007", "answer": 99999},
    ]
    assert sorted(p.name for p in folder.path.iterdir()) == ["submission.csv", "submission.parquet"]


def test_a_run_that_was_cut_off_still_answers_every_problem(folder: RunFolder) -> None:
    unopened = record("unopened")
    above = ProblemRecord(Problem("above", "s", AnswerKind(low=10, high=20)))
    below = ProblemRecord(Problem("below", "s", AnswerKind(low=-9, high=-3)))
    voted = record("voted", attempts=(attempt(0, "7"), attempt(1, None), attempt(2, "8"), attempt(3, "8")))
    write_submission(run_of(unopened, above, below, voted), folder)
    assert read_csv(folder)[1:] == [["unopened", "0"], ["above", "10"], ["below", "-3"], ["voted", "8"]]


def test_a_run_without_problems_writes_empty_tables(folder: RunFolder) -> None:
    write_submission(run_of(), folder)
    write_attempts(run_of(), folder)
    assert read_csv(folder) == [["id", "answer"]]
    table = pyarrow.parquet.read_table(folder.submission_parquet)
    assert (table.num_rows, [field.type for field in table.schema]) == (0, [pyarrow.string(), pyarrow.int64()])
    assert folder.attempts_jsonl.read_bytes() == b""


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=30, deadline=None)
@given(answers=st.dictionaries(ids, st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_any_id_and_any_64_bit_answer(tmp_path_factory: pytest.TempPathFactory, answers: dict[str, int]) -> None:
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), "run")
    write_submission(run_of(*(record(key, str(value)) for key, value in answers.items())), folder)
    assert read_csv(folder)[1:] == [[key, str(value)] for key, value in answers.items()]
    table = pyarrow.parquet.read_table(folder.submission_parquet).to_pylist()
    assert [(row["id"], row["answer"]) for row in table] == list(answers.items())


def test_an_answer_beyond_64_bits_is_said_plainly(folder: RunFolder) -> None:
    with pytest.raises(StorageError, match=r"64-bit.*submission\.csv is complete"):
        write_submission(run_of(record("big", str(10**30))), folder)
    assert read_csv(folder)[1:] == [["big", str(10**30)]]


def test_writing_again_replaces(folder: RunFolder) -> None:
    write_submission(run_of(record("p")), folder)
    write_submission(run_of(record("p", "5")), folder)
    assert read_csv(folder)[1:] == [["p", "5"]]


def test_the_csv_is_there_when_parquet_cannot_be_written(folder: RunFolder) -> None:
    folder.submission_parquet.mkdir()  # cannot be replaced by a file, whoever runs the test
    with pytest.raises(StorageError, match=r"submission\.parquet.*submission\.csv is complete.*resume the run run"):
        write_submission(run_of(record("p", "5")), folder)
    assert read_csv(folder)[1:] == [["p", "5"]]


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))


def test_answers_are_written_on_a_disk_that_has_become_full(small_disk: Path) -> None:
    folder = RunFolder.create(small_disk, "run")
    fill(small_disk)
    write_submission(run_of(*(record(f"problem-{n}", str(n)) for n in range(500))), folder)
    assert len(read_csv(folder)) == 501
    assert pyarrow.parquet.read_table(folder.submission_parquet).num_rows == 500


def test_a_disk_without_any_room_is_a_storage_error(small_disk: Path) -> None:
    folder = RunFolder.create(small_disk, "run")
    write_submission(run_of(record("p", "5")), folder)
    fill(small_disk)
    with pytest.raises(
        StorageError, match=r"submission\.csv: No space left.*No answers were written.*resume the run run"
    ):
        write_submission(run_of(record("p", "6")), folder)
    with pytest.raises(StorageError, match="No space left"):
        write_attempts(run_of(record("p", "6")), folder)
    assert read_csv(folder)[1:] == [["p", "5"]], "the earlier file is whole"


def test_attempts_in_the_interchange_format(folder: RunFolder) -> None:
    first = Turn(
        "Let me compute.\n```python\nprint(6*7)\n```", "print(6*7)", ToolResult("ok", "42\n", "", 0.1), "\n42\n"
    )
    known = record(
        "p",
        "42",
        gold="42",
        group="base",
        attempts=(attempt(0, "42", first, Turn("So \\boxed{42}.")), attempt(1, None)),
    )
    open_end = record("q", attempts=(attempt(0, "3", failure=None),))
    write_attempts(run_of(known, open_end), folder)
    lines = [json.loads(line) for line in folder.attempts_jsonl.read_text().splitlines()]
    common = {"tokens": 120, "seconds": 2.346, "model": "small", "pillar": "code", "features": {"mean_entropy": 0.5}}
    ran = {"features": {"tool_calls": 1, "tool_errors": 0, "mean_entropy": 0.5}}
    text = "Let me compute.\n```python\nprint(6*7)\n```\n42\nSo \\boxed{42}."
    assert lines == [
        {
            "problem_id": "p",
            "problem": "How many?",
            "gold": "42",
            "group": "base",
            "attempts": [
                {"answer": "42", "correct": True, **common, **ran, "text": text},
                {"answer": None, "correct": False, **common, "failure": "no_answer", "text": ""},
            ],
        },
        {
            "problem_id": "q",
            "problem": "How many?",
            "gold": None,
            "group": "q",
            "attempts": [{"answer": "3", **common, "text": ""}],
        },
    ]


def test_what_json_cannot_say_becomes_null(folder: RunFolder) -> None:
    odd = attempt(
        0, "1", Turn("lone \ud800 and \u2028 and \x00"), features={"mean_entropy": math.nan, "tail": -math.inf}
    )
    write_attempts(run_of(record("p", attempts=(odd,))), folder)
    (line,) = folder.attempts_jsonl.read_text(encoding="ascii").splitlines()
    written = json.loads(line, parse_constant=pytest.fail)["attempts"][0]
    assert written["features"] == {"mean_entropy": None, "tail": None}
    assert written["text"] == "lone \ud800 and \u2028 and \x00"


@pytest.mark.shared
def test_the_recorded_traces_have_the_same_keys(folder: RunFolder) -> None:
    path = Path(__file__).parents[3] / "shared" / "traces" / "gptoss120b_euler.jsonl"
    if not path.is_file():
        pytest.skip("needs ../shared/traces beside the checkout")
    write_attempts(run_of(record("p", gold="1", attempts=(attempt(0, "1"),))), folder)
    ours = json.loads(folder.attempts_jsonl.read_text())
    with path.open(encoding="utf-8") as file:
        theirs = json.loads(file.readline())
    assert list(ours) == list(theirs)
    shared_keys = {"answer", "correct", "tokens", "model", "features"}
    assert shared_keys <= ours["attempts"][0].keys() & theirs["attempts"][0].keys()


def test_checks_are_in_a_list_of_their_own(folder: RunFolder) -> None:
    evidence = Evidence("sympy_check", "42 fits", "SUPPORTED", elapsed_s=0.5, detail="print(True)", answer="42")
    check = replace(attempt(1, None, about=("42",), evidence=(evidence,), failure=None), pillar="sympy_check")
    later = attempt(2, "42", round=2, about=("42", "7"))
    write_attempts(run_of(record("p", attempts=(attempt(0, "42"), check, later)), record("q")), folder)
    first, second = map(json.loads, folder.attempts_jsonl.read_text().splitlines())
    assert [item["answer"] for item in first["attempts"]] == ["42", "42"]
    assert (first["attempts"][1]["round"], first["attempts"][1]["about"]) == (2, ["42", "7"])
    (told,) = first["checks"]
    assert (told["pillar"], told["about"], told["answer"]) == ("sympy_check", ["42"], None)
    assert told["evidence"] == [asdict(evidence)] and "correct" not in told
    assert "checks" not in second


def test_what_others_judged_stands_in_the_attempts(folder: RunFolder) -> None:
    judged = record("p", attempts=(attempt(0, "1"), attempt(1, "2")), gold="1", correct=frozenset({"p#1"}))
    write_attempts(run_of(judged), folder)
    assert [item["correct"] for item in json.loads(folder.attempts_jsonl.read_text())["attempts"]] == [False, True]


def test_attempts_are_written_problem_by_problem(tmp_path: Path) -> None:
    path, sizes = tmp_path / "a.jsonl", []

    def records() -> Iterator[ProblemRecord]:
        for number in range(3):
            sizes.append((tmp_path / ".a.jsonl.partial").stat().st_size)
            yield record(f"p{number}", attempts=(attempt(0, "1", Turn("x" * 100_000)),))

    write_interchange(records(), "small", path)
    assert sizes[0] == 0 and sizes[2] > 100_000
    assert [json.loads(line)["problem_id"] for line in path.read_text().splitlines()] == ["p0", "p1", "p2"]


def test_attempts_that_cannot_be_read_leave_what_was_there(tmp_path: Path) -> None:
    def records() -> Iterator[ProblemRecord]:
        yield record("p")
        raise StorageError("the store is damaged")

    (tmp_path / "a.jsonl").write_text("before")
    with pytest.raises(StorageError, match="the store is damaged"):
        write_interchange(records(), None, tmp_path / "a.jsonl")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
