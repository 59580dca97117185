"""Each Triton kernel against its twin in torch. `test_triton_kernels.py` runs this file in a process of its own.

Whether kernels are interpreted on the CPU (TRITON_INTERPRET=1) or compiled for CUDA is settled when Triton is
imported, for all of a process.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from tree_batches import as_plain_sequence, random_trees, tree_batch

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache, allocate_cache
from mathlete.ryanstream.model.nf4 import dequantize_nf4, pack_nf4, quantize_nf4
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.ops_torch import rms_norm as rms_norm_torch
from mathlete.ryanstream.model.ops_triton import TritonOps
from mathlete.ryanstream.model.rotary import RotaryTables, rotary_tables
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.model.triton.nf4_matmul import nf4_linear, nf4_matmul
from mathlete.ryanstream.model.triton.paged_attention import paged_attention
from mathlete.ryanstream.model.triton.rms_norm import normalize_heads, rms_norm
from mathlete.ryanstream.model.triton.rotary import rotate_and_store
from mathlete.ryanstream.model.triton.sample import TritonSampler
from mathlete.ryanstream.model.triton.swiglu import swiglu
from mathlete.ryanstream.model.weights import DenseWeight, HeadNorms, LayerWeights, ModelWeights, Nf4Weight
from mathlete.ryanstream.sampling import (
    Drawn,
    SamplingBatch,
    accept_uniform_at,
    apply_mask_torch,
    sample,
    sample_torch,
    sampling_batch,
)
from mathlete.ryanstream.speculative.accept_rule import drawn_rows
from mathlete.ryanstream.speculative.draft_tree import DrawnFrom

BLOCK = 16
BF16, FP32 = torch.bfloat16, torch.float32
CLOSE = {FP32: {"rtol": 2e-6, "atol": 2e-6}, BF16: {"rtol": 8e-3, "atol": 1e-6}}


@pytest.fixture(scope="module")
def device() -> torch.device:
    return torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


def shape(head_dim: int = 32, num_heads: int = 6, num_kv_heads: int = 2) -> ModelConfig:
    return ModelConfig(
        architecture="qwen2", vocab_size=80, hidden_size=64, intermediate_size=128, num_layers=2,
        num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, rms_norm_eps=1e-6, rope_theta=1e4,
        attention_bias=True, tie_word_embeddings=False, max_positions=256,
    )  # fmt: skip


def batch_of(lengths: list[tuple[int, int]], device: torch.device) -> ForwardBatch:
    """Sequences whose tokens from the first number up to the second are computed; their blocks lie scattered."""
    width = max(-(-end // BLOCK) for _, end in lengths)
    blocks = torch.randperm(width * len(lengths), generator=torch.Generator().manual_seed(3)).view(-1, width)
    positions = [place for start, end in lengths for place in range(start, end)]
    row_seq = [seq for seq, (start, end) in enumerate(lengths) for _ in range(start, end)]
    slots = [int(blocks[seq, p // BLOCK]) * BLOCK + p % BLOCK for seq, p in zip(row_seq, positions, strict=True)]
    int32 = {"dtype": torch.int32, "device": device}
    return ForwardBatch(
        token_ids=torch.tensor([(7 * p + 3) % 80 for p in positions], device=device),
        positions=torch.tensor(positions, **int32),
        slots=torch.tensor(slots, device=device),
        row_seq=torch.tensor(row_seq, **int32),
        lengths=torch.tensor(positions, **int32) + 1,
        tables=blocks.to(**int32),
        logit_rows=torch.arange(len(positions), device=device),
    )


def tables_on(device: torch.device, head_dim: int) -> RotaryTables:
    tables = rotary_tables(256, head_dim, 1e4)
    return RotaryTables(tables.cosines.to(device), tables.sines.to(device))


def filled_cache(config: ModelConfig, num_blocks: int, dtype: torch.dtype, device: torch.device) -> LayerCache:
    """As if earlier steps had been there, with numbers in every place."""
    cache = allocate_cache(config, num_blocks, dtype)[0]
    noise = torch.Generator().manual_seed(11)
    keys = torch.randn(cache.keys.shape, generator=noise).to(device, dtype)
    return LayerCache(keys, torch.randn(cache.values.shape, generator=noise).to(device, dtype))


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("width", [1, 64, 100])
def test_rms_norm(rng: torch.Generator, device: torch.device, width: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn((5, width), generator=rng).to(device) * 30, torch.rand(width, generator=rng).to(device)
    x[1] = 0
    x[2, 0] = torch.nan
    got = rms_norm(x, weight, 1e-6, dtype)
    torch.testing.assert_close(got, rms_norm_torch(x, weight, 1e-6).to(dtype), equal_nan=True, **CLOSE[dtype])
    assert torch.equal(rms_norm(x[3:4], weight, 1e-6, dtype), got[3:4])


def test_normalize_heads_touches_only_its_heads(rng: torch.Generator, device: torch.device) -> None:
    x, weight = torch.randn((3, 6 * 20), generator=rng).to(device), torch.rand(20, generator=rng).to(device)
    expected = x.clone().view(3, 6, 20)
    expected[:, 1:4] = rms_norm_torch(expected[:, 1:4], weight, 1e-6)
    normalize_heads(x, 1, 3, weight, 1e-6)
    torch.testing.assert_close(x.view(3, 6, 20), expected, **CLOSE[FP32])
    assert torch.equal(x.view(3, 6, 20)[:, 4:], expected[:, 4:])


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_swiglu(rng: torch.Generator, device: torch.device, dtype: torch.dtype) -> None:
    gate_up = torch.randn((3, 2 * 1100), generator=rng).to(device) * 5
    gate_up[0, 7], gate_up[1, 9] = 200.0, -200.0
    gate, up = gate_up.chunk(2, dim=-1)
    expected = (torch.nn.functional.silu(gate) * up).to(dtype)
    torch.testing.assert_close(swiglu(gate_up, dtype), expected, **CLOSE[dtype])


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize(("num_rows", "num_columns", "width"), [(1, 64, 64), (5, 70, 128), (37, 16, 192)])
def test_nf4_matmul(
    rng: torch.Generator, device: torch.device, num_rows: int, num_columns: int, width: int, dtype: torch.dtype
) -> None:
    x = torch.randn((num_rows, width), generator=rng).to(device, dtype)
    rows = quantize_nf4(torch.randn((num_columns, width), generator=rng).to(device))
    packed = pack_nf4(rows.codes)
    got = nf4_matmul(x, packed, rows.absmax)
    rounding = 1e-4 if dtype == FP32 else 0.02 * width**0.5  # the interpreter rounds bf16 towards zero
    torch.testing.assert_close(got, nf4_linear(x, packed, rows.absmax), rtol=1e-5, atol=rounding)
    exact = x.double() @ dequantize_nf4(*rows).double().T
    assert (got - exact).abs().max() < rounding


def test_nf4_matmul_of_a_broken_block_is_not_a_number(rng: torch.Generator, device: torch.device) -> None:
    weight = torch.randn((3, 128), generator=rng)
    weight[1, 70] = torch.inf
    rows = quantize_nf4(weight.to(device))
    got = nf4_matmul(torch.ones((2, 128), device=device), pack_nf4(rows.codes), rows.absmax)
    assert got[:, 1].isnan().all() and got[:, [0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "head_dim", "num_heads", "num_kv_heads"), [(FP32, 32, 6, 2), (BF16, 64, 2, 2), (FP32, 20, 5, 1)]
)
def test_rotary_and_attention(
    rng: torch.Generator, device: torch.device, dtype: torch.dtype, head_dim: int, num_heads: int, num_kv_heads: int
) -> None:
    """A decode step, a prompt's second chunk and a first one together; more than one tile of 64 tokens."""
    config = shape(head_dim, num_heads, num_kv_heads)
    batch, tables = batch_of([(69, 70), (14, 19), (0, 3), (15, 16)], device), tables_on(device, head_dim)
    qkv = torch.randn((10, (num_heads + 2 * num_kv_heads) * head_dim), generator=rng).to(device)
    ours, theirs = (filled_cache(config, 20, dtype, device) for _ in range(2))
    expected = TorchOps(config, tables).attention(qkv.clone(), batch, theirs)
    rotated = qkv.clone()
    rotate_and_store(rotated, num_heads, batch, ours, tables)
    torch.testing.assert_close(ours.keys, theirs.keys, **CLOSE[dtype])
    torch.testing.assert_close(ours.values, theirs.values, **CLOSE[dtype])
    got = paged_attention(rotated, num_heads, batch, ours)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == FP32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(got, expected, **tolerance)


def test_a_row_without_a_slot_stores_nothing(rng: torch.Generator, device: torch.device) -> None:
    config, tables = shape(), tables_on(device, 32)
    batch = batch_of([(3, 4), (1, 2)], device)
    batch.slots[1] = -1
    qkv = torch.randn((2, 10 * 32), generator=rng).to(device)
    ours, theirs, before = (filled_cache(config, 2, FP32, device) for _ in range(3))
    TorchOps(config, tables).attention(qkv.clone(), batch, theirs)
    rotate_and_store(qkv, 6, batch, ours, tables)
    torch.testing.assert_close(ours.keys, theirs.keys, **CLOSE[FP32])
    torch.testing.assert_close(ours.values, theirs.values, **CLOSE[FP32])
    changed = (ours.keys != before.keys).any(dim=2).any(dim=1)  # [blocks, places]
    assert int(changed.sum()) == 1


def test_attention_of_a_row_does_not_depend_on_the_batch(rng: torch.Generator, device: torch.device) -> None:
    config, tables = shape(), tables_on(device, 32)
    batch = batch_of([(69, 70), (30, 34), (0, 2)], device)
    qkv = torch.randn((7, 10 * 32), generator=rng).to(device)
    cache = filled_cache(config, 15, FP32, device)
    rotate_and_store(qkv, 6, batch, cache, tables)
    together = paged_attention(qkv, 6, batch, cache)
    for row in range(7):
        one = slice(row, row + 1)
        alone = ForwardBatch(
            batch.token_ids[one], batch.positions[one], batch.slots[one], batch.row_seq[one], batch.lengths[one],
            batch.tables, batch.logit_rows[:1],
        )  # fmt: skip
        assert torch.equal(paged_attention(qkv[one].contiguous(), 6, alone, cache), together[one])


@pytest.mark.parametrize(("dtype", "head_dim", "num_kv_heads"), [(FP32, 32, 2), (BF16, 64, 1)])
def test_attention_of_tree_nodes(
    rng: torch.Generator, device: torch.device, dtype: torch.dtype, head_dim: int, num_kv_heads: int
) -> None:
    """Close to the twin, and bit for bit what the kernel gives the same tokens in a plain sequence."""
    config, tables = shape(head_dim, 2, num_kv_heads), tables_on(device, head_dim)
    trees = tree_batch(random_trees([3, 15, 60, 17], rng), rng)
    batch = trees.batch.to(device)
    trees = replace(trees, batch=batch)
    qkv = torch.randn((len(trees.lineages), (2 + 2 * num_kv_heads) * head_dim), generator=rng).to(device)
    ours, theirs = (filled_cache(config, trees.num_blocks, dtype, device) for _ in range(2))
    expected = TorchOps(config, tables).attention(qkv.clone(), batch, theirs)
    rotated = qkv.clone()
    rotate_and_store(rotated, 2, batch, ours, tables)
    got = paged_attention(rotated, 2, batch, ours)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == FP32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(got, expected, **tolerance)
    for row in range(0, len(trees.lineages), 5):
        plain = as_plain_sequence(trees, row, ours)
        alone = qkv[trees.lineages[row]]
        rotate_and_store(alone, 2, plain, ours, tables)
        assert torch.equal(paged_attention(alone, 2, plain, ours)[-1], got[row])


PLAIN = {"temperature": 1.0, "top_p": 1.0}
PARAMS = (
    {"temperature": 1.3, "top_p": 0.95, "top_k": 40, "min_p": 0.02}, {"temperature": 0.7, "top_p": 0.9}, {},
    {"temperature": 0.0}, {"top_k": 5}, {"min_p": 0.1}, {"temperature": 0.3, "top_p": 0.5}, {"top_p": 1e-6},
)  # fmt: skip


def drawn_by_both(logits: Tensor, batch: SamplingBatch, device: torch.device, tile: int = 16) -> tuple[Drawn, Drawn]:
    logits = logits.to(device)
    parts = [
        getattr(batch, name).to(device) for name in ("temperature", "top_p", "top_k", "min_p", "uniform", "forced")
    ]
    got = Drawn(*(part.cpu() for part in TritonSampler(tile).sample(logits, *parts)))
    return got, sample_torch(logits.cpu(), batch)


def same(got: Drawn, expected: Drawn) -> None:
    assert got.token.tolist() == expected.token.tolist()
    assert got.top_ids.tolist() == expected.top_ids.tolist()
    for name in ("logprob", "entropy", "log_normalizer", "top_logprobs"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize(("vocab", "num_rows", "tile"), [(48, len(PARAMS), 16), (1030, 1, 256), (40, 1, 1024)])
def test_sample(rng: torch.Generator, device: torch.device, vocab: int, num_rows: int, tile: int) -> None:
    """Rounded logits, so that many are equal and the order of ids decides; some impossible."""
    logits = (torch.randn((num_rows, vocab), generator=rng) * 3).round()
    logits[::2, 5::7] = -torch.inf
    logits[-1, :6] = torch.tensor([-0.0, 0.0] * 3)
    params = [SamplingParams(seed=i, **{**PLAIN, **PARAMS[i]}) for i in range(num_rows)]
    same(*drawn_by_both(logits, sampling_batch(params, range(num_rows)), device, tile))


def test_a_draw_does_not_depend_on_the_batch(rng: torch.Generator, device: torch.device) -> None:
    logits = torch.randn((3, 40), generator=rng) * 3
    batch = sampling_batch([SamplingParams(seed=i) for i in range(3)], range(3))
    together, _ = drawn_by_both(logits, batch, device)
    alone, _ = drawn_by_both(logits[1:2], batch.rows(torch.tensor([1])), device)
    assert all(torch.equal(one[0], of_all[1]) for one, of_all in zip(alone, together, strict=True))


def test_apply_mask(rng: torch.Generator, device: torch.device) -> None:
    logits = torch.randn((2, 1080), generator=rng).to(device)
    masks = torch.randint(-(2**31), 2**31, (2, 34), generator=rng).int().to(device)
    expected = logits.clone()
    apply_mask_torch(expected, masks)
    TritonSampler().apply_mask(logits, masks)
    assert torch.equal(logits, expected) and 0 < int(logits.isinf().sum()) < logits.numel()


def test_sample_without_a_distribution_and_with_forced_tokens(rng: torch.Generator, device: torch.device) -> None:
    logits = torch.randn((7, 32), generator=rng)
    logits[0, 3], logits[1, 0], logits[3, 1:] = torch.nan, torch.inf, -torch.inf
    logits[2] = -torch.inf
    batch = sampling_batch([SamplingParams(seed=i) for i in range(7)], range(7), [-1, 3, -1, -1, 8, -2, -1])
    got, expected = drawn_by_both(logits, batch, device)
    same(got, expected)
    assert got.token[:6].tolist() == [-1, -1, -1, 0, 8, -2]


def test_sample_leaves_drafts_to_the_twin(rng: torch.Generator, device: torch.device) -> None:
    logits = torch.randn((12, 48), generator=rng)
    batch = sampling_batch([SamplingParams(seed=i, top_p=1.0) for i in range(12)], range(12))
    likely = [row.topk(3) for row in logits.softmax(-1)]
    drawn_from = [
        DrawnFrom(tuple(top.indices.tolist()), tuple((top.values / top.values.sum()).tolist())) for top in likely
    ]
    tokens = [q.token_ids[i % 3] for i, q in enumerate(drawn_from)]
    drawn = drawn_rows(range(12), tokens, drawn_from, [accept_uniform_at(i, i) for i in range(12)])
    got = sample(logits.to(device), batch.to(device), TritonSampler(16), drawn=drawn.to(device))
    expected = sample(logits, batch, None, drawn=drawn)
    same(Drawn(*(part.cpu() for part in got)), expected)
    assert 0 < sum(a == b for a, b in zip(tokens, expected.token.tolist(), strict=True)) < 12


def test_sample_at_the_ends_of_the_unit_interval(device: torch.device) -> None:
    params = [SamplingParams(**{**PLAIN, "top_k": top_k}) for top_k in (0, 0, 3)]
    batch = sampling_batch(params, [0, 0, 0])
    batch.uniform[:] = torch.tensor([0.0, 1 - 2.0**-53, 1 - 2.0**-53], dtype=torch.float64)
    logits = torch.linspace(1, 0, 40).repeat(3, 1)
    got, _ = drawn_by_both(logits, batch, device)
    assert got.token.tolist() == [0, 39, 2]


def random_weights(
    config: ModelConfig, rng: torch.Generator, device: torch.device, dtype: torch.dtype | str
) -> ModelWeights:
    def tensor(*size: int) -> Tensor:
        return (torch.randn(size, generator=rng) * 0.2).to(device)

    def linear(num_out: int, width: int, bias: bool = False) -> DenseWeight | Nf4Weight:
        added = tensor(num_out) if bias else None
        if dtype == "nf4":
            rows = quantize_nf4(tensor(num_out, width))
            return Nf4Weight(pack_nf4(rows.codes), rows.absmax, added)
        return DenseWeight(tensor(num_out, width).to(dtype), added)

    heads, kv, dim, hidden = config.num_heads, config.num_kv_heads, config.head_dim, config.hidden_size
    layers = tuple(
        LayerWeights(
            input_norm=1 + tensor(hidden),
            qkv=linear((heads + 2 * kv) * dim, hidden, bias=True),
            out=linear(hidden, heads * dim),
            post_norm=1 + tensor(hidden),
            gate_up=linear(2 * config.intermediate_size, hidden),
            down=linear(hidden, config.intermediate_size),
            head_norms=HeadNorms(1 + tensor(dim), 1 + tensor(dim)) if i else None,
        )
        for i in range(config.num_layers)
    )
    return ModelWeights(
        tensor(config.vocab_size, hidden), layers, 1 + tensor(hidden), linear(config.vocab_size, hidden)
    )


@pytest.mark.parametrize("dtype", [FP32, BF16, "nf4"])
def test_a_whole_model_on_kernels_and_on_twins(
    rng: torch.Generator, device: torch.device, dtype: torch.dtype | str
) -> None:
    """Two steps: prompts of two sequences, then a token of one beside the rest of the other's prompt."""
    config, tables = shape(), tables_on(device, 32)
    weights = random_weights(config, rng, device, dtype)
    models = [Transformer(config, weights, ops(config, tables)) for ops in (TritonOps, TorchOps)]
    kv_dtype = FP32 if dtype == FP32 else BF16
    caches = [allocate_cache(config, 8, kv_dtype, device) for _ in models]
    for lengths in ([(0, 5), (0, 2)], [(5, 6), (2, 4)]):
        got, expected = (
            model.forward(batch_of(lengths, device), cache).logits for model, cache in zip(models, caches, strict=True)
        )
        error = (got - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert error < (1e-5 if dtype == FP32 else 0.03)
