"""Which precision computes a step: by measured times, by memory; and what the manager remembers and reports."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import torch
from driving import greedy, load, run_all
from tiny_qwen import TinyModel, make_tiny_model

from mathlete.core.errors import EngineError
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.weights import DenseWeight, ModelWeights, Precision
from mathlete.ryanstream.precision import (
    CALIBRATION_ROWS,
    AutoPrecisionManager,
    PressureLimits,
    StepCosts,
    remembered_costs,
)

# int4 is faster up to 8 rows
COSTS = StepCosts(
    {
        "int4": tuple(1.0 + 0.1 * rows for rows in CALIBRATION_ROWS),
        "w8a8": tuple(1.85 for _ in CALIBRATION_ROWS),
    }
)


class Memory:
    """A machine whose memory fills up on demand, and a clock."""

    def __init__(self) -> None:
        self.in_use, self.at_s = 0.5, 0.0
        self.loaded: list[Precision] = []

    def load(self, precision: Precision) -> ModelWeights:
        self.loaded.append(precision)
        empty = torch.zeros(1)
        return ModelWeights(empty, (), empty, DenseWeight(empty, None))

    def manager(self) -> AutoPrecisionManager:
        return AutoPrecisionManager(
            ("int4", "w8a8"), self.load, COSTS, lambda: self.in_use, PressureLimits(), lambda: self.at_s
        )


def test_the_faster_one_is_taken_between_and_beyond_what_was_measured() -> None:
    both: tuple[Precision, ...] = ("int4", "w8a8")
    chosen = {rows: COSTS.fastest(rows, both) for rows in (1, 7, 8, 9, 20, 64, 500)}
    assert chosen == {1: "int4", 7: "int4", 8: "int4", 9: "w8a8", 20: "w8a8", 64: "w8a8", 500: "w8a8"}
    assert COSTS.fastest(500, ("int4",)) == "int4"


def test_steps_are_counted() -> None:
    manager = Memory().manager()
    for rows in (1, 4, 32):
        manager.weights(rows)
    report = manager.report()
    assert (report.steps, report.rows) == ({"int4": 2, "w8a8": 1}, {"int4": 5, "w8a8": 32})
    assert (report.switched_under_pressure, report.restored) == (0, 0)


def test_memory_takes_the_larger_one_away_and_gives_it_back() -> None:
    memory = Memory()
    manager = memory.manager()
    assert memory.loaded == ["int4", "w8a8"]
    memory.in_use = 0.85
    manager.weights(32)
    assert manager.kept == ("int4", "w8a8"), "it is looked at once a second"
    memory.at_s = 1.0
    manager.weights(32)
    assert manager.kept == ("int4",)
    memory.in_use, memory.at_s = 0.7, 2.0
    manager.weights(32)
    assert manager.kept == ("int4",), "between the limits nothing changes"
    memory.in_use, memory.at_s = 0.55, 3.0
    manager.weights(32)
    assert manager.kept == ("int4", "w8a8") and memory.loaded == ["int4", "w8a8", "w8a8"]
    report = manager.report()
    assert (report.switched_under_pressure, report.restored) == (1, 1)
    assert report.steps == {"w8a8": 2, "int4": 2}


def test_what_would_not_fit_is_not_brought_back() -> None:
    """The memory freed by dropping the larger one makes room for it only as long as it is not there."""
    memory = Memory()
    manager = memory.manager()
    memory.in_use = 0.85
    others = 0.58  # without the larger precision; with it 0.85
    for at_s in range(1, 20):
        memory.at_s = float(at_s)
        manager.weights(32)
        memory.in_use = others if manager.kept == ("int4",) else 0.85
    report = manager.report()
    assert (report.switched_under_pressure, report.restored) == (1, 0)
    memory.in_use, memory.at_s = 0.4, 30.0  # now there is room for 0.27 more
    manager.weights(32)
    assert manager.kept == ("int4", "w8a8")


def test_under_pressure_from_the_start_only_the_smallest_is_loaded() -> None:
    memory = Memory()
    memory.in_use = 0.9
    assert memory.manager().kept == ("int4",) and memory.loaded == ["int4"]


@pytest.mark.parametrize("limits", [(0.6, 0.8), (0.8, 0.8), (1.1, 0.5), (0.5, 0.0)])
def test_limits_that_make_no_sense(limits: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low"):
        PressureLimits(high=limits[0], low=limits[1])


def test_costs_are_measured_once(tmp_path: Path) -> None:
    path, measured = tmp_path / "calibration" / "costs.json", []

    def measure() -> StepCosts:
        measured.append(1)
        return COSTS

    both: tuple[Precision, ...] = ("int4", "w8a8")
    first, again = (remembered_costs(path, both, measure) for _ in range(2))
    assert first == again == COSTS and len(measured) == 1
    for damage in ("{", json.dumps({"rows": [1], "seconds": {"int4": [1], "w8a8": [1]}}), json.dumps({"rows": 3})):
        path.write_text(damage)
        assert remembered_costs(path, both, measure) == COSTS
    assert len(measured) == 4
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file where a folder should be")
    assert remembered_costs(path, both, measure) == COSTS


def mapped_files(name: str) -> int:
    return Path("/proc/self/maps").read_text().count(name)


def test_a_model_that_changes_precision(kernels: NativeKernels, tiny: TinyModel, engine_cache: Path) -> None:
    """Both are used, one after the other; and what memory takes away is really unmapped."""
    loaded = load(tiny.folder, engine_cache, precision="auto")
    manager = loaded.precisions
    assert manager is not None and manager.kept == ("int4", "w8a8")
    manager._costs = COSTS
    ended = run_all(loaded.engine, [[1 + i, 2, 3] for i in range(12)], [greedy(5 if i else 12) for i in range(12)])
    assert len(ended.outputs) == 12
    report = manager.report()
    assert report.steps["int4"] > 0 and report.steps["w8a8"] > 0
    manager._memory_in_use = lambda: 0.95
    manager._checked_s -= 10
    loaded.engine.add("again", [5, 6, 7], greedy(2))
    before = mapped_files("-w8a8-")
    while loaded.engine.has_work:
        loaded.engine.step()
    gc.collect()
    assert manager.kept == ("int4",) and mapped_files("-w8a8-") < before


def test_auto_excludes_what_needs_one_precision() -> None:
    with pytest.raises(ValueError, match="batch_invariant needs one precision"):
        EngineConfig(precision="auto", batch_invariant=True)
    with pytest.raises(ValueError, match="tensor_parallel needs one precision"):
        EngineConfig(precision="auto", tensor_parallel=2)


def test_auto_takes_one_precision_where_two_make_no_sense(tmp_path: Path, engine_cache: Path) -> None:
    """A vocabulary that the kernels do not take, or a width that int4 cannot pack: int8 alone."""
    for name, changed in (("vocabulary", {"vocab_size": 298}), ("width", {"intermediate_size": 112})):
        odd = make_tiny_model(tmp_path / name, tie_word_embeddings=True, **changed)
        loaded = load(odd.folder, engine_cache, precision="auto")
        assert loaded.precisions is None
        assert list(run_all(loaded.engine, [[1, 2, 3]], [greedy(2)]).outputs) == ["0"]


def test_a_cache_that_memory_cannot_hold(tiny: TinyModel, engine_cache: Path) -> None:
    with pytest.raises(EngineError, match="lower kv_cache_bytes"):
        load(tiny.folder, engine_cache, num_blocks=10**12)
