"""Weights, keys and values, and steps: counted by hand where that can be done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.errors import InputError
from mathlete.planning.embedded_memory import EmbeddedLoad, embedded_format, memory_on_gpu
from mathlete.planning.hardware import Hardware, find_accelerator, known_accelerators
from mathlete.planning.kv_memory import kv_layers_per_gpu
from mathlete.planning.model_shape import ModelShape, count_parameters
from mathlete.planning.models import find_model
from mathlete.planning.parallel_weights import Layout, layout_problem, weight_bytes, weight_bytes_per_gpu
from mathlete.planning.published_models import published_models
from mathlete.planning.roofline import PlacedModel, expected_experts
from mathlete.planning.weight_formats import FORMATS, weight_format

# As publishers count them (10^9 weights in the file), from the model cards.
PUBLISHED = {
    "openai/gpt-oss-120b": 116.83, "openai/gpt-oss-20b": 20.91, "Qwen/Qwen2.5-Math-72B-Instruct": 72.7,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": 32.8, "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": 14.8,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7.62, "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1.78,
    "nvidia/OpenMath-Nemotron-14B": 14.8, "Qwen/Qwen3-30B-A3B": 30.5, "Qwen/QwQ-32B": 32.8,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": 1.54, "Qwen/Qwen2.5-Coder-0.5B-Instruct": 0.494,
    "meta-llama/Llama-3.3-70B-Instruct": 70.6, "meta-llama/Llama-3.1-8B-Instruct": 8.03, "Qwen/Qwen3-32B": 32.8,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name: str) -> None:
    assert count_parameters(find_model(name)).total / 1e9 == pytest.approx(PUBLISHED[name], rel=0.003)


def test_active_parameters_of_gpt_oss() -> None:
    """The model card says 5.13 and 3.61 x 10^9, of which it counts the embedding table's as well as the head's once."""
    assert count_parameters(find_model("gpt-oss-120b")).active / 1e9 == pytest.approx(5.13, rel=0.01)
    assert count_parameters(find_model("gpt-oss-20b")).active / 1e9 == pytest.approx(3.61, rel=0.01)


def test_the_specifications_72b_in_nf4() -> None:
    """Codes alone are the specification's 35 GB; scales and unpacked tables make it 41 to 44 GB."""
    shape = find_model("Qwen2.5-Math-72B-Instruct")
    codes = count_parameters(shape).linear / 2
    assert codes / 1e9 == pytest.approx(35.1, abs=0.05)
    assert weight_bytes(shape, FORMATS["nf4-dq"]).total / 1e9 == pytest.approx(41.2, abs=0.05)
    assert weight_bytes(shape, FORMATS["nf4"]).total / 1e9 == pytest.approx(44.5, abs=0.05)


def test_the_specifications_32b_in_nf4() -> None:
    shape = find_model("DeepSeek-R1-Distill-Qwen-32B")
    assert weight_bytes(shape, FORMATS["nf4-dq"]).total / 1e9 == pytest.approx(19.2, abs=0.05)
    assert weight_bytes(shape, FORMATS["nf4"]).total / 1e9 == pytest.approx(20.7, abs=0.05)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bf16", 2.0), ("fp8", 1.0), ("awq", 0.5 + 2.5 / 128), ("nf4", 0.5625), ("nf4-fp16", 0.53125), ("mxfp4", 0.53125)],
)
def test_bytes_of_a_weight(name: str, expected: float) -> None:
    assert FORMATS[name].bytes_per_weight == expected


def test_engines_names_of_formats_are_known() -> None:
    assert weight_format("bitsandbytes") is FORMATS["nf4"]
    assert weight_format("auto") is FORMATS["bf16"]
    with pytest.raises(InputError, match="knows no weights in 'exl2'"):
        weight_format("exl2")


def test_a_gpu_of_two_holds_half_of_what_can_be_cut() -> None:
    shape = find_model("DeepSeek-R1-Distill-Qwen-32B")
    whole, half = (weight_bytes_per_gpu(shape, FORMATS["bf16"], Layout(t)) for t in (1, 2))
    assert half.attention == whole.attention / 2 and half.feed_forward == whole.feed_forward / 2
    assert half.embedding == whole.embedding / 2 and half.head == whole.head / 2
    assert half.unquantized == whole.unquantized


def test_key_heads_are_copied_where_there_are_fewer_than_gpus() -> None:
    shape = find_model("Qwen2.5-Math-7B-Instruct")  # 4 key heads
    assert layout_problem(replace(shape, num_heads=32, hidden_size=4096, intermediate_size=16384), Layout(8)) is None
    four, eight = (kv_layers_per_gpu(shape, "bf16", Layout(t)).token_bytes for t in (4, 8))
    assert four == eight == 2 * 28 * 128 * 2


def test_stages_share_the_layers_and_not_the_tables() -> None:
    shape = find_model("Qwen2.5-Math-72B-Instruct")
    whole, stage = (weight_bytes_per_gpu(shape, FORMATS["bf16"], Layout(1, p)) for p in (1, 4))
    assert stage.feed_forward == whole.feed_forward / 4
    assert stage.embedding + stage.head == whole.embedding


@pytest.mark.parametrize(
    ("name", "layout", "group", "complaint"),
    [
        ("Qwen2.5-Math-7B-Instruct", Layout(8), 0, "does not divide the 28 query heads"),
        ("Qwen2.5-Math-72B-Instruct", Layout(2), 128, "cuts through groups of 128"),
        ("Qwen2.5-Math-72B-Instruct", Layout(1, 99), 0, "more than the 80 layers"),
    ],
)
def test_what_cannot_be_cut(name: str, layout: Layout, group: int, complaint: str) -> None:
    found = layout_problem(find_model(name), layout, group)
    assert found is not None and complaint in found


def test_qwens_own_awq_checkpoint_is_widened_and_can_be_cut() -> None:
    assert layout_problem(find_model("Qwen2.5-72B-Instruct-AWQ"), Layout(2), 128) is None


def test_keys_and_values_of_siblings_share_the_prompt() -> None:
    kv = kv_layers_per_gpu(find_model("0.5b"), "bf16", Layout())
    assert kv.token_bytes == 2 * 24 * 2 * 64 * 2
    assert kv.attempts_bytes(10, 160, 320) == (160 + 10 * 160) * kv.token_bytes
    assert (
        kv.attempts_bytes(10, 170, 320) == (160 + 10 * 160) * kv.token_bytes
    )  # a partly filled block is each one's own


def test_a_sliding_layer_keeps_its_window() -> None:
    kv = kv_layers_per_gpu(find_model("gpt-oss-120b"), "bf16", Layout())
    assert kv.full_bytes == kv.sliding_bytes == 18 * 2 * 8 * 64 * 2
    assert kv.sequence_bytes(16_000) == 16_000 * kv.full_bytes + 144 * kv.sliding_bytes
    assert kv.sequence_bytes(64) == 64 * kv.token_bytes


def test_fp8_takes_half_and_the_embedded_int8_a_little_more() -> None:
    shape = find_model("1.5b")
    bf16, fp8, int8 = (kv_layers_per_gpu(shape, name, Layout()).token_bytes for name in ("bf16", "fp8", "int8"))
    assert (fp8 / bf16, int8 / bf16) == (0.5, 0.53125)
    with pytest.raises(InputError, match="not known"):
        kv_layers_per_gpu(shape, "fp2", Layout())


@given(st.integers(1, 64), st.integers(1, 2000), st.integers(16, 4000), st.floats(0, 1e11))
def test_as_many_attempts_fit_as_are_said_to(attempts: int, prompt: int, more: int, room: float) -> None:
    kv = kv_layers_per_gpu(find_model("gpt-oss-20b"), "fp8", Layout(2))
    fit = kv.attempts_that_fit(room, prompt, prompt + more)
    assert fit == 0 or kv.attempts_bytes(fit, prompt, prompt + more) <= room * (1 + 1e-9)
    assert kv.attempts_bytes(fit + 1, prompt, prompt + more) > room * (1 - 1e-9)
    assert kv.attempts_bytes(attempts, prompt, prompt + more) <= attempts * kv.sequence_bytes(prompt + more)


def test_distinct_experts() -> None:
    assert expected_experts(128, 4, 1) == pytest.approx(4)
    assert expected_experts(128, 4, 2) == pytest.approx(8 - 16 / 128)
    assert expected_experts(128, 4, 1e4) == pytest.approx(128)
    assert expected_experts(8, 8, 1) == 8


def placed(name: str, packed: str, layout: Layout, gpu: str) -> PlacedModel:
    shape = find_model(name)
    return PlacedModel(
        shape, FORMATS[packed], layout, weight_bytes_per_gpu(shape, FORMATS[packed], layout),
        kv_layers_per_gpu(shape, "bf16", layout), find_accelerator(gpu),
    )  # fmt: skip


def test_one_sequence_waits_for_memory_and_a_prompt_for_arithmetic() -> None:
    model = placed("Qwen2.5-7B-Instruct", "bf16", Layout(), "h100-sxm-80gb")
    assert model.decode(1, 1000).bound == "memory"
    assert model.decode(1, 0).seconds == pytest.approx(2 * 7.07e9 / 3.35e12, rel=0.01)
    assert model.prefill(8192).bound == "compute"
    attention = 4 * 28 * 3584 * 4096 * 8192  # a row sees half of the prompt on average
    assert model.prefill(8192).seconds == pytest.approx((2 * 6.525e9 * 8192 + attention) / 989.4e12, rel=0.01)


def test_weights_that_are_written_out_are_read_as_codes_written_and_read_again() -> None:
    codes = placed("Qwen2.5-Math-72B-Instruct", "nf4", Layout(), "h200-sxm-141gb")
    written_out = replace(codes, packed=embedded_format("nf4", on_gpu=True))
    in_layers, bandwidth, peak = 80 * (2 * 8192 * (8192 + 1024) + 3 * 8192 * 29_568), 4800e9, 989.4e12
    step, roofline = written_out.decode(1, 0), codes.decode(1, 0)
    assert roofline.work_s == roofline.read_s == step.read_s, "the roofline is that of codes"
    assert step.work_s - step.read_s == pytest.approx((2 + 2) * in_layers / bandwidth)
    assert codes.decode(1, 0).weight_bytes == pytest.approx(0.5625 * in_layers + 2 * 152_064 * 8192, rel=0.001)
    prompt = written_out.prefill(8192)  # multiplied after, not while, it is written out
    assert prompt.work_s == pytest.approx((0.5625 + 2) * in_layers / bandwidth + prompt.operations / peak)


def test_the_largest_product_is_written_out_and_only_in_nf4() -> None:
    shape = find_model("Qwen2.5-Math-72B-Instruct")
    nf4, bf16, both = (
        memory_on_gpu(shape, EmbeddedLoad(names)).workspace for names in (("nf4",), ("bf16",), ("bf16", "nf4"))
    )
    assert nf4 - bf16 == 2 * (2 * 29_568 * 8192), "gate and up, two bytes a weight"
    assert both == nf4
    halved = memory_on_gpu(shape, EmbeddedLoad(("nf4",)), layout=Layout(2)).workspace
    assert nf4 - halved == 2 * 29_568 * 8192


def test_sharing_layers_costs_links() -> None:
    alone, shared = (placed("Qwen2.5-7B-Instruct", "bf16", Layout(t), "l4-24gb").decode(1, 0) for t in (1, 4))
    assert alone.link_s == 0
    assert shared.link_s >= 2 * 28 * 30e-6
    assert shared.read_s == pytest.approx(alone.read_s / 4, rel=0.01)


def test_stages_hand_on_between_hosts() -> None:
    near = placed("Qwen2.5-7B-Instruct", "bf16", Layout(1, 2), "h100-sxm-80gb")
    far = replace(near, host_link_gb_per_s=0.1)
    assert far.decode(8, 0).seconds - near.decode(8, 0).seconds == pytest.approx(
        2 * 4 * 3584 * 2 * (1 / 1e8 - 1 / 12.5e9)
    )


def test_every_accelerator_names_its_source() -> None:
    for name, one in known_accelerators().items():
        assert one.source and one.peak_tflops["bf16"] > 0 and one.bandwidth_gb_per_s > 0, name
    with pytest.raises(InputError, match="known are h100-sxm-80gb"):
        find_accelerator("h100")
    with pytest.raises(ValueError, match="count must be from 1"):
        Hardware(find_accelerator("l4-24gb"), count=0)
    with pytest.raises(ValueError, match="count must be 1 for a CPU"):
        Hardware(find_accelerator("cpu-2-cores"), count=2)


def test_every_published_model_names_its_source() -> None:
    assert all(shape.source.startswith("https://") for shape in published_models().values())


@pytest.mark.parametrize(("field", "value"), [("num_layers", 0), ("num_kv_heads", 5), ("num_sliding_layers", 3)])
def test_shapes_are_checked(field: str, value: int) -> None:
    shape: ModelShape = find_model("0.5b")
    with pytest.raises(ValueError, match=field):
        replace(shape, **{field: value})
