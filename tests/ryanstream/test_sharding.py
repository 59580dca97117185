"""Which part of a model a rank holds; and the ranks' forward passes, in threads, against the whole model's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_qwen import VOCAB_SIZE, TinyModel
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.ryanstream.checkpoint.convert import open_source
from mathlete.ryanstream.checkpoint.source import TokenizerSpec, WeightSource
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import allocate_cache
from mathlete.ryanstream.model.ops import ForwardBatch, Ops
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rotary import rotary_tables
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.model.weights import Precision, assemble_weights, convert_weights
from mathlete.ryanstream.parallel.collectives import RankGroup
from mathlete.ryanstream.parallel.ops_parallel import ParallelOps
from mathlete.ryanstream.parallel.sharding import Shard, ShardedSource, shard_config, workable_sizes

LENGTH = 20


class DictSource:
    """Named tensors as a `WeightSource`."""

    path = Path("memory")

    def __init__(self, config: ModelConfig, tensors: dict[str, Tensor]) -> None:
        self.config = config
        self._tensors = tensors

    def shape(self, name: str) -> tuple[int, ...] | None:
        return tuple(self._tensors[name].shape) if name in self._tensors else None

    def read(self, name: str) -> Tensor:
        return self._tensors[name]

    def tokenizer(self) -> TokenizerSpec:
        return TokenizerSpec("{}", {}, ())


class ThreadBackend:
    """Takes the place of gloo: ranks are threads, and a sum is made in the order of the ranks."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._barrier = threading.Barrier(world, timeout=30)
        self._given: list[Tensor] = [torch.empty(0)] * world

    def at(self, rank: int) -> ThreadBackend._Rank:
        return ThreadBackend._Rank(self, rank)

    class _Rank:
        def __init__(self, ranks: ThreadBackend, rank: int) -> None:
            self._ranks, self._rank = ranks, rank

        def allreduce(self, tensors: list[Tensor]) -> ThreadBackend._Rank:
            everyones = self._exchange(tensors[0])
            tensors[0].copy_(sum(everyones[1:], everyones[0]))
            return self

        def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor]) -> ThreadBackend._Rank:
            return self.gather(outputs, inputs)

        def gather(self, outputs: list[list[Tensor]], inputs: list[Tensor]) -> ThreadBackend._Rank:
            for part, given in zip(outputs[0] if outputs else [], self._exchange(inputs[0]), strict=False):
                part.copy_(given)
            return self

        def wait(self) -> None:
            pass

        def _exchange(self, x: Tensor) -> list[Tensor]:
            self._ranks._given[self._rank] = x.clone()
            self._ranks._barrier.wait()
            everyones = list(self._ranks._given)
            self._ranks._barrier.wait()
            return everyones


@pytest.fixture(scope="module", params=["tiny", "tiny_tied"])
def source(request: pytest.FixtureRequest) -> WeightSource:
    model: TinyModel = request.getfixturevalue(request.param)
    return open_source(model.folder)


def parts(source: WeightSource, world: int, name: str) -> list[Tensor]:
    return [ShardedSource(source, Shard(rank, world)).read(name) for rank in range(world)]


@pytest.mark.parametrize("kind", ["q_proj", "k_proj", "v_proj"])
@pytest.mark.parametrize("suffix", ["weight", "bias"])
def test_attention_inputs_are_cut_by_heads(source: WeightSource, kind: str, suffix: str) -> None:
    name = f"model.layers.1.self_attn.{kind}.{suffix}"
    found = parts(source, 2, name)
    assert found[0].shape == found[1].shape and found[1].is_contiguous()
    assert torch.equal(torch.cat(found), source.read(name))


@pytest.mark.parametrize("suffix", ["weight", "bias"])
def test_more_ranks_than_key_value_heads_share_them(source: WeightSource, suffix: str) -> None:
    """Heads 0 and 1 of 4 look at key/value head 0, heads 2 and 3 at head 1; each rank has one head."""
    name = f"model.layers.0.self_attn.k_proj.{suffix}"
    first, second = source.read(name).chunk(2)
    for part, expected in zip(parts(source, 4, name), [first, first, second, second], strict=True):
        assert torch.equal(part, expected)


def test_feed_forward_and_output_products(source: WeightSource) -> None:
    layer = "model.layers.2"
    for name, dim in {"mlp.gate_proj": 0, "mlp.up_proj": 0, "mlp.down_proj": 1, "self_attn.o_proj": 1}.items():
        whole = source.read(f"{layer}.{name}.weight")
        assert torch.equal(torch.cat(parts(source, 4, f"{layer}.{name}.weight"), dim=dim), whole), name
    for name in ("input_layernorm", "post_attention_layernorm"):
        whole = source.read(f"{layer}.{name}.weight")
        assert all(torch.equal(part, whole) for part in parts(source, 2, f"{layer}.{name}.weight"))


def test_the_vocabulary_is_cut_into_equal_parts_with_zeros_at_the_end(source: WeightSource) -> None:
    whole = source.read("model.embed_tokens.weight")
    assert torch.equal(torch.cat(parts(source, 2, "model.embed_tokens.weight")), whole)
    found = parts(source, 4, "model.embed_tokens.weight")
    assert {tuple(part.shape) for part in found} == {(80, 64)}  # 4 x 80 >= 288 in multiples of 16
    together = torch.cat(found)
    assert torch.equal(together[:VOCAB_SIZE], whole) and not together[VOCAB_SIZE:].any()


def test_shapes_are_told_without_reading(source: WeightSource) -> None:
    for world in (2, 4):
        sharded = ShardedSource(source, Shard(world - 1, world))
        for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.v_proj.bias", "model.norm.weight",
                     "model.layers.0.mlp.down_proj.weight"):  # fmt: skip
            assert sharded.shape(name) == tuple(sharded.read(name).shape)
        assert sharded.shape("model.layers.9.mlp.down_proj.weight") is None


def test_a_summed_bias_is_brought_by_rank_0_alone(source: WeightSource) -> None:
    bias = torch.arange(64.0)
    given = DictSource(source.config, {"model.layers.0.self_attn.o_proj.bias": bias})
    first, second = parts(given, 2, "model.layers.0.self_attn.o_proj.bias")
    assert torch.equal(first, bias) and not second.any()


def test_an_unknown_tensor_is_not_cut_at_a_guess(source: WeightSource) -> None:
    given = DictSource(source.config, {"model.layers.0.mlp.experts.3.weight": torch.zeros(4, 4)})
    with pytest.raises(ModelError, match="does not know how to cut model.layers.0.mlp.experts.3.weight"):
        ShardedSource(given, Shard(0, 2)).read("model.layers.0.mlp.experts.3.weight")


def test_the_shape_of_a_part(source: WeightSource) -> None:
    half = shard_config(source.config, Shard(1, 2))
    assert (half.num_heads, half.num_kv_heads, half.head_dim, half.intermediate_size) == (2, 1, 32, 48)
    assert (half.hidden_size, half.vocab_size, half.num_layers) == (64, 144, 3)
    assert shard_config(source.config, Shard(3, 4)).num_kv_heads == 1
    assert shard_config(source.config, Shard(0, 1)) == source.config


def test_a_number_of_ranks_that_does_not_fit_names_those_that_do(source: WeightSource) -> None:
    assert workable_sizes(source.config) == (1, 2, 4)
    with pytest.raises(ModelError, match="cannot be cut into 3 parts; tensor_parallel can be 1, 2, 4"):
        ShardedSource(source, Shard(0, 3))
    qwen_1_5b = replace(source.config, num_heads=12, num_kv_heads=2, intermediate_size=8960)
    assert workable_sizes(qwen_1_5b) == (1, 2, 4)
    odd = replace(source.config, num_heads=6, num_kv_heads=3, intermediate_size=96)
    assert workable_sizes(odd) == (1, 3, 6), "2 ranks would have to split a key/value head's group"


@pytest.mark.parametrize(("rank", "world"), [(0, 0), (2, 2), (-1, 2)])
def test_a_shard_that_cannot_be_is_refused(rank: int, world: int) -> None:
    with pytest.raises(ValueError, match="Shard"):
        Shard(rank, world)


def two_steps(config: ModelConfig, source: WeightSource, precision: Precision, wrap: Callable[[Ops], Ops]) -> Tensor:
    """Logits of the last places of two sequences, the second computed in two chunks; [3, V]."""
    tensors = dict(convert_weights(config, source.read, precision, None))
    weights = assemble_weights(config, tensors, precision, unpack=True)
    rotary = rotary_tables(64, config.head_dim, config.rope_theta)
    model = Transformer(config, weights, wrap(TorchOps(config, rotary)))
    cache = allocate_cache(config, 8, torch.float32 if precision == "fp32" else torch.bfloat16)
    ids = torch.randint(0, 260, (2, LENGTH), generator=torch.Generator().manual_seed(3))
    tables = torch.tensor([[0, 1], [2, 3]], dtype=torch.int32)
    places = torch.arange(LENGTH, dtype=torch.int32)

    def batch(seq: int, start: int, end: int, *logit_rows: int) -> ForwardBatch:
        positions = places[start:end]
        slots = tables[seq].long()[positions // 16] * 16 + positions % 16
        row_seq = torch.full_like(positions, seq)
        rows = torch.tensor(logit_rows, dtype=torch.int64)
        return ForwardBatch(ids[seq, start:end], positions, slots, row_seq, positions + 1, tables, rows)

    return torch.cat([
        model.forward(batch(0, 0, LENGTH, LENGTH - 2, LENGTH - 1), cache).logits,
        model.forward(batch(1, 0, 7), cache).logits,  # a chunk of a prompt: nobody asks for logits
        model.forward(batch(1, 7, LENGTH, LENGTH - 8), cache).logits,
    ])  # fmt: skip


def in_ranks(source: WeightSource, world: int, precision: Precision, in_order: bool = False) -> Tensor:
    """`two_steps` by `world` ranks in threads, as rank 0 has them."""
    backend = ThreadBackend(world)

    def one(rank: int) -> Tensor:
        shard = Shard(rank, world)
        group = RankGroup(shard, backend.at(rank), in_order)
        sharded = ShardedSource(source, shard)
        with torch.inference_mode():
            return two_steps(
                sharded.config, sharded, precision, lambda ops: ParallelOps(ops, group, source.config.vocab_size)
            )

    with ThreadPoolExecutor(world) as threads:
        return list(threads.map(one, range(world)))[0]


@pytest.mark.parametrize("world", [1, 2, 4])  # with 4, key/value heads are shared and the vocabulary filled up
def test_the_ranks_together_compute_what_the_whole_model_does(source: WeightSource, world: int) -> None:
    whole = two_steps(source.config, source, "fp32", lambda ops: ops)
    together = in_ranks(source, world, "fp32")
    assert together.shape == whole.shape == (3, VOCAB_SIZE)
    assert whole.std() > 0.5, "logits that are all alike would make the comparison empty"
    torch.testing.assert_close(together, whole, rtol=0, atol=0 if world == 1 else 2e-5)


@pytest.mark.parametrize("precision", ["bf16", "w8a8"])
def test_in_few_bits_a_shard_is_as_exact_as_the_whole(source: WeightSource, precision: Precision) -> None:
    """Each rank rounds by its own scales: other errors, but no larger ones."""
    exact = two_steps(source.config, source, "fp32", lambda ops: ops)
    whole_error = (two_steps(source.config, source, precision, lambda ops: ops) - exact).square().mean().sqrt()
    error = (in_ranks(source, 2, precision) - exact).square().mean().sqrt()
    assert 0 < error < 1.3 * whole_error


def test_sums_in_the_order_of_the_ranks_are_the_same_sums(source: WeightSource) -> None:
    """The test's own `allreduce` adds in that order too, so not a bit may differ."""
    assert torch.equal(in_ranks(source, 4, "fp32", in_order=True), in_ranks(source, 4, "fp32"))
