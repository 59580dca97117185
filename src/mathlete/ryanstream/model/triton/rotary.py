"""Rotary embedding (Su et al. 2021) of queries and keys, and the way of keys and values into the paged cache.

Twin: `ops_torch.TorchOps.attention`, its first half. One program takes one head of one row.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.rotary import RotaryTables


@triton.jit
def _rotate_store_kernel(
    qkv_ptr, positions_ptr, slots_ptr, cosines_ptr, sines_ptr, keys_ptr, values_ptr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, HALF_BLOCK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """Program (m, h): h counts query heads, then key heads, then value heads. Slot -1 stores nothing."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    half: tl.constexpr = DIM // 2
    places = tl.arange(0, HALF_BLOCK)
    inside = places < half
    start = qkv_ptr + row * (HEADS + 2 * KV_HEADS) * DIM + head * DIM
    first = tl.load(start + places, mask=inside, other=0.0)
    second = tl.load(start + half + places, mask=inside, other=0.0)
    slot = tl.load(slots_ptr + row)
    block, offset = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    stored = inside & (slot >= 0)
    if head < HEADS + KV_HEADS:
        position = tl.load(positions_ptr + row).to(tl.int64)
        cosine = tl.load(cosines_ptr + position * half + places, mask=inside, other=0.0)
        sine = tl.load(sines_ptr + position * half + places, mask=inside, other=0.0)
        rotated = first * cosine - second * sine
        second = second * cosine + first * sine
        if head < HEADS:
            tl.store(start + places, rotated, mask=inside)
            tl.store(start + half + places, second, mask=inside)
        else:  # keys [blocks, KV, D, 16]
            target = keys_ptr + (block * KV_HEADS + head - HEADS) * DIM * BLOCK_SIZE + offset
            tl.store(target + places * BLOCK_SIZE, rotated, mask=stored)
            tl.store(target + (half + places) * BLOCK_SIZE, second, mask=stored)
    else:  # values [blocks, KV, 16, D]
        target = values_ptr + ((block * KV_HEADS + head - HEADS - KV_HEADS) * BLOCK_SIZE + offset) * DIM
        tl.store(target + places, first, mask=stored)
        tl.store(target + half + places, second, mask=stored)


def rotate_and_store(qkv: Tensor, num_heads: int, batch: ForwardBatch, cache: LayerCache, tables: RotaryTables) -> None:
    """Rotate the queries of qkv float32 [M, (H + 2 KV) D] in place; put rotated keys and the values into `cache`."""
    _, kv_heads, block_size, head_dim = cache.values.shape
    _rotate_store_kernel[(qkv.shape[0], num_heads + 2 * kv_heads)](
        qkv, batch.positions, batch.slots, tables.cosines, tables.sines, cache.keys, cache.values,
        HEADS=num_heads, KV_HEADS=kv_heads, DIM=head_dim, HALF_BLOCK=triton.next_power_of_2(head_dim // 2),
        BLOCK_SIZE=block_size,
    )  # fmt: skip
