"""Keys and values in int8: what is kept, native kernels against torch, and what a broken number does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from driving import greedy, load, run_all
from tiny_qwen import TinyModel

from mathlete.core.errors import ModelError
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import (
    LayerCache,
    allocate_cache,
    block_bytes,
    read_blocks,
    store_tokens,
)
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.ops_native import NativeOps
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rotary import rotary_tables


def config(head_dim: int, num_heads: int = 6) -> ModelConfig:
    return ModelConfig(
        architecture="qwen2", vocab_size=64, hidden_size=64, intermediate_size=64, num_layers=1, num_heads=num_heads,
        num_kv_heads=2, head_dim=head_dim, rms_norm_eps=1e-6, rope_theta=1e4, attention_bias=True,
        tie_word_embeddings=True, max_positions=512,
    )  # fmt: skip


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def test_int8_keeps_every_group_of_channels_to_half_a_step(rng: torch.Generator) -> None:
    """Also beside a channel a hundred times as large, as Qwen2.5's keys have them."""
    (cache,) = allocate_cache(config(64), 4, torch.int8)
    key, value = torch.randn((20, 2, 64), generator=rng), torch.randn((20, 2, 64), generator=rng)
    key[:, :, 3] *= 100
    slots = torch.arange(20) + 16
    store_tokens(cache, slots, key, value)
    found = read_blocks(cache, torch.tensor([1, 2]))
    for kept, given in ((found.keys, key), (found.values, value)):
        differences = (kept[:, :20] - given.transpose(0, 1)).unflatten(-1, (2, 32)).abs()
        step = given.transpose(0, 1).unflatten(-1, (2, 32)).abs().amax(-1, keepdim=True) / 127
        assert (differences <= 0.52 * step).all()


def test_memory_of_a_block() -> None:
    shape = config(64)
    for dtype in (torch.bfloat16, torch.float32, torch.int8):
        (cache,) = allocate_cache(shape, 3, dtype)
        tensors = [cache.keys, cache.values, cache.key_scales, cache.value_scales]
        assert sum(t.nbytes for t in tensors if t is not None) == 3 * block_bytes(shape, dtype)
    assert block_bytes(shape, torch.int8) / block_bytes(shape, torch.bfloat16) == pytest.approx(0.53, abs=0.01)


def batch(length: int, num_new: int) -> ForwardBatch:
    """The last `num_new` tokens of one sequence in blocks 3, 1, 0, ..."""
    table = torch.tensor([[3, 1, 0, 2, 5, 4]], dtype=torch.int32)
    places = torch.arange(length - num_new, length, dtype=torch.int32)
    return ForwardBatch(
        token_ids=torch.zeros(num_new, dtype=torch.int64), positions=places,
        slots=table[0, places // 16].long() * 16 + places % 16, row_seq=torch.zeros(num_new, dtype=torch.int32),
        lengths=places + 1, tables=table, logit_rows=torch.tensor([0]),
    )  # fmt: skip


@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("num_heads", [2, 6, 14])
def test_native_attention_over_int8(
    kernels: NativeKernels, rng: torch.Generator, head_dim: int, num_heads: int
) -> None:
    shape = config(head_dim, num_heads)
    rotary = rotary_tables(512, head_dim, 1e4)
    caches = [allocate_cache(shape, 6, torch.int8)[0] for _ in range(2)]
    width = (num_heads + 4) * head_dim
    for length, num_new in ((40, 40), (41, 1), (90, 49)):
        qkv = torch.randn((num_new, width), generator=rng)
        expected = TorchOps(shape, rotary).attention(qkv.clone(), batch(length, num_new), caches[0])
        found = NativeOps(shape, rotary, kernels).attention(qkv.clone(), batch(length, num_new), caches[1])
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)  # a code may round the other way
        assert (found - expected).abs().mean() < 1e-4
    codes, twins = (cache.keys.int() for cache in caches)
    assert (codes - twins).abs().max() <= 1 and (codes != twins).float().mean() < 0.01


def test_a_broken_number_is_not_hidden(kernels: NativeKernels, rng: torch.Generator) -> None:
    shape = config(32)
    rotary = rotary_tables(64, 32, 1e4)
    qkv = torch.randn((20, 10 * 32), generator=rng)
    qkv[7, 6 * 32 + 5] = torch.nan
    for ops in (TorchOps(shape, rotary), NativeOps(shape, rotary, kernels)):
        (cache,) = allocate_cache(shape, 6, torch.int8)
        out = ops.attention(qkv.clone(), batch(20, 20), cache)
        first_head = out[:, : 3 * 32]  # those that share the broken key
        assert first_head[7:].isnan().any(1).all()
        assert out[:, 3 * 32 :].isfinite().all()


def test_a_model_with_an_int8_cache(kernels: NativeKernels, tiny: TinyModel, engine_cache: Path) -> None:
    """First tokens agree with those of a bf16 cache; the cache is about half as large."""
    prompts = [[7 * i % 250 + 1 for i in range(start, start + 40)] for start in range(5)]
    engines = {
        dtype: load(tiny.folder, engine_cache, precision="bf16", kv_cache_dtype=dtype) for dtype in ("bf16", "int8")
    }
    ended = {dtype: run_all(loaded.engine, prompts, [greedy(3)] * 5) for dtype, loaded in engines.items()}
    for i in range(5):
        ours, theirs = (ended[dtype].outputs[str(i)].request.logprobs[0] for dtype in ("int8", "bf16"))
        assert ours == pytest.approx(theirs, abs=0.1)


def test_narrow_heads_are_refused(engine_cache: Path, tmp_path: Path) -> None:
    from tiny_qwen import make_tiny_model

    narrow = make_tiny_model(tmp_path / "narrow", tie_word_embeddings=True, head_dim=16)
    with pytest.raises(ModelError, match="int8 KV cache needs heads of a multiple of 32"):
        load(narrow.folder, engine_cache, precision="bf16", kv_cache_dtype="int8")


def test_a_cache_without_scales_is_not_int8() -> None:
    plain = LayerCache(torch.zeros((1, 1, 32, 16)), torch.zeros((1, 1, 16, 32)))
    store_tokens(plain, torch.tensor([3]), torch.ones((1, 1, 32)), torch.full((1, 1, 32), 2.0))
    found = read_blocks(plain, torch.tensor([0]))
    assert found.keys[0, 3].tolist() == [1.0] * 32 and found.values[0, 3].tolist() == [2.0] * 32
    assert found.keys[0, 4].tolist() == [0.0] * 32
