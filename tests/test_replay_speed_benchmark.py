"""benchmarks/replay_speed.py makes a file that can be replayed, and tells what that took."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from mathlete.cic.registry import SELECTORS
from mathlete.lab.recorded import read_recorded


def test_a_file_is_made_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = Path(__file__).parents[1] / "benchmarks" / "replay_speed.py"
    spec = importlib.util.spec_from_file_location("replay_speed", program)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path / "made.jsonl"
    sizes = ["--problems", "20", "--attempts", "8", "--words", "5"]
    module.main([*sizes, "--processes", "1", "--each", "--file", str(path)])
    told = capsys.readouterr().out
    assert f"20 problems x 8 attempts, {len(SELECTORS)} selectors, 1 processes: " in told
    assert all(f"\n{name} " in told for name in SELECTORS)
    problems = list(read_recorded(path))
    assert len(problems) == 20 and all(len(item.attempts) == 8 for item in problems)
    answers = {attempt.answer for item in problems for attempt in item.attempts}
    assert None in answers and len(answers) > 20 and any(any(item.correct) for item in problems)
    assert all(len(attempt.text.split()) == 5 for item in problems for attempt in item.attempts)
