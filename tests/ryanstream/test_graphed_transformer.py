"""Passes in fixed shapes: padding changes no row and no cache, parts packed come out as they were; CUDA graphs."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from driving import drive, load
from guessing import GuessingProposer
from tiny_qwen import TinyModel
from tree_batches import random_trees, tree_batch

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.loading import LoadedEngine
from mathlete.ryanstream.model.graphed_transformer import (
    WIDTHS,
    GraphedTransformer,
    PassShape,
    _batch_of,
    _parts,
    padded,
    pass_shape,
)
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.transfer import move_together, pack, unpack
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.depth_control import FixedDepth
from mathlete.ryanstream.speculative.speculation import Speculation

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture(scope="module")
def loaded(tiny: TinyModel, engine_cache: Path) -> LoadedEngine:
    return load(tiny.folder, engine_cache, precision="fp32", device="cpu")


@pytest.fixture
def trees(rng: torch.Generator) -> tuple[ForwardBatch, int]:
    """A step of plain rows, a chain and trees; and how many blocks it needs."""
    made = tree_batch(random_trees([40, 3, 15, 33], rng), rng)
    batch = replace(made.batch, logit_rows=made.batch.logit_rows[1::2], hidden_rows=torch.tensor([2, 0]))
    return batch, made.num_blocks


def noisy_cache(loaded: LoadedEngine, num_blocks: int) -> list[LayerCache]:
    noise = torch.Generator().manual_seed(9)

    def like(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn((num_blocks, *tensor.shape[1:]), generator=noise)

    return [LayerCache(like(layer.keys), like(layer.values)) for layer in loaded.engine.runner.cache]


@pytest.mark.parametrize("with_trees", [True, False])
def test_padding_changes_no_row_and_no_cache(
    loaded: LoadedEngine, trees: tuple[ForwardBatch, int], with_trees: bool
) -> None:
    (batch, num_blocks), model = trees, loaded.engine.runner.model
    if not with_trees:
        batch = replace(batch, paths=None)
    shape = pass_shape(batch, 50)
    assert shape is not None and shape.width > len(batch.token_ids) and bool(shape.path_width) == with_trees
    wide = padded(batch, shape)
    caches = [noisy_cache(loaded, num_blocks) for _ in range(2)]
    expected = model.forward(batch, caches[0])
    got = model.outputs(
        model.layers(model.embed(wide.token_ids), wide, caches[1]),
        replace(wide, logit_rows=wide.logit_rows[: len(batch.logit_rows)], hidden_rows=batch.hidden_rows),
    )
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.hidden, expected.hidden, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(*caches, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-5, atol=1e-5)


def test_the_shape_of_a_batch(trees: tuple[ForwardBatch, int]) -> None:
    plain = replace(trees[0], paths=None)

    def cut(num_rows: int, num_sequences: int) -> ForwardBatch:
        return replace(plain, token_ids=torch.zeros(num_rows), tables=torch.zeros((num_sequences, 5)))

    assert pass_shape(cut(1, 1), 5) == PassShape(1, 5, 0)
    assert pass_shape(cut(17, 1), 9) == PassShape(24, 9, 0)
    assert pass_shape(cut(1, 3), 5) == PassShape(4, 5, 0)  # sequences without a row
    assert pass_shape(cut(WIDTHS[-1], 1), 5) == PassShape(WIDTHS[-1], 5, 0)
    assert pass_shape(cut(WIDTHS[-1] + 1, 1), 5) is None
    assert pass_shape(cut(0, 0), 5) is None
    assert pass_shape(cut(1, 1), 4) is None
    widths = [pass_shape(replace(plain, paths=torch.zeros((4, p))), 50) for p in (1, 8, 9, 64)]
    assert [shape and shape.path_width for shape in widths] == [8, 8, 16, 64]
    with pytest.raises(ValueError, match="without paths"):
        padded(plain, PassShape(128, 50, 8))


def test_a_batch_is_the_same_after_packing(trees: tuple[ForwardBatch, int]) -> None:
    for batch in (trees[0], replace(trees[0], paths=None)):
        whole = replace(batch, hidden_rows=None)
        again = _batch_of(unpack(pack(_parts(whole)), _parts(whole)))
        for field in fields(ForwardBatch):
            ours, theirs = getattr(again, field.name), getattr(whole, field.name)
            assert (ours is None and theirs is None) or (ours.dtype == theirs.dtype and torch.equal(ours, theirs))


def test_parts_of_any_type_and_size_are_packed() -> None:
    parts = [
        torch.arange(3, dtype=torch.int32), torch.zeros((0, 5)), torch.tensor([0.1], dtype=torch.float64),
        torch.arange(12).view(3, 4).T, torch.tensor([True, False]), torch.tensor(7.5),
    ]  # fmt: skip
    packed = pack(parts)
    for got in (unpack(packed, parts), move_together(parts, torch.device("cpu"))):
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(got, parts, strict=True))
    assert all((part.data_ptr() - packed.data_ptr()) % 16 == 0 for part in unpack(packed, parts))


def test_graphs_are_for_cuda(loaded: LoadedEngine) -> None:
    assert not isinstance(loaded.engine.runner.model, GraphedTransformer)


def generate(engine: Engine) -> list[list[int]]:
    for i in range(5):
        params = SamplingParams(0.0 if i == 0 else 0.9, max_tokens=30, seed=i, ignore_eos=True)
        engine.add(str(i), [40 + i, 41, 42, 7, 9] * (1 + i), params)
    ended = drive(engine)
    return [ended.ids(str(i)) for i in range(5)]


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_an_engine_with_graphs_says_what_it_says_without(
    tiny_wide: TinyModel, engine_cache: Path, precision: str
) -> None:
    with_graphs, without = (
        load(tiny_wide.folder, engine_cache, precision=precision, device="cuda", cuda_graphs=on).engine
        for on in (True, False)
    )
    told = generate(without)
    assert generate(with_graphs) == told
    model = with_graphs.runner.model
    assert isinstance(model, GraphedTransformer) and model.num_graphs > 0

    def known(request: EngineRequest, path: list[int]) -> int:
        place, ids = len(request.output_ids) + len(path), told[int(request.request_id)]
        return ids[place] if place < len(ids) else 3

    for branches in (False, True):
        proposer = GuessingProposer(known, 200, 0.8, branches)
        with_graphs.speculation = Speculation(proposer, FixedDepth(4, 8 if branches else 4))
        assert generate(with_graphs) == told
        assert with_graphs.speculation.statistics.num_accepted > 0


@pytest.mark.gpu
@needs_cuda
def test_other_weights_and_another_cache_get_graphs_of_their_own(tiny: TinyModel, engine_cache: Path) -> None:
    runner = load(tiny.folder, engine_cache, precision="fp32", device="cuda").engine.runner
    model = runner.model
    assert isinstance(model, GraphedTransformer)
    batch = ForwardBatch(
        torch.tensor([5]), torch.tensor([0]).int(), torch.tensor([0]), torch.tensor([0]).int(), torch.tensor([1]).int(),
        torch.tensor([[0]]).int(), torch.tensor([0]),
    )  # fmt: skip
    first = model.forward(batch, runner.cache).logits
    assert torch.equal(model.forward(batch, runner.cache).logits, first) and model.num_graphs == 1
    other = [LayerCache(torch.zeros_like(layer.keys), torch.zeros_like(layer.values)) for layer in runner.cache]
    assert torch.equal(model.forward(batch, other).logits, first) and model.num_graphs == 1
    assert torch.equal(other[0].keys, runner.cache[0].keys)
    model.weights = replace(model.weights, norm=model.weights.norm * 2)
    assert torch.allclose(model.forward(batch, other).logits, first * 2) and model.num_graphs == 1
