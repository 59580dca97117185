"""Each native kernel against its twin in torch, on odd shapes and extreme values; and a whole forward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from driving import load, run_all
from tiny_qwen import TinyModel
from torch import Tensor

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.native.kernels import MAX_GROUP, NativeKernels, QuantizedRows
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.ops_native import NativeOps, native_supports
from mathlete.ryanstream.model.ops_torch import TorchOps, linear, rms_norm
from mathlete.ryanstream.model.quantization import pack_int8_torch, quantize_rows, unpack_int8
from mathlete.ryanstream.model.rotary import rotary_tables
from mathlete.ryanstream.model.weights import PackedWeight

ROWS = (1, 2, 3, 13, 14, 15, 28, 29, 40)
BLOCK = 16


def _extreme_rows(width: int, rng: torch.Generator) -> Tensor:
    """Zeros, tiny, huge, one spike, NaN, infinities, and an ordinary row."""
    x = torch.randn((9, width), generator=rng)
    x[0] = 0
    x[1] *= 1e-38
    x[2] *= 1e37
    x[3] = 0
    x[3, 5] = -3e38
    x[4, 1] = torch.nan
    x[5, width - 1] = torch.inf
    x[6, 0] = -torch.inf
    x[7] = 1e-45
    return x


def _same_rows(rows: QuantizedRows, x: Tensor, off_by_one: float = 0.0) -> None:
    """`rows` is x quantised; at most this share of codes may be one off (x came through another rounding)."""
    expected = quantize_rows(x)
    torch.testing.assert_close(rows.scales[:, 0], expected.scales, rtol=2e-6, atol=0, equal_nan=True)
    differences = (rows.codes.int() - expected.codes.int()).abs()
    assert differences.max() <= (1 if off_by_one else 0)
    assert (differences > 0).float().mean() <= off_by_one
    assert torch.equal(rows.sums[:, 0], rows.codes.int().sum(1, dtype=torch.int32))


@pytest.mark.parametrize("num_rows", ROWS)
def test_quantize(kernels: NativeKernels, rng: torch.Generator, num_rows: int) -> None:
    x = torch.randn((num_rows, 16 * num_rows), generator=rng) * 10
    _same_rows(kernels.quantize(x), x)


def test_quantize_extremes(kernels: NativeKernels, rng: torch.Generator) -> None:
    x = _extreme_rows(48, rng)
    rows = kernels.quantize(x)
    _same_rows(rows, x)
    assert rows.scales[:, 0].isnan().tolist() == [False] * 4 + [True] * 3 + [False] * 2


@pytest.mark.parametrize("num_rows", ROWS)
def test_rmsnorm_quantize(kernels: NativeKernels, rng: torch.Generator, num_rows: int) -> None:
    x, weight = torch.randn((num_rows, 96), generator=rng) * 3, torch.rand(96, generator=rng) + 0.5
    _same_rows(kernels.rmsnorm_quantize(x, weight, 1e-6), rms_norm(x, weight, 1e-6), off_by_one=0.01)


def test_rmsnorm_quantize_extremes(kernels: NativeKernels, rng: torch.Generator) -> None:
    x, weight = _extreme_rows(64, rng), torch.ones(64)
    x[2:4] = torch.randn((2, 64), generator=rng) * 1e17  # the square of 1e37 is infinite in both
    _same_rows(kernels.rmsnorm_quantize(x, weight, 1e-6), rms_norm(x, weight, 1e-6), off_by_one=0.01)


@pytest.mark.parametrize("num_rows", ROWS)
def test_swiglu_quantize(kernels: NativeKernels, rng: torch.Generator, num_rows: int) -> None:
    gate_up = torch.randn((num_rows, 160), generator=rng) * 4
    gate, up = gate_up.chunk(2, dim=-1)
    _same_rows(kernels.swiglu_quantize(gate_up), torch.nn.functional.silu(gate) * up, off_by_one=0.01)


def test_swiglu_quantize_extremes(kernels: NativeKernels, rng: torch.Generator) -> None:
    gate_up = torch.randn((5, 64), generator=rng)
    gate_up[0, :32] = torch.linspace(-200, 200, 32)
    gate_up[1, 3] = torch.nan
    gate_up[2, 40] = torch.inf
    gate_up[3] = 0
    gate, up = gate_up.chunk(2, dim=-1)
    rows = kernels.swiglu_quantize(gate_up)
    _same_rows(rows, torch.nn.functional.silu(gate) * up, off_by_one=0.01)
    assert rows.scales[:, 0].isnan().tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("shape", [(1, 16), (31, 32), (32, 48), (33, 64), (70, 80), (5, 176)])
def test_pack_int8(kernels: NativeKernels, rng: torch.Generator, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=rng)
    weight[0] = 0
    packed, scales = kernels.pack_int8(weight)
    expected_packed, expected_scales = pack_int8_torch(weight)
    assert torch.equal(packed, expected_packed) and torch.equal(scales, expected_scales)
    codes = unpack_int8(packed, shape[0])
    assert ((codes * scales[:, None] - weight).abs() <= scales[:, None] * 0.5001).all()


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("columns", [1, 15, 17, 32, 33, 100])
@pytest.mark.parametrize("bias", [False, True])
def test_gemm_int8(kernels: NativeKernels, rng: torch.Generator, num_rows: int, columns: int, bias: bool) -> None:
    x, weight = torch.randn((num_rows, 48), generator=rng), torch.randn((columns, 48), generator=rng)
    packed, scales = kernels.pack_int8(weight)
    given = torch.randn(columns, generator=rng) if bias else None
    expected = linear(x, PackedWeight("int8", packed, scales, given, columns))
    rows = kernels.quantize(x)
    torch.testing.assert_close(kernels.gemm_int8(rows, packed, scales, given), expected, rtol=1e-5, atol=1e-5)
    residual = torch.randn((num_rows, columns), generator=rng)
    added = kernels.gemm_int8(rows, packed, scales, given, add_to=residual.clone())
    torch.testing.assert_close(added, residual + expected, rtol=1e-5, atol=2e-5)


def test_gemm_int8_is_exact_at_the_ends_of_the_range(kernels: NativeKernels) -> None:
    """All codes 127 over a long row: the int32 sums must not saturate or wrap."""
    width = 8960
    signs = torch.ones(2, width)
    signs[1] = -1
    packed, scales = kernels.pack_int8(signs)
    out = kernels.gemm_int8(kernels.quantize(signs), packed, scales, None)
    torch.testing.assert_close(out, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) * width, rtol=1e-5, atol=0)


def test_a_broken_row_stays_broken_and_stays_alone(kernels: NativeKernels, rng: torch.Generator) -> None:
    x = _extreme_rows(64, rng)
    packed, scales = kernels.pack_int8(torch.randn((20, 64), generator=rng))
    out = kernels.gemm_int8(kernels.quantize(x), packed, scales, None)
    assert out.isnan().all(1).tolist() == [False] * 4 + [True] * 3 + [False] * 2
    expected = linear(x, PackedWeight("int8", packed, scales, None, 20))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def _config(num_heads: int, num_kv_heads: int, head_dim: int) -> ModelConfig:
    return ModelConfig(
        architecture="qwen2", vocab_size=32, hidden_size=32, intermediate_size=32, num_layers=1, num_heads=num_heads,
        num_kv_heads=num_kv_heads, head_dim=head_dim, rms_norm_eps=1e-6, rope_theta=10_000.0, attention_bias=True,
        tie_word_embeddings=True, max_positions=512,
    )  # fmt: skip


def _attention_batch(lengths: list[int], rng: torch.Generator, num_blocks: int) -> ForwardBatch:
    """Each sequence's last (up to 3) tokens are new; its blocks lie anywhere."""
    order = torch.randperm(num_blocks, generator=rng).tolist()
    tables = torch.zeros((len(lengths), max(-(-n // BLOCK) for n in lengths)), dtype=torch.int32)
    positions: list[int] = []
    row_seq: list[int] = []
    for seq, length in enumerate(lengths):
        for i in range(-(-length // BLOCK)):
            tables[seq, i] = order.pop()
        new = range(max(0, length - 3), length)
        positions += new
        row_seq += [seq] * len(new)
    slots = [int(tables[s, p // BLOCK]) * BLOCK + p % BLOCK for s, p in zip(row_seq, positions, strict=True)]
    places = torch.tensor(positions, dtype=torch.int32)
    return ForwardBatch(
        token_ids=torch.zeros(len(positions), dtype=torch.int64), positions=places, slots=torch.tensor(slots),
        row_seq=torch.tensor(row_seq, dtype=torch.int32), lengths=places + 1, tables=tables,
        logit_rows=torch.tensor([0]),
    )  # fmt: skip


@pytest.mark.parametrize("group", range(1, MAX_GROUP + 1))
@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_attention(kernels: NativeKernels, rng: torch.Generator, group: int, head_dim: int) -> None:
    config = _config(2 * group, 2, head_dim)
    assert native_supports(config)
    num_blocks = 40
    rotary = rotary_tables(256, head_dim, config.rope_theta)
    batch = _attention_batch([1, 15, 16, 17, 33, 100], rng, num_blocks)
    keys = torch.randn((num_blocks, 2, head_dim, BLOCK), generator=rng).bfloat16()
    values = torch.randn((num_blocks, 2, BLOCK, head_dim), generator=rng).bfloat16()
    qkv = torch.randn((len(batch.positions), (2 * group + 4) * head_dim), generator=rng)
    twin_cache = LayerCache(keys.clone(), values.clone())
    expected = TorchOps(config, rotary).attention(qkv.clone(), batch, twin_cache)
    cache = LayerCache(keys, values)
    found = NativeOps(config, rotary, kernels).attention(qkv.clone(), batch, cache)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    # fused multiply-adds may round a key the other way
    torch.testing.assert_close(cache.keys.float(), twin_cache.keys.float(), rtol=2**-7, atol=1e-6)
    assert torch.equal(cache.values, twin_cache.values)


def test_attention_does_not_hide_a_broken_key(kernels: NativeKernels, rng: torch.Generator) -> None:
    config = _config(2, 1, 32)
    batch = _attention_batch([20], rng, 4)
    cache = LayerCache(torch.zeros((4, 1, 32, BLOCK)).bfloat16(), torch.zeros((4, 1, BLOCK, 32)).bfloat16())
    cache.keys[batch.tables[0, 0], 0, 3, 5] = torch.nan
    qkv = torch.randn((len(batch.positions), 4 * 32), generator=rng)
    out = NativeOps(config, rotary_tables(64, 32, 1e4), kernels).attention(qkv, batch, cache)
    assert out.isnan().all()


def _prompts(rng: torch.Generator, count: int) -> list[list[int]]:
    return [torch.randint(0, 260, (3 + 5 * i,), generator=rng).tolist() for i in range(count)]


def _sampling(count: int) -> list[SamplingParams]:
    return [SamplingParams(temperature=0.7 + i / 10, top_p=0.9, max_tokens=14, seed=100 + i) for i in range(count)]


@pytest.mark.parametrize("precision", ["w8a8", "int4", "nf4", "bf16"])
def test_a_whole_model_on_kernels_and_on_twins(
    kernels: NativeKernels, tiny_wide: TinyModel, engine_cache: Path, rng: torch.Generator, precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same draws, and logprobs that agree as far as int8 and bf16 rounding let them."""
    prompts, sampling = _prompts(rng, 6), _sampling(6)
    native = load(tiny_wide.folder, engine_cache, precision=precision)
    assert native.kernels == "native"
    on_kernels = run_all(native.engine, prompts, sampling)
    monkeypatch.setenv("MATHLETE_NATIVE", "0")
    plain = load(tiny_wide.folder, engine_cache, precision=precision)
    assert plain.kernels == "torch (turned off by MATHLETE_NATIVE=0)"
    on_twins = run_all(plain.engine, prompts, sampling)
    equal = 0
    for i in range(len(prompts)):
        ours, theirs = on_kernels.outputs[str(i)].request, on_twins.outputs[str(i)].request
        assert abs(ours.logprobs[0] - theirs.logprobs[0]) < (0.05 if precision in ("w8a8", "bf16") else 0.2)
        equal += ours.output_ids == theirs.output_ids
    if precision == "w8a8":  # torch rounds the others' products to bf16, the kernels do not
        assert equal >= 4, f"only {equal} of 6 requests drew the same tokens"


def test_a_result_does_not_depend_on_the_batch(
    kernels: NativeKernels, tiny: TinyModel, engine_cache: Path, rng: torch.Generator
) -> None:
    """Bit for bit: alone, among 16, in chunks, and put aside and computed again."""
    prompts, sampling = _prompts(rng, 16), _sampling(16)
    together = run_all(load(tiny.folder, engine_cache, max_step_tokens=50).engine, prompts, sampling)
    pressed = run_all(load(tiny.folder, engine_cache, num_blocks=14).engine, prompts, sampling)
    assert pressed.num_preempted > 0
    alone = load(tiny.folder, engine_cache).engine
    for i, (prompt, params) in enumerate(zip(prompts, sampling, strict=True)):
        request = run_all(alone, [prompt], [params]).outputs["0"].request
        for run in (together, pressed):
            other = run.outputs[str(i)].request
            assert other.output_ids == request.output_ids
            assert other.logprobs == request.logprobs and other.entropies == request.entropies


@pytest.mark.parametrize("num_rows", [2, 14, 15, 33])
def test_a_row_of_a_product_does_not_depend_on_the_others(
    kernels: NativeKernels, rng: torch.Generator, num_rows: int
) -> None:
    x = torch.randn((num_rows, 64), generator=rng)
    packed, scales = kernels.pack_int8(torch.randn((40, 64), generator=rng))
    bias, norm = torch.randn(40, generator=rng), torch.rand(64, generator=rng)
    whole = kernels.gemm_int8(kernels.rmsnorm_quantize(x, norm, 1e-6), packed, scales, bias)
    for m in range(num_rows):
        row = kernels.gemm_int8(kernels.rmsnorm_quantize(x[m : m + 1], norm, 1e-6), packed, scales, bias)
        assert torch.equal(row[0], whole[m])


def test_a_wrong_tensor_is_refused(kernels: NativeKernels) -> None:
    with pytest.raises(TypeError, match=r"contiguous torch\.float32"):
        kernels.quantize(torch.zeros((2, 16), dtype=torch.float64))
    with pytest.raises(TypeError, match="contiguous"):
        kernels.quantize(torch.zeros((16, 2)).T)


@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
def test_a_step_that_draws_nothing(
    tiny: TinyModel, engine_cache: Path, native: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A long prompt in chunks: most steps want no logits at all."""
    if native:
        request.getfixturevalue("kernels")
    else:
        monkeypatch.setenv("MATHLETE_NATIVE", "0")
    whole = run_all(load(tiny.folder, engine_cache).engine, [[*range(60)]], _sampling(1))
    chunks = run_all(load(tiny.folder, engine_cache, max_step_tokens=9).engine, [[*range(60)]], _sampling(1))
    assert chunks.ids("0") == whole.ids("0") and len(whole.ids("0")) == 14
