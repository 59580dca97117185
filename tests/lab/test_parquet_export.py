"""A run's attempts as Parquet, and read back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.errors import StorageError
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, fold_run
from mathlete.lab import parquet_export
from mathlete.lab.parquet_export import feature_names, write_parquet
from mathlete.lab.recordings import read_recordings
from mathlete.lab.run_reading import read_problems
from mathlete.lab.run_store import RunStore
from recorded_runs import attempt, run_events


def record(*attempts: Attempt, **fields: object) -> ProblemRecord:
    return ProblemRecord(Problem("p", "How many?"), attempts=attempts, **fields)  # type: ignore[arg-type]


def test_a_stored_run(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run.sqlite") as store:
        store.append_many(run_events())
        assert feature_names(store) == ("mean_entropy", "tool_calls", "tool_errors")
        num = write_parquet(read_problems(store), "r1", "small", feature_names(store), tmp_path / "a.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert num == len(rows) == 4
    assert [(row["run"], row["problem_id"], row["index"]) for row in rows] == [
        ("r1", "p", 0), ("r1", "p", 1), ("r1", "p", 2), ("r1", "q", 0),
    ]  # fmt: skip
    first, second, check, other = rows
    assert first["correct"] is True and second["correct"] is False and other["correct"] is False
    assert check["correct"] is None and check["pillar"] == "sympy_check" and check["evidence"][0]["answer"] == "1"
    assert (first["answer"], first["gold"], first["group"], first["problem"]) == ("1", "1", "base", "How many?")
    assert (first["tokens"], first["seconds"], first["failure"], second["failure"]) == (400, 1.5, None, "no_answer")
    assert first["features"] == {"mean_entropy": 0.25, "tool_calls": None, "tool_errors": None}
    assert first["text"] == "step 0step 100" and first["model"] == "small" and check["about"] == ["1"]


def test_what_others_judged_stands(tmp_path: Path) -> None:
    judged = record(attempt("p", 0, "1"), attempt("p", 1, "2"), gold="1", correct=frozenset({"p#1"}))
    unlabelled = record(attempt("p", 0, "1"))
    write_parquet([judged, unlabelled], "r", None, ("mean_entropy",), tmp_path / "a.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["correct"] for row in rows] == [False, True, None]
    assert rows[2]["group"] == "p" and rows[2]["gold"] is None


def test_numbers_that_are_not_finite_and_programs(tmp_path: Path) -> None:
    failed = ToolResult("error", "", "boom", 0.1)
    item = replace(
        attempt("p", 0, "1"), features={"a": math.nan, "b": 1.0}, turns=(Turn("x", result=failed), Turn("y"))
    )
    write_parquet([record(item)], "r", "m", ("a", "b", "tool_calls", "tool_errors"), tmp_path / "a.parquet")
    (row,) = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert row["features"] == {"a": None, "b": 1.0, "tool_calls": 1.0, "tool_errors": 1.0}


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_export, "GROUP_BYTES", 1_000)
    taken = []

    def records() -> Iterator[ProblemRecord]:
        for number in range(10):
            taken.append(number)
            yield record(replace(attempt("p", 0, "1"), turns=(Turn("x" * 600),)))

    assert write_parquet(records(), "r", "m", ("mean_entropy",), tmp_path / "a.parquet") == 10
    assert pyarrow.parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 5
    assert taken == list(range(10))


def test_no_attempts(tmp_path: Path) -> None:
    assert write_parquet([record()], "r", None, ("tool_calls",), tmp_path / "a.parquet") == 0
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet").num_rows == 0


def test_text_that_utf8_cannot_hold(tmp_path: Path) -> None:
    odd = replace(attempt("p", 0, "1\ud800"), turns=(Turn("a\udfffb"),), about=("\ud800",))
    write_parquet([record(odd)], "r", "m", ("mean_entropy",), tmp_path / "a.parquet")
    (row,) = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert (row["text"], row["answer"], row["about"]) == ("a?b", "1?", ["?"])


def test_a_number_that_parquet_cannot_hold(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("before")
    huge = replace(attempt("p", 0, "1"), num_tokens=10**30)
    with pytest.raises(StorageError, match=r"a\.parquet.*--format jsonl"):
        write_parquet([record(huge)], "r", "m", (), tmp_path / "a.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert (tmp_path / "a.parquet").read_text() == "before"


def test_read_back_as_a_recording(tmp_path: Path) -> None:
    whole = fold_run([event for event in run_events() if event.attempt_id != "p#2"])
    write_parquet(whole.problems.values(), "r", "small", ("mean_entropy",), tmp_path / "a.parquet")
    read = {item.problem.id: item for item in read_recordings([tmp_path / "a.parquet"])}
    for key, item in whole.problems.items():
        assert [a.answer for a in read[key].attempts] == [a.answer for a in item.attempts]
        assert [a.num_tokens for a in read[key].attempts] == [400] * len(item.attempts)
        assert [a.text for a in read[key].attempts] == [a.text for a in item.attempts]
        assert [dict(a.features) for a in read[key].attempts] == [dict(a.features) for a in item.attempts]
        assert (read[key].gold, read[key].group) == (item.gold, "base")
