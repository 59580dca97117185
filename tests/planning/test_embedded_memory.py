"""The plan of the embedded engine's memory against what a process of its own took (benchmarks/plan_memory.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mathlete.core.errors import InputError
from mathlete.planning.embedded_memory import EmbeddedLoad, embedded_format, memory_on_cpu
from mathlete.planning.models import find_model

ROOT = Path(__file__).parents[2]


@pytest.mark.model
@pytest.mark.slow
def test_memory_of_the_small_model_is_planned_within_ten_percent(small_model_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "benchmarks" / "plan_memory.py"), str(small_model_path), "--precision", "w8a8,int4",
        "--attempts", "4", "--new", "24", "--prompt", "192", "--no-huge-pages",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["precision"] for row in rows] == ["w8a8", "int4"]
    for row in rows:
        assert abs(row["planned_over_measured"]) < 0.1, row


def test_two_precisions_take_the_weights_of_both() -> None:
    shape = find_model("1.5b")
    one, other, both = (
        memory_on_cpu(shape, EmbeddedLoad(precisions=names)).weights
        for names in (("w8a8",), ("int4",), ("w8a8", "int4"))
    )
    assert both == one + other


def test_huge_pages_round_up_only_where_the_cache_is_large_enough() -> None:
    shape = find_model("0.5b")
    few = EmbeddedLoad(attempts=1, prompt=64, length=128, max_model_len=256)
    many = EmbeddedLoad(attempts=32, prompt=64, length=128, max_model_len=256)
    kv_of_token = 2 * 24 * 2 * 64 * 2
    assert memory_on_cpu(shape, few).kv == 128 * kv_of_token
    assert memory_on_cpu(shape, many).kv == 48 * 2 * 2**20
    assert memory_on_cpu(shape, EmbeddedLoad(attempts=32, prompt=64, length=128, huge_pages=False)).kv == (
        (64 + 32 * 64) * kv_of_token
    )


def test_precisions_that_do_not_exist_there() -> None:
    with pytest.raises(InputError, match="no precision 'w8a8' on a GPU"):
        embedded_format("w8a8", on_gpu=True)
