"""Whole blocks as tensors: copies in order, out and in again, and a model that goes on from a copied block."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from driving import drive, load
from tiny_qwen import TinyModel

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.block_tensors import copy_blocks, export_blocks, import_blocks, move_slots, named_tensors
from mathlete.ryanstream.kv_cache import BlockCopy, SlotMove
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache, allocate_cache, block_bytes, read_blocks

DTYPES = [torch.bfloat16, torch.float32, torch.int8]


SHAPE = ModelConfig(
    architecture="qwen2", vocab_size=10, hidden_size=64, intermediate_size=64, num_layers=2, num_heads=2,
    num_kv_heads=2, head_dim=32, rms_norm_eps=1e-6, rope_theta=1e4, attention_bias=True,
    tie_word_embeddings=False, max_positions=64,
)  # fmt: skip


@pytest.fixture(params=DTYPES, ids=str)
def caches(request: pytest.FixtureRequest, rng: torch.Generator) -> list[LayerCache]:
    """Two layers of five blocks, every tensor filled with noise; int8 has scales beside it."""
    made = allocate_cache(SHAPE, 5, request.param)
    for _, tensor in named_tensors(made):
        tensor.copy_(torch.randint(-100, 100, tensor.shape, generator=rng))
    return made


def test_copies_are_done_in_order(caches: list[LayerCache]) -> None:
    """The second copy's target is the first one's source, as when a shared block is left and handed out again."""
    before = {name: tensor.clone() for name, tensor in named_tensors(caches)}
    copy_blocks(caches, [BlockCopy(1, 3), BlockCopy(2, 1)])
    for name, tensor in named_tensors(caches):
        assert torch.equal(tensor, before[name][[0, 2, 2, 1, 4]]), name


def test_moved_slots_hold_what_their_sources_held(caches: list[LayerCache]) -> None:
    """Two sequences' moves in one list; the second one's target was the first one's source."""
    before = [read_blocks(cache, torch.arange(5)) for cache in caches]
    move_slots(caches, [SlotMove(19, 17), SlotMove(36, 19), SlotMove(40, 40), SlotMove(79, 64), SlotMove(5, 4)])
    expected = torch.arange(80)
    expected[[17, 19, 64, 4]] = torch.tensor([19, 36, 79, 5])
    for cache, (keys, values) in zip(caches, before, strict=True):
        after = read_blocks(cache, torch.arange(5))
        assert torch.equal(after.keys, keys[:, expected]) and torch.equal(after.values, values[:, expected])


def test_no_moves_change_nothing(caches: list[LayerCache]) -> None:
    before = export_blocks(caches, range(5))
    move_slots(caches, [])
    after = export_blocks(caches, range(5))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_all_tensors_take_part(caches: list[LayerCache]) -> None:
    quantised = caches[0].keys.dtype == torch.int8
    assert len(dict(named_tensors(caches))) == (8 if quantised else 4)
    assert block_bytes(SHAPE, caches[0].keys.dtype) == sum(tensor.nbytes for _, tensor in named_tensors(caches)) // 5


def test_what_is_exported_can_be_imported_elsewhere(caches: list[LayerCache]) -> None:
    exported = export_blocks(caches, [4, 0])
    copy_blocks(caches, [BlockCopy(1, 4), BlockCopy(1, 0)])  # what was exported does not change with the cache
    import_blocks(caches, [2, 3], exported)
    again = export_blocks(caches, [2, 3])
    assert all(torch.equal(again[name], exported[name]) for name in exported)


@pytest.mark.parametrize("wrong", ["missing", "shape", "dtype", "count"])
def test_blocks_of_another_shape_are_refused_and_nothing_is_written(caches: list[LayerCache], wrong: str) -> None:
    exported = export_blocks(caches, [0])
    name = max(exported)
    if wrong == "missing":
        del exported[name]
    elif wrong == "shape":
        exported[name] = exported[name][..., :-1]
    elif wrong == "dtype":
        exported[name] = exported[name].double()
    before = export_blocks(caches, range(5))
    with pytest.raises(ValueError, match="do not fit"):
        import_blocks(caches, [1, 2] if wrong == "count" else [1], exported)
    after = export_blocks(caches, range(5))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", ["w8a8", "fp32"])
def test_forks_say_what_requests_of_their_own_say(tiny: TinyModel, engine_cache: Path, precision: str) -> None:
    """Token by token: three that share a partly filled block against three that never did."""

    def sampling(seed: int) -> SamplingParams:
        return SamplingParams(temperature=1.0, max_tokens=24, seed=seed, ignore_eos=True)

    engine = load(tiny.folder, engine_cache, precision=precision).engine
    prompt = list(range(20))
    engine.add("0", prompt, sampling(0))
    for _ in range(6):
        engine.step()
    for seed in (1, 2):
        engine.fork("0", str(seed), sampling(seed))
    ended = drive(engine)
    assert engine.kv_statistics.copied == 2
    common = ended.ids("0")[:6]
    for seed in range(3):
        forked = ended.outputs[str(seed)].request
        alone = load(tiny.folder, engine_cache, precision=precision).engine
        alone.add("0", prompt, sampling(0))  # until the fork, then with the other's seed
        for _ in range(6):
            alone.step()
        alone._requests["0"].sampling = sampling(seed)
        request = drive(alone).outputs["0"].request
        assert request.output_ids[:6] == common
        assert forked.output_ids == request.output_ids
        if precision == "fp32":  # plain torch adds up in another order in another batch
            assert forked.logprobs == pytest.approx(request.logprobs, abs=1e-4)
        else:
            assert forked.logprobs == request.logprobs
    assert ended.ids("0") != ended.ids("1") != ended.ids("2")
