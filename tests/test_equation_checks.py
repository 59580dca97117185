"""What the program that measures equation checks reads and counts."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mathlete.verify.algebra import load_algebra
from mathlete.verify.equation_judgement import judge
from mathlete.verify.equations_in_text import claims_in

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "equation_checks.py"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("equation_checks", PROGRAM)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["equation_checks"] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def test_reads_all_kinds_of_rows(program: ModuleType) -> None:
    kinds = [
        {"problem": "p", "solution": ["1+1 = <<1+1=2>>2", "b"]},
        {"attempts": [{"text": "c", "correct": True}, {"tail": "d", "correct": False}, {"correct": True}]},
        {"samples": [{"steps": ["e", "f"], "correct": False}]},
        {"question": "q", "6b": {"solution": "g", "is_correct": True}},
    ]

    assert [[tuple(text) for text in program.texts_of(row, "solution")] for row in kinds] == [
        [("gold", "1+1 = 2", "p"), ("gold", "b", "p")],
        [("correct", "c", ""), ("wrong", "d", "")],
        [("wrong", "e\nf", "")],
        [("correct", "g", "q")],
    ]


def test_counts(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.jsonl"
    attempts = [
        {"text": "2 + 2 = 5; x", "correct": False},
        {"text": "We add.\n\n2 + 2 = 5\n\nDone.", "correct": False},
        {"text": "2 + 2 = 4 and $x^2 = x + 1$", "correct": True},
    ]
    modular = {"problem": "We work modulo 7.", "attempts": [{"text": "3 * 5 = 1.\n\nDone.", "correct": True}]}
    path.write_text(json.dumps({"attempts": attempts}) + "\n" + json.dumps(modular))
    monkeypatch.setattr(sys, "argv", ["equation_checks.py", str(path), "--show"])

    program.main()

    correct, wrong = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    assert (correct["kind"], correct["texts_refuted"], correct["claims_judged_share"]) == ("correct", 1, 0.6667)
    assert (correct["steps_texts_refuted"], correct["whole_only"], correct["steps_claims"]) == (0, 1, 1)
    assert (wrong["kind"], wrong["texts_refuted"], wrong["texts_contradicting"]) == ("wrong", 2, 2)
    assert (wrong["steps_texts_refuted"], wrong["steps_only"], wrong["whole_only"]) == (1, 0, 1)


@pytest.mark.shared
def test_problem_statements_are_never_called_wrong(shared_dir: Path) -> None:
    algebra = load_algebra()
    for name in ("math500", "amc23", "olympiadbench_oe_maths_en"):
        for line in (shared_dir / "problems" / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            refuted = [c.text for c in claims_in(row["problem"]) if judge(c, algebra).verdict == "REFUTED"]
            assert refuted == [], row["id"]


@pytest.mark.shared
def test_right_attempts_are_seldom_called_wrong(program: ModuleType, shared_dir: Path) -> None:
    counts = {"correct": [0, 0], "wrong": [0, 0]}
    for row in program.rows(shared_dir / "traces" / "process_birm_math.jsonl"):
        for kind, text, _ in program.texts_of(row, "solution"):
            counts[kind][0] += 1
            counts[kind][1] += any(judge(claim, None).verdict == "REFUTED" for claim in claims_in(text))

    assert counts["correct"][1] / counts["correct"][0] < 0.02
    assert counts["wrong"][1] / counts["wrong"][0] > 3 * counts["correct"][1] / counts["correct"][0]
