"""The paged keys and values of one layer as tensors, in bf16, fp32 or int8: layout, and storing and reading in torch.

In int8, each 32 channels of a head's key or value at one place share a bf16 scale, which is rounded before the codes
are made: a few channels of Qwen2.5's keys are far larger than the rest, and would take the precision of a whole head.
Knows nothing of which block belongs to whom. Words: KV key/value heads, D head size, 16 places in a block.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.core.errors import EngineError
from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.model.config import ModelConfig

KV_GROUP = 32


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's cache.

    Attributes:
        keys: [blocks, KV, D, 16], bf16, fp32 or int8.
        values: [blocks, KV, 16, D], likewise.
        key_scales: bf16 [blocks, KV, D / 32, 16] when keys are int8, else None.
        value_scales: bf16 [blocks, KV, 16, D / 32] when values are int8, else None.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


class KeysValues(NamedTuple):
    """Keys and values float32 [KV, tokens, D]."""

    keys: Tensor
    values: Tensor


def allocate_cache(
    config: ModelConfig, num_blocks: int, kv_dtype: torch.dtype, device: str | torch.device = "cpu"
) -> list[LayerCache]:
    """The cache of every layer, zeros. Raises `EngineError` when there is no memory for it."""
    shape, width, dtype = (num_blocks, config.num_kv_heads), config.head_dim, kv_dtype

    def zeros(*inner: int, of: torch.dtype = dtype) -> Tensor:
        return _zeros((*shape, *inner), of, torch.device(device))

    def layer() -> LayerCache:
        keys, values = zeros(width, BLOCK_SIZE), zeros(BLOCK_SIZE, width)
        if dtype != torch.int8:
            return LayerCache(keys, values)
        groups = width // KV_GROUP
        scales = zeros(groups, BLOCK_SIZE, of=torch.bfloat16), zeros(BLOCK_SIZE, groups, of=torch.bfloat16)
        return LayerCache(keys, values, *scales)

    return [layer() for _ in range(config.num_layers)]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros. On the CPU as pages that the system hands out when they are first written, huge ones where it has them.

    `torch.zeros` writes all of it: of a warm start it took half the time, and most of a cache is never used.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"the system gave no {size / 2**30:,.1f} GiB for a part of the KV cache ({error}); lower kv_cache_bytes"
        ) from error
    with contextlib.suppress(OSError):  # a kernel without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


def block_bytes(config: ModelConfig, kv_dtype: torch.dtype) -> int:
    """Memory of one block of 16 tokens over all layers."""
    values = 2 * config.num_layers * config.num_kv_heads * config.head_dim * BLOCK_SIZE
    if kv_dtype == torch.int8:
        return values + values // KV_GROUP * torch.bfloat16.itemsize
    return values * kv_dtype.itemsize


def store_tokens(cache: LayerCache, slots: Tensor, key: Tensor, value: Tensor) -> None:
    """Write key and value float32 [M, KV, D] at slots int64 [M] (block * 16 + offset), nothing where they are -1."""
    if bool((slots < 0).any()):
        stored = slots >= 0
        slots, key, value = slots[stored], key[stored], value[stored]
    block, offset = slots // BLOCK_SIZE, slots % BLOCK_SIZE
    if cache.key_scales is None or cache.value_scales is None:
        cache.keys[block, :, :, offset] = key.to(cache.keys.dtype)
        cache.values[block, :, offset] = value.to(cache.values.dtype)
        return
    cache.keys[block, :, :, offset], cache.key_scales[block, :, :, offset] = _quantize(key)
    cache.values[block, :, offset], cache.value_scales[block, :, offset] = _quantize(value)


def read_blocks(cache: LayerCache, blocks: Tensor) -> KeysValues:
    """What these blocks, int64 [n], hold in order: n * 16 tokens."""
    keys, values = cache.keys[blocks].float(), cache.values[blocks].float()  # [n, KV, D, 16], [n, KV, 16, D]
    if cache.key_scales is not None and cache.value_scales is not None:
        keys = keys * cache.key_scales[blocks].float().repeat_interleave(KV_GROUP, dim=2)
        values = values * cache.value_scales[blocks].float().repeat_interleave(KV_GROUP, dim=3)
    num_heads, width = keys.shape[1], keys.shape[2]
    return KeysValues(
        keys.permute(1, 0, 3, 2).reshape(num_heads, -1, width), values.transpose(0, 1).reshape(num_heads, -1, width)
    )


def _quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """X float32 [M, KV, D]: int8 codes, and bf16 scales [M, KV, D / 32]; NaN scales where a group is not finite."""
    groups = x.reshape(*x.shape[:-1], -1, KV_GROUP)
    peak = groups.abs().amax(-1)
    scales = torch.where(peak.isfinite(), peak / 127, torch.nan).bfloat16()
    rounded = scales.float()
    inverse = torch.where(rounded > 1e-30, 1 / rounded, 0.0)  # also 0 where NaN
    codes = (torch.nan_to_num(groups, 0, 0, 0) * inverse[..., None]).round().clamp(-127, 127)
    return codes.to(torch.int8).flatten(-2), scales
