"""benchmarks/plan_on_gpu.py runs through without a GPU, and keeps what a case has found when it is ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_runs_through_at_a_toys_shapes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "found.json"
    command = [
        sys.executable, str(ROOT / "benchmarks" / "plan_on_gpu.py"), str(out), "--device", "cpu", "--tiny", "--only",
        "72b-nf4", "7b-bf16",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(out.read_text(encoding="utf-8"))
    for name in ("72b-nf4", "7b-bf16"):
        found = report[name]
        assert "error" not in found, found
        assert found["weights"]["planned_over_measured"] == pytest.approx(0, abs=1e-6)
        assert found["kv_cache"]["planned_over_measured"] == pytest.approx(0, abs=1e-6)
        assert found["decode_2"]["blocks"] == found["decode_2"]["planned_blocks"]
