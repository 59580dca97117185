"""KV blocks as tensors: copied inside the cache, taken out of it, put back; single slots moved. Knows no owners.

The first dimension of every tensor of a `LayerCache` is the block, whatever the tensor holds (keys, values, the
scales of quantised ones), so all of them are treated alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from mathlete.ryanstream.kv_cache import BLOCK_SIZE, BlockCopy, SlotMove
from mathlete.ryanstream.model.layer_cache import LayerCache


def named_tensors(caches: Sequence[LayerCache]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the cache, [blocks, ...], as "3.keys" for the keys of layer 3."""
    for layer, cache in enumerate(caches):
        for field in fields(cache):
            value = getattr(cache, field.name)
            if isinstance(value, Tensor):
                yield f"{layer}.{field.name}", value


def copy_blocks(caches: Sequence[LayerCache], copies: Sequence[BlockCopy]) -> None:
    """Do the copies one after another: the target of one may have been the source of another before."""
    for _, tensor in named_tensors(caches):
        for copy in copies:
            tensor[copy.dst].copy_(tensor[copy.src])


def move_slots(caches: Sequence[LayerCache], moves: Sequence[SlotMove]) -> None:
    """Copy the keys and values of single places, in every layer, as if one move after another was done.

    All are read before any is written, which is the same: no move's source is an earlier one's target.
    """
    if not moves:
        return
    src, dst = (torch.tensor(slots, device=caches[0].keys.device) for slots in zip(*moves, strict=True))
    src_block, src_place, dst_block, dst_place = (
        src // BLOCK_SIZE,
        src % BLOCK_SIZE,
        dst // BLOCK_SIZE,
        dst % BLOCK_SIZE,
    )
    for cache in caches:
        for tensor in _by_place(cache):
            tensor[dst_block, :, dst_place] = tensor[src_block, :, src_place]


def _by_place(cache: LayerCache) -> Iterator[Tensor]:
    """Every tensor of a layer as a view [blocks, KV, 16, what a place holds]."""
    yield cache.keys.mT
    yield cache.values
    if cache.key_scales is not None and cache.value_scales is not None:
        yield cache.key_scales.mT
        yield cache.value_scales


def export_blocks(caches: Sequence[LayerCache], block_ids: Sequence[int]) -> dict[str, Tensor]:
    """Copies on the CPU of these blocks, in this order: [len(block_ids), ...] a tensor of the cache."""
    return {name: tensor[torch.tensor(block_ids, device=tensor.device)].cpu() for name, tensor in named_tensors(caches)}


def import_blocks(caches: Sequence[LayerCache], block_ids: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
    """Write what `export_blocks` gave into these blocks.

    Raises:
        ValueError: when a tensor is missing, or of another shape or type than the cache; nothing is written then.
    """
    targets = dict(named_tensors(caches))
    for name, tensor in targets.items():
        given = tensors.get(name)
        if given is None or given.dtype != tensor.dtype or given.shape != (len(block_ids), *tensor.shape[1:]):
            raise ValueError(f"the blocks' {name} do not fit this cache")
    for name, tensor in targets.items():
        tensor[torch.tensor(block_ids, device=tensor.device)] = tensors[name].to(tensor.device)
