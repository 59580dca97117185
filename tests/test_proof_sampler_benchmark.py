"""What benchmarks/proof_sampler.py reckons: power, votes at equal tokens, paired differences; and that it can go on."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import random
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from mathlete.compose import LoadedGenerator
from mathlete.core.generation import GenerateRequest
from mathlete.generators.scripted import ScriptedGenerator
from mathlete.run_config import RunConfig

FOLDER = Path(__file__).parents[1] / "benchmarks"


def module(name: str) -> ModuleType:
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def analysis() -> ModuleType:
    return module("proof_sampler_analysis")


@pytest.fixture(scope="module")
def benchmark(analysis: ModuleType) -> ModuleType:
    return module("proof_sampler")


def test_power_is_what_simulation_finds(analysis: ModuleType) -> None:
    assert analysis.num_problems_needed(0.1, 0.3) == 71  # (1.95996 + 0.84162)^2 * 9 = 70.6
    assert analysis.detectable_difference(71, 0.3) == pytest.approx(0.1, abs=0.001)
    noise = random.Random(1)
    found = 0
    for _ in range(1000):
        values = [noise.gauss(0.1, 0.3) for _ in range(71)]
        found += abs(statistics.fmean(values)) > 1.96 * statistics.stdev(values) / math.sqrt(71)
    assert 0.76 < found / 1000 < 0.84
    with pytest.raises(ValueError, match="positive"):
        analysis.num_problems_needed(0.0, 0.3)


def test_the_expected_deviation_is_that_of_sampling_noise(analysis: ModuleType) -> None:
    noise = random.Random(2)

    def share(p: float) -> float:
        return sum(noise.random() < p for _ in range(4)) / 4

    rates = [0.1, 0.5, 0.9]
    differences = [share(p) - share(p) for p in rates * 3000]
    assert analysis.expected_paired_sd(rates, 4) == pytest.approx(statistics.pstdev(differences), rel=0.04)


def tries(analysis: ModuleType, *items: tuple[str | None, bool, int]) -> Any:
    return tuple(analysis.Try(answer, correct, tokens) for answer, correct, tokens in items)


def test_a_vote_within_a_budget_costs_the_budget(analysis: ModuleType) -> None:
    """One right attempt of 100 tokens and a budget of 40: it is there in two of five orders."""
    noise = random.Random(3)
    one = tries(analysis, ("7", True, 100))
    values = [analysis.majority_within(one, 40, noise) for _ in range(50)]
    assert statistics.fmean(values) == pytest.approx(0.4, abs=0.02)
    assert analysis.majority_within(one, 100, noise) == 1.0
    mixed = tries(analysis, ("7", True, 50), ("7", True, 50), ("8", False, 50), ("8", False, 50), ("7", True, 50))
    assert analysis.majority_within(mixed, 250, noise) == 1.0
    assert statistics.fmean(analysis.majority_within(mixed, 50, noise) for _ in range(20)) == pytest.approx(
        0.6, abs=0.05
    )
    assert analysis.majority_within(tries(analysis, (None, False, 50)), 10, noise) == 0.0


def test_arms_are_compared_on_what_they_share(analysis: ModuleType) -> None:
    def cell(arm: str, problem: str, *items: tuple[str | None, bool, int]) -> Any:
        return analysis.Cell(arm, 0, problem, problem, tries(analysis, *items))

    cells = [
        cell("off", "a", ("1", True, 10), ("2", False, 10)),
        cell("off", "b", ("1", False, 10), (None, False, 30)),
        cell("off", "c", ("1", True, 10), ("1", True, 10)),
        cell("on", "a", ("1", True, 10), ("1", True, 30)),
        cell("on", "b", ("1", True, 10), (None, False, 10)),
    ]
    off, on = analysis.analyse(cells, ["off", "missing", "on"])
    assert (off.num_problems, off.num_attempts, on.num_problems) == (3, 6, 2)
    assert off.pass_at_1.value == pytest.approx(0.5) and on.pass_at_1.value == pytest.approx(0.75)
    assert on.differences["pass_at_1"].value == pytest.approx(0.5), "on a and b only"
    assert on.differences["no_answer"].value == pytest.approx(0.0)
    assert off.differences is None and off.tokens == pytest.approx(80 / 6)
    assert "| on | 2 | 4 |" in analysis.describe([off, on]) and "- on: pass_at_1 +0.500" in analysis.describe([off, on])
    with pytest.raises(ValueError, match="no results"):
        analysis.analyse([], ["off"])


def test_the_arm_with_soft_terms_is_the_beam_otherwise(benchmark: ModuleType) -> None:
    base = RunConfig(command="evaluate", source=None, model="m", budget_s=1.0, attempts=8)
    beam, soft = (benchmark.arm_config(base, arm, 3) for arm in ("beam", "beam+soft"))
    assert not beam.beam_soft_terms and soft == replace(beam, beam_soft_terms=True) and soft.attempts == 2


def script(request: GenerateRequest) -> str:
    return "So the answer is \\boxed{42}." if request.continuation else "Run it:\n```python\nprint(6 * 7\n```\n"


def test_it_runs_all_arms_and_goes_on_where_it_was(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, number in (("small", 4), ("large", 9)):
        rows = [{"id": f"{name}{i}", "problem": "How many?", "answer": "42", "integer": True} for i in range(number)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = 0

    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        nonlocal loaded
        loaded += 1
        return LoadedGenerator(ScriptedGenerator(script), "scripted")

    monkeypatch.setattr(benchmark, "load_generator", load)
    monkeypatch.setitem(benchmark.ARMS, "beam", {"beam_width": 2})
    args = argparse.Namespace(
        results=tmp_path / "r.jsonl", problems=[tmp_path / "small.jsonl", tmp_path / "large.jsonl"], num_problems=6,
        attempts=2, seeds=[0], arms=["off", "beam"], model="m", max_tokens=64, max_in_flight=8, threads=None, block=4,
        minutes=None, device="cpu", precision="w8a8",
    )  # fmt: skip
    benchmark.run(args, Console(quiet=True))
    rows = benchmark.read_lines(args.results)
    assert [row["arm"] for row in rows] == ["off"] * 4 + ["beam"] * 4 + ["beam"] * 2 + ["off"] * 2
    assert len({row["problem_id"] for row in rows}) == 6
    assert sum(row["problem_id"].startswith("small") for row in rows) == 4, "two of six, in both arms"
    assert [len(row["attempts"]) for row in rows] == [2] * 4 + [1] * 6 + [2] * 2
    for row in rows:
        for attempt in row["attempts"]:
            assert (attempt["answer"], attempt["correct"], attempt["unparsable"]) == ("42", True, True)
            assert attempt["tokens"] > attempt["discarded"] >= 0 and attempt["text"].startswith("Run it")
    whole = args.results.read_text()
    args.results.write_text(whole[: len(whole) - len(whole.splitlines()[-1]) // 2])  # the last line was cut off
    benchmark.run(args, Console(quiet=True))
    assert loaded == 2 and len(benchmark.read_lines(args.results)) == 12
    assert {(r["arm"], r["problem_id"]) for r in benchmark.read_lines(args.results)} == {
        (r["arm"], r["problem_id"]) for r in rows
    }
    args.minutes = 0.0
    args.seeds = [0, 1]
    benchmark.run(args, Console(quiet=True))
    assert len(benchmark.read_lines(args.results)) == 12, "out of time before anything was begun"
