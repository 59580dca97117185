"""Whole plans: what fits, what to change where it does not, engines that share GPUs, and a problem's budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mathlete.planning.engine_plan import plan_engine
from mathlete.planning.hardware import Hardware, find_accelerator
from mathlete.planning.models import find_model
from mathlete.planning.parallel_weights import Layout
from mathlete.planning.plan import make_plan
from mathlete.planning.planned import AttemptShape, ContestShape, PlannedEngine
from mathlete.planning.vllm_memory import VLLMLimits
from mathlete.planning.weight_formats import EMBEDDED_FORMATS, FORMATS

H100 = find_accelerator("h100-sxm-80gb")
ATTEMPTS = AttemptShape(attempts=8, prompt=512, length=16_384, mean_new=8_000)


def engine(model: str, packed: str = "bf16", **changes: Any) -> PlannedEngine:
    made = PlannedEngine(
        "main", "vllm", find_model(model), FORMATS[packed], max_model_len=32_768, limits=VLLMLimits(max_num_seqs=32)
    )
    return replace(made, **changes)


def test_gpt_oss_fits_one_h100() -> None:
    plan = make_plan([engine("gpt-oss-120b", "mxfp4", kv_cache_dtype="fp8")], Hardware(H100), ATTEMPTS)
    (found,) = plan.engines
    assert plan.fits and found.attempts_at_length >= 8 and not plan.advice["main"]


def test_72b_in_bf16_does_not_and_the_advice_helps() -> None:
    hardware = Hardware(H100, count=4)
    plan = make_plan([engine("Qwen2.5-72B-Instruct")], hardware, ATTEMPTS)
    assert not plan.fits
    advice = "\n".join(plan.advice["main"])
    assert "tensor_parallel_size = 4, 4 GPUs: then" in advice
    assert "weights in nf4: then" in advice and "weights in awq" in advice
    assert plan.proposals[0].layout == Layout(4)
    assert plan.proposals[0].plan.fits


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("fp8 keys", {"kv_cache_dtype": "fp8"}),
        ("narrower weights", {"packed": "awq"}),
        ("more GPUs", {"layout": Layout(2)}),
    ],
)
def test_each_remedy_makes_room(name: str, changed: dict[str, Any]) -> None:
    before = plan_engine(engine("QwQ-32B"), H100, ATTEMPTS)
    after = plan_engine(engine("QwQ-32B", **changed), H100, ATTEMPTS)
    assert after.attempts_at_length > before.attempts_at_length, name


def test_when_some_attempts_do_not_fit_it_says_how_many_and_how_long() -> None:
    plan = make_plan([engine("QwQ-32B")], Hardware(H100), ATTEMPTS)
    (found,) = plan.engines
    assert plan.fits and found.attempts_at_length < 8
    assert f"of 8 attempts only {found.attempts_at_length} fit at once" in found.warnings[0]
    advice = plan.advice["main"]
    assert f"fewer attempts: {found.attempts_at_length} fit at 16,384 tokens" in advice
    (shorter,) = (piece for piece in advice if piece.startswith("shorter attempts"))
    length = int(shorter.split()[2].replace(",", ""))
    assert plan_engine(found.engine, H100, replace(ATTEMPTS, length=length, mean_new=1)).attempts_at_length >= 8
    longer = replace(ATTEMPTS, length=length + 64, mean_new=1)
    assert plan_engine(found.engine, H100, longer).attempts_at_length < 8


def test_small_models_are_proposed_as_copies() -> None:
    l4 = find_accelerator("l4-24gb")
    shared = engine("OpenMath-Nemotron-14B", "fp8", layout=Layout(4), kv_cache_dtype="fp8")
    plan = make_plan([shared], Hardware(l4, 4), AttemptShape(8, 512, 8192, 3000))
    (proposal,) = plan.proposals
    assert proposal.layout.num_gpus == 4 and proposal.layout.data_parallel > 1
    assert proposal.plan.speeds[-1].slow_tokens_per_s > plan.engines[0].speeds[-1].slow_tokens_per_s


def test_a_model_larger_than_a_host_gets_stages() -> None:
    hosts = Hardware(H100, count=2, hosts=2)
    plan = make_plan([engine("Qwen2.5-72B-Instruct")], hosts, ATTEMPTS)
    assert plan.proposals[0].layout == Layout(2, 2)
    shared = make_plan([engine("Qwen2.5-72B-Instruct", layout=Layout(4))], hosts, ATTEMPTS)
    assert "between hosts use pipeline parallelism" in shared.problems[0]


def two(first: float, second: float, gpus: int = 2) -> Any:
    coder = engine(
        "Qwen2.5-Math-72B-Instruct", "nf4", name="coder", layout=Layout(2), max_model_len=4096,
        limits=VLLMLimits(first, max_num_seqs=32),
    )  # fmt: skip
    reasoner = engine(
        "DeepSeek-R1-Distill-Qwen-32B", "nf4", name="reasoner", layout=Layout(2), limits=VLLMLimits(second, 32)
    )
    return make_plan([coder, reasoner], Hardware(H100, gpus), ATTEMPTS, ContestShape(50, 17_400))


def test_two_engines_share_two_gpus() -> None:
    plan = two(0.5, 0.42)
    assert plan.fits
    assert [load.engines for load in plan.loads] == [("coder", "reasoner")] * 2
    assert plan.engines[0].attempts.length == 4096, "its own limit"
    assert plan.budget is not None and plan.budget.seconds == 348
    alone = sum(one.speeds[-1].slow_tokens_per_s for one in plan.engines)
    assert plan.budget.slow_tokens == pytest.approx(0.8 * 348 * alone / 2)


def test_engines_that_claim_too_much_together_do_not_fit() -> None:
    plan = two(0.6, 0.6)
    assert not plan.fits and plan.budget is None
    assert "GPU 0 of host 0: coder and reasoner claim" in plan.problems[0]


def test_engines_that_ask_for_gpus_that_are_not_there() -> None:
    plan = two(0.6, 0.4, gpus=1)
    assert "coder takes 2 GPUs, and there are 1" in plan.problems[0]
    assert plan.advice["coder"] == (
        "it needs more than 1 x NVIDIA H100 SXM 80 GB, or more than 0.6 of their memory (gpu_memory_utilization)",
    ) or plan.advice["coder"][0].startswith("tensor_parallel_size = 1")


def test_more_positions_than_the_model_has_are_refused() -> None:
    plan = make_plan([engine("Qwen2.5-Math-7B-Instruct", max_model_len=8192)], Hardware(H100), ATTEMPTS)
    assert "more than the 4,096 positions" in plan.engines[0].problems[0]
    assert plan.advice["main"][0].startswith("lower max_model_len to 4,096")


def test_fp8_on_a_gpu_without_it_is_told() -> None:
    a100 = find_accelerator("a100-sxm-80gb")
    (found,) = make_plan([engine("QwQ-32B", "fp8")], Hardware(a100), ATTEMPTS).engines
    assert any("has no 8-bit floats" in warning for warning in found.warnings)


def test_nothing_is_faster_than_the_roofline_and_more_at_once_is_faster() -> None:
    (found,) = make_plan([engine("gpt-oss-120b", "mxfp4")], Hardware(H100), ATTEMPTS).engines
    for speed in found.speeds:
        assert speed.slow_tokens_per_s < speed.fast_tokens_per_s < speed.roofline_tokens_per_s
    slow = [speed.slow_tokens_per_s for speed in found.speeds]
    assert slow == sorted(slow)
    experts = [speed.experts for speed in found.speeds]
    assert experts[0] == pytest.approx(4) and all(one is not None and one < 128 for one in experts)


def test_the_embedded_engine_on_a_cpu() -> None:
    embedded = PlannedEngine(
        "main", "ryanstream", find_model("1.5b"), EMBEDDED_FORMATS["w8a8"], on_cpu=True, precisions=("w8a8", "int4"),
        max_model_len=1536, limits=VLLMLimits(max_num_seqs=32, max_num_batched_tokens=256),
    )  # fmt: skip
    shape = AttemptShape(8, 512, 1536, 512)
    plan = make_plan([embedded], Hardware(find_accelerator("cpu-2-cores")), shape)
    (found,) = plan.engines
    assert plan.fits and not plan.proposals
    assert 2.5e9 < found.memory.weights < 3.3e9, "both precisions"
    small = Hardware(replace(find_accelerator("cpu-2-cores"), memory_gib=2.5))
    assert not make_plan([embedded], small, shape).fits


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (lambda: AttemptShape(attempts=0), "attempts must be from 1 to 1,000,000, not 0"),
        (lambda: AttemptShape(prompt=512, length=512), "length must be more than the prompt's"),
        (lambda: AttemptShape(prompt=512, length=1024, mean_new=600), "mean_new must be from 1"),
        (lambda: ContestShape(0, 1.0), "problems must be >= 1"),
        (lambda: ContestShape(1, 0.0), "solving_s must be > 0"),
        (lambda: engine("0.5b", max_model_len=1), "max_model_len must be >= 2"),
        (lambda: engine("0.5b", kind="ryanstream"), "precisions must name at least one"),
        (lambda: Layout(0), "tensor_parallel must be >= 1"),
    ],
)
def test_inputs_are_checked(made: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        made()
