"""A run under TRIAD, exported and read back: the selectors see the pool that they saw while it ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.cic.registry import SELECTORS, make_selector
from mathlete.core.attempt import Attempt, Failure, Turn
from mathlete.core.code import ToolResult
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import Evidence, Verdict
from mathlete.core.trace import decode_selection, encode
from mathlete.lab.export import write_attempts
from mathlete.lab.recorded import read_recorded
from mathlete.lab.run_folder import RunFolder

PROBLEM = Problem("p", "How many of the 12 are left?")
FAILED = ToolResult("error", "", "ZeroDivisionError", 0.1)
WORKED = ToolResult("ok", "5\n", "", 0.1)

# A trace has no output of programs, and a file of attempts does not tell it from what the model wrote.
BY_TRACES = {"cic", "ncd_vote"}


def solution(index: int, answer: str | None, entropy: float, *turns: Turn, **changes: object) -> Attempt:
    features = {"mean_entropy": entropy, "tail_entropy": 2 * entropy, "mean_logprob": -entropy}
    attempt = Attempt(
        f"p#{index}", "p", index, "code", index, 0.8, answer, "boxed" if answer else None, turns, 50 + 7 * index,
        1.23456, features, None if answer else "no_answer",
    )  # fmt: skip
    return replace(attempt, **changes)  # type: ignore[arg-type]


def check(index: int, pillar: str, verdicts: dict[str, Verdict], failure: Failure | None = None) -> Attempt:
    evidence = tuple(Evidence(pillar, "claim", verdict, answer=answer) for answer, verdict in verdicts.items())
    return solution(
        index, None, 0.01, Turn("def check(answer): ..."), pillar=pillar, evidence=evidence, about=tuple(verdicts),
        failure=failure,
    )  # fmt: skip


RAN = Turn("```python\n1/0\n```\n", "1/0", FAILED, "```output\nperhaps ZeroDivisionError\n```\n", 9)
AGAIN = Turn("```python\nprint(5)\n```\n", "print(5)", WORKED, "```output\n5\n```\n", 9)
SAID = Turn(r"I am not sure, maybe $\boxed{5}$.", num_tokens=9)
POOL = (
    solution(0, "5", 0.3, RAN, AGAIN, SAID),
    solution(2, "6", 0.2, Turn(r"So it is $\boxed{6}$."), pillar="reasoning"),
    check(3, "sympy_check", {"5": "REFUTED", "6": "SUPPORTED"}),
    solution(1, "6", 0.4, AGAIN, Turn(r"$\boxed{6}$"), answer_source="text"),
    check(4, "enumeration_check", {"5": "UNKNOWN", "6": "UNKNOWN"}, "tool_error"),
    solution(5, None, 0.9, RAN),
    solution(6, "12", 0.5, SAID, round=2, about=("5", "6")),
    check(7, "genselect_check", {"5": "SUPPORTED", "6": "UNKNOWN"}),
)
STOPPED = (
    solution(8, None, 1.5, Turn("half a sen"), failure="stopped"),
    check(9, "smt_check", {"5": "UNKNOWN"}, "stopped"),
)


def read_back(attempts: Sequence[Attempt], folder: RunFolder) -> tuple[Problem, tuple[Attempt, ...]]:
    record = ProblemRecord(PROBLEM, tuple(attempts), gold="6", group="g")
    write_attempts(RunRecord({"model": "m"}, {"p": record}), folder)
    (found,) = read_recorded(folder.attempts_jsonl)
    return found.problem, found.pooled().attempts


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_chooses_the_same_of_what_is_read_back(name: str, tmp_path: Path) -> None:
    live = make_selector(name).select(PROBLEM, POOL)
    assert decode_selection(encode(live)) == live
    problem, attempts = read_back((*POOL, *STOPPED), RunFolder.create(tmp_path))
    again = make_selector(name).select(problem, attempts)
    assert (again.answer, again.rule, again.accepted) == (live.answer, live.rule, live.accepted)
    if name not in BY_TRACES:
        assert again.confidence == pytest.approx(live.confidence, abs=1e-12)


def test_attempts_are_read_back_in_their_order_and_checks_behind_them(tmp_path: Path) -> None:
    _, attempts = read_back(POOL, RunFolder.create(tmp_path))
    assert [item.answer for item in attempts] == ["5", "6", "6", None, "12", None, None, None]
    assert [item.pillar for item in attempts][-3:] == ["sympy_check", "enumeration_check", "genselect_check"]
    assert [item.round for item in attempts] == [1, 1, 1, 1, 2, 1, 1, 1]
