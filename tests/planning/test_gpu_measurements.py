"""The plan of the embedded engine on a GPU against what benchmarks/plan_on_gpu.py measured on one H200."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mathlete.planning.efficiency import efficiency_of, expected_step
from mathlete.planning.embedded_memory import EmbeddedLoad, embedded_format, kv_of, memory_on_gpu
from mathlete.planning.hardware import GIB, find_accelerator
from mathlete.planning.models import find_model
from mathlete.planning.parallel_weights import Layout, weight_bytes
from mathlete.planning.roofline import PlacedModel

PROMPT = 480
MEASURED: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "benchmarks" / "data" / "plan_on_gpu_h200.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MEASURED["cases"])
def test_memory_of_shapes_with_random_weights(name: str) -> None:
    found = MEASURED["cases"][name]
    case = found["case"]
    load = EmbeddedLoad(
        (case["precision"],), attempts=case["attempts"], prompt=PROMPT, length=case["length"],
        max_model_len=case["length"],
    )  # fmt: skip
    planned = memory_on_gpu(find_model(case["model"]), load, found["kv_blocks"])
    assert (planned.weights + planned.embedding + planned.tables) / GIB == pytest.approx(found["weights_gib"], rel=0.01)
    assert planned.kv / GIB == pytest.approx(found["kv_gib"], rel=0.01)
    assert planned.total / GIB == pytest.approx(found["device_gib"], rel=0.01)
    at_work = found["peak_gib"] - found["allocated_gib"]  # with NF4 the largest weight written out is most of it
    assert planned.workspace / GIB == pytest.approx(at_work, abs=0.06)


def test_the_specifications_figures_were_measured() -> None:
    """72B in NF4 "about 35 GB" and 32B "about 20 GB": with an fp32 absmax and tables in 16 bits."""
    sizes = {name: MEASURED["cases"][name]["weights_gib"] * GIB / 1e9 for name in ("72b-nf4", "32b-nf4")}
    assert sizes["72b-nf4"] == pytest.approx(44.6, abs=0.1)
    assert sizes["32b-nf4"] == pytest.approx(20.8, abs=0.1)


@pytest.mark.parametrize("name", MEASURED["cases"])
def test_decoding_lies_in_the_band(name: str) -> None:
    found = MEASURED["cases"][name]
    shape = find_model(found["case"]["model"])
    packed = embedded_format(found["case"]["precision"], on_gpu=True)
    gpu = find_accelerator(MEASURED["accelerator"])
    placed = PlacedModel(shape, packed, Layout(), weight_bytes(shape, packed), kv_of(shape, "bf16"), gpu)
    band = efficiency_of("ryanstream", packed, is_cpu=False)
    for batch, decode in found["decode"].items():
        rows = int(batch)
        expected = expected_step(placed.decode(rows, PROMPT + 12), band, rows)
        assert rows / expected.slow_s <= decode["tokens_per_s"] <= rows / expected.fast_s


@pytest.mark.parametrize("name", MEASURED["nf4_before"]["cases"])
def test_the_product_that_took_the_codes_in_is_kept_beside_the_one_that_replaced_it(name: str) -> None:
    before, now = MEASURED["nf4_before"]["cases"][name], MEASURED["cases"][name]
    assert before["case"] == now["case"] and before["weights_gib"] == now["weights_gib"]
    for batch, decode in before["decode"].items():
        assert 5 < decode["step_ms"] / now["decode"][batch]["step_ms"] < 6.1


@pytest.mark.parametrize("name", MEASURED["cases"])
def test_the_engine_held_as_many_blocks_as_planned(name: str) -> None:
    found = MEASURED["cases"][name]
    kv = kv_of(find_model(found["case"]["model"]), "bf16")
    for batch, decode in found["decode"].items():
        planned = kv.attempts_bytes(int(batch), PROMPT, PROMPT + 23)  # the last token is drawn, not stored
        assert planned == decode["blocks"] * 16 * kv.token_bytes
