"""Recorded problems, written and read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.errors import InputError, StorageError
from mathlete.core.problem import Problem
from mathlete.core.selection import Evidence
from mathlete.lab.recorded import RecordedProblem, read_recorded
from mathlete.lab.recorded_writing import write_recorded

PLAIN = Attempt("a#0", "a", 0, "reasoning", 0, 0, "\\frac{1}{2}", None, (), 0, 0)
FULL = Attempt(
    "a#1", "a", 1, "beam", 2**63 - 1, 0.8, "2", "boxed", (Turn("So 2.", num_tokens=9),), 9, 1.25,
    {"x": 0.5, "tool_calls": 2.0},
    "out_of_time", None, 3, 2, ("7",), (), "big",
)  # fmt: skip
TAIL = Attempt(
    "a#2",
    "a",
    2,
    "code",
    0,
    0,
    None,
    None,
    (Turn("", tool_text="4\n"), Turn("So")),
    0,
    0,
    {"tool_calls": 1.0},
    "no_answer",
)
EVIDENCE = (Evidence("sympy_check", "2 solves it", "REFUTED", "timeout", 0.5, "print(1)", "2"),)
CHECK = Attempt("a#3", "a", 3, "sympy_check", 0, 0, None, None, (), 4, 1.0, about=("2",), evidence=EVIDENCE)


def problems(name: str) -> list[RecordedProblem]:
    first = RecordedProblem(
        Problem("a", "Q \u2028?", source=name), "0.5", "g", (PLAIN, FULL, TAIL), (True, False, False), (CHECK,)
    )
    return [first, RecordedProblem(Problem("b", "R?", source=name), "3", "b", (), ())]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    assert write_recorded(problems("x"), tmp_path / name) == 2
    assert list(read_recorded(tmp_path / name)) == problems("x")
    before = (tmp_path / name).read_bytes()
    write_recorded(read_recorded(tmp_path / name), tmp_path / name)
    assert (tmp_path / name).read_bytes() == before, "also onto itself"


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[RecordedProblem]:
        yield problems("x")[0]
        raise InputError("row 2")

    path = tmp_path / "x.jsonl"
    path.write_text("before")
    with pytest.raises(InputError, match="row 2"):
        write_recorded(broken(), path)
    assert [item.name for item in tmp_path.iterdir()] == ["x.jsonl"] and path.read_text() == "before"
    with pytest.raises(StorageError, match=r"cannot write .*none/x\.jsonl: No such file"):
        write_recorded(problems("x"), tmp_path / "none" / "x.jsonl")
    with pytest.raises(InputError, match=r"x\.csv: recorded attempts are written to \.jsonl"):
        write_recorded(problems("x"), tmp_path / "x.csv")


def test_several_turns_become_one_text(tmp_path: Path) -> None:
    attempt = replace(PLAIN, turns=(Turn("Let us see.", tool_text="\n4\n"), Turn("So 4.")), num_tokens=7)
    write_recorded([RecordedProblem(Problem("a", "?"), "4", "a", (attempt,), (False,))], tmp_path / "x.jsonl")
    (read,) = read_recorded(tmp_path / "x.jsonl")
    assert read.attempts[0].turns == (Turn("Let us see.\n4\nSo 4.", num_tokens=7),)
