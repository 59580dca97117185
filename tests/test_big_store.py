"""The program that measures large stores, on a small one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mathlete.lab.run_reading import read_figures, read_problems
from mathlete.lab.run_store import RunStore

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "big_store.py"


@pytest.fixture(scope="module")
def big_store() -> ModuleType:
    spec = importlib.util.spec_from_file_location("big_store", PROGRAM)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_a_small_store_is_made_and_measured(big_store: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    big_store.make_store(path, num_bytes=1_000_000, num_tokens=100, seed=1)
    assert 0.5e6 < path.stat().st_size < 2e6
    with RunStore.read(path) as store:
        num_problems = read_figures(store).num_problems
        for record in read_problems(store):
            assert [attempt.index for attempt in record.attempts] == list(range(big_store.ATTEMPTS))
            assert all(sum(turn.num_tokens for turn in item.turns) == item.num_tokens for item in record.attempts)
    num_attempts = num_problems * big_store.ATTEMPTS
    found = {name: big_store.measure(name, path) for name in big_store.MEASURED}
    assert found["outline"]["attempts"] == found["figures"]["attempts"] == found["parquet"]["rows"] == num_attempts
    assert found["problem"]["attempts"] == big_store.ATTEMPTS and found["jsonl"]["bytes"] > 0
    assert found["open"]["events"] == found["gather"]["events"]
    assert all(row["seconds"] > 0 and row["peak_mib"] > 0 for row in found.values())


def test_the_program_itself(big_store: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    arguments = [
        "big_store.py",
        "--size",
        "300k",
        "--tokens",
        "50",
        "--out",
        str(tmp_path),
        "--only",
        "figures",
        "--cold",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    big_store.main()
    assert capsys.readouterr().out.startswith("figures ")
