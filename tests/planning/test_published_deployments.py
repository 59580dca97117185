"""The plan against what was published of deployments; the same constants for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from published_deployments import MEMORY, SPEEDS, PublishedMemory, PublishedSpeed

from mathlete.planning.efficiency import efficiency_of, expected_step
from mathlete.planning.engine_plan import EnginePlan, plan_engine
from mathlete.planning.hardware import GIB, find_accelerator
from mathlete.planning.models import find_model
from mathlete.planning.planned import AttemptShape, PlannedEngine
from mathlete.planning.roofline import PlacedModel
from mathlete.planning.weight_formats import FORMATS

DOCS = Path(__file__).parents[2] / "docs" / "planning.md"


def planned(case: PublishedMemory) -> EnginePlan:
    engine = PlannedEngine(
        "main",
        "vllm",
        find_model(case.model),
        FORMATS[case.packed],
        case.layout,
        max_model_len=4096,
        limits=case.limits,
    )
    return plan_engine(engine, find_accelerator(case.accelerator), AttemptShape())


@pytest.mark.parametrize("case", MEMORY, ids=lambda case: case.model)
def test_weights_are_within_two_percent_of_what_was_logged(case: PublishedMemory) -> None:
    assert planned(case).memory.weights / GIB == pytest.approx(case.weights_gib, rel=0.02)


@pytest.mark.parametrize("case", [case for case in MEMORY if case.kv_gib is not None], ids=lambda case: case.model)
def test_what_is_left_for_keys_and_values(case: PublishedMemory) -> None:
    """Within a fortieth of the memory of the GPU: it is a small difference of large numbers."""
    assert case.kv_gib is not None
    memory = find_accelerator(case.accelerator).memory_gib
    assert abs(planned(case).memory.kv_room / GIB - case.kv_gib) < memory / 40


@pytest.mark.parametrize("case", [case for case in MEMORY if case.kv_tokens], ids=lambda case: case.model)
def test_tokens_that_the_cache_holds(case: PublishedMemory) -> None:
    assert planned(case).kv_tokens == pytest.approx(case.kv_tokens, rel=0.08)


def test_a_token_takes_exactly_what_vllm_gave_it() -> None:
    """8.99 GiB were 130,960 tokens."""
    case = MEMORY[0]
    assert case.kv_gib is not None and case.kv_tokens is not None
    assert planned(case).kv.token_bytes == pytest.approx(case.kv_gib * GIB / case.kv_tokens, rel=1e-3)


def test_the_one_that_did_not_start_does_not_fit() -> None:
    plan = planned(MEMORY[-1])
    assert not plan.fits
    assert "not enough for one attempt" in plan.problems[0]


@pytest.mark.parametrize("case", SPEEDS, ids=lambda case: f"{case.model}-{case.packed}-{case.context}")
def test_published_speeds_lie_in_the_band(case: PublishedSpeed) -> None:
    plan = plan_engine(
        PlannedEngine("main", "vllm", find_model(case.model), FORMATS[case.packed], case.layout),
        find_accelerator(case.accelerator),
        AttemptShape(),
    )
    placed = PlacedModel(
        plan.engine.shape,
        plan.engine.packed,
        case.layout,
        plan.gpu_weights,
        plan.kv,
        find_accelerator(case.accelerator),
    )
    step = placed.decode(case.batch, case.context)
    expected = expected_step(step, efficiency_of("vllm", plan.engine.packed, is_cpu=False), case.batch)
    assert case.batch / expected.slow_s <= case.tokens_per_s <= case.batch / expected.fast_s
    assert case.tokens_per_s < case.batch / step.seconds, "nobody is faster than the roofline"


def test_the_docs_name_every_source() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert all(case.url in text for case in (*MEMORY, *SPEEDS))
