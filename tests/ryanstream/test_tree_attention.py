"""Nodes of trees: each sees its prefix and its own ancestors, and its result is that of a plain sequence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from tree_batches import as_plain_sequence, random_trees, tree_batch

from mathlete.ryanstream.block_tensors import named_tensors
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache, allocate_cache, store_tokens
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.ops_native import NativeOps
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rotary import rotary_tables

KNOWN = [20, 0, 15, 16, 17, 31, 100]
CACHES = [torch.bfloat16, torch.int8]


def config(num_heads: int, num_kv_heads: int, head_dim: int) -> ModelConfig:
    return ModelConfig(
        architecture="qwen2", vocab_size=80, hidden_size=32, intermediate_size=32, num_layers=1, num_heads=num_heads,
        num_kv_heads=num_kv_heads, head_dim=head_dim, rms_norm_eps=1e-6, rope_theta=10_000.0, attention_bias=True,
        tie_word_embeddings=True, max_positions=512,
    )  # fmt: skip


def noisy_cache(shape: ModelConfig, num_blocks: int, dtype: torch.dtype, rng: torch.Generator) -> LayerCache:
    """Every place holds a key and a value, as `store_tokens` would leave them."""
    cache = allocate_cache(shape, num_blocks, dtype)[0]
    size = (num_blocks * 16, shape.num_kv_heads, shape.head_dim)
    store_tokens(cache, torch.arange(size[0]), torch.randn(size, generator=rng), torch.randn(size, generator=rng))
    return cache


def copy_of(cache: LayerCache) -> LayerCache:
    return LayerCache(**{name.split(".")[1]: tensor.clone() for name, tensor in named_tensors([cache])})


def random_qkv(shape: ModelConfig, num_rows: int, rng: torch.Generator) -> Tensor:
    return torch.randn((num_rows, (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim), generator=rng)


@pytest.mark.parametrize("dtype", CACHES, ids=str)
@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), [(2, 2, 32), (6, 1, 64), (12, 2, 128)])
def test_the_kernel_gives_a_node_what_a_plain_sequence_gives_it(
    kernels: NativeKernels, rng: torch.Generator, dtype: torch.dtype, num_heads: int, num_kv_heads: int, head_dim: int
) -> None:
    """Bit for bit."""
    shape = config(num_heads, num_kv_heads, head_dim)
    ops = NativeOps(shape, rotary_tables(256, head_dim, shape.rope_theta), kernels)
    trees = tree_batch(random_trees(KNOWN, rng), rng)
    cache = noisy_cache(shape, trees.num_blocks, dtype, rng)
    qkv = random_qkv(shape, len(trees.lineages), rng)
    together = ops.attention(qkv.clone(), trees.batch, cache)
    for row, lineage in enumerate(trees.lineages):
        plain = as_plain_sequence(trees, row, cache)
        alone = ops.attention(qkv[lineage].contiguous(), plain, cache)
        assert torch.equal(alone[-1], together[row]), (row, lineage)


@pytest.mark.parametrize("dtype", CACHES, ids=str)
def test_the_twin_gives_a_node_what_a_plain_sequence_gives_it(rng: torch.Generator, dtype: torch.dtype) -> None:
    shape = config(4, 2, 32)
    ops = TorchOps(shape, rotary_tables(256, 32, shape.rope_theta))
    trees = tree_batch(random_trees(KNOWN, rng), rng)
    cache = noisy_cache(shape, trees.num_blocks, dtype, rng)
    qkv = random_qkv(shape, len(trees.lineages), rng)
    together = ops.attention(qkv.clone(), trees.batch, cache)
    for row, lineage in enumerate(trees.lineages):
        plain = as_plain_sequence(trees, row, cache)
        torch.testing.assert_close(ops.attention(qkv[lineage], plain, cache)[-1], together[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", CACHES, ids=str)
@pytest.mark.parametrize("group", [1, 5, 8])
def test_kernel_and_twin_agree(kernels: NativeKernels, rng: torch.Generator, dtype: torch.dtype, group: int) -> None:
    shape = config(2 * group, 2, 64)
    rotary = rotary_tables(256, 64, shape.rope_theta)
    trees = tree_batch(random_trees(KNOWN, rng), rng)
    cache = noisy_cache(shape, trees.num_blocks, dtype, rng)
    twin_cache = copy_of(cache)
    qkv = random_qkv(shape, len(trees.lineages), rng)
    found = NativeOps(shape, rotary, kernels).attention(qkv.clone(), trees.batch, cache)
    expected = TorchOps(shape, rotary).attention(qkv.clone(), trees.batch, twin_cache)
    # a key that is rounded the other way by a fused multiply-add is an int8 step off
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5 if dtype == torch.bfloat16 else 2e-3)


def test_a_node_does_not_see_its_siblings(kernels: NativeKernels, rng: torch.Generator) -> None:
    """A broken key at one node breaks that node and its descendants, and nothing else."""
    shape = config(2, 1, 32)
    trees = tree_batch(random_trees(KNOWN, rng), rng)
    cache = noisy_cache(shape, trees.num_blocks, torch.bfloat16, rng)
    qkv = random_qkv(shape, len(trees.lineages), rng)
    broken = next(row for row, lineage in enumerate(trees.lineages) if row > 40 and len(lineage) == 2)
    qkv[broken, 2 * 32 : 3 * 32] = torch.nan
    out = NativeOps(shape, rotary_tables(256, 32, 1e4), kernels).attention(qkv, trees.batch, cache)
    expected = [broken in lineage for lineage in trees.lineages]
    assert out.isnan().all(1).tolist() == expected and out.isnan().any(1).tolist() == expected
    assert 1 < sum(expected) < len(expected)
