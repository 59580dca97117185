"""The program that times constrained steps, on a tiny model: which steps it counts, and that constraints are kept."""

from __future__ import annotations

import importlib.util
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest
from driving import load
from tiny_qwen import TinyModel

from mathlete.proof_sampler.vocabulary import Vocabulary
from mathlete.ryanstream.constraints import ConstraintMasks
from mathlete.ryanstream.request import EngineRequest


@pytest.fixture(scope="module")
def constraint_cost() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "constraint_cost.py"
    spec = importlib.util.spec_from_file_location("constraint_cost", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["constraint_cost"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_steps_with_and_without_alternate_over_the_same_attempts(
    constraint_cost: ModuleType, tiny: TinyModel, engine_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(tiny.folder, engine_cache, max_running=3)
    vocabulary = Vocabulary(loaded.token_bytes, loaded.tokenizer.eos_token_ids)
    masked: list[list[EngineRequest]] = []
    fill = ConstraintMasks.fill

    def noted(self: ConstraintMasks, rows: list[object]) -> object:
        masked.append([row.request for row in rows if row.constraint is not None])  # type: ignore[attr-defined]
        return fill(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(ConstraintMasks, "fill", noted)
    attempts = constraint_cost.Attempts(loaded, vocabulary, [40, 41, 42, 43], 3, max_tokens=9)
    counted = []
    for seconds in islice(attempts.steps(), 40):
        assert seconds > 0
        counted.append(len(masked[-1]))
    assert counted == [3, 0, 0, 3] * 10
    assert attempts._num_begun >= 3 * 40 // 9, "attempts that ended are followed by others"
    figures = constraint_cost.compared(constraint_cost.step_pairs(attempts, 0.05))
    assert figures["pairs"] >= 2 and figures["ratio_95"][0] <= figures["ratio"] <= figures["ratio_95"][1]
    each = constraint_cost.parts(attempts, 10)
    assert set(each) == {"fill_mask", "accept", "rows", "draw", "all"}
    assert min(each["fill_mask"], each["accept"], each["rows"]) > 0
    assert ConstraintMasks.fill is noted, "nothing is left patched"


def test_a_ratio_is_of_medians(constraint_cost: ModuleType) -> None:
    pair = constraint_cost.StepPair
    figures = constraint_cost.compared([pair(1.0, 0.5), pair(3.0, 2.0), pair(9.0, 2.0)])
    assert (figures["with_ms"], figures["without_ms"], figures["ratio"]) == (3000.0, 2000.0, 1.5)
    assert figures["ratio_95"] == [1.5, 4.5]
