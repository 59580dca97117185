"""Attention over the paged cache: decode and chunked prefill alike, grouped queries, online softmax.

Twin: `ops_torch.TorchOps.attention`, its second half. One program takes one row's query heads of one key/value
head through the row's blocks, 64 tokens at a time from the start (Milakov & Gimelshein 2018; Dao et al. 2022).
So a row's result is the same whether it came alone, in a batch or in a prompt's chunk; the price is that the
rows of one prompt each read its blocks (from L2), and that a few long rows leave a big GPU idle.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.triton import on_the_cpu

_TILE = 64  # tokens; four blocks
_SMALLEST_DOT = 16  # what `tl.dot` wants of each side


@triton.jit
def _attention_kernel(
    qkv_ptr, keys_ptr, values_ptr, tables_ptr, row_seq_ptr, lengths_ptr, paths_ptr, out_ptr,
    table_width, path_width, scale,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, DIM_BLOCK: tl.constexpr,
    GROUP_BLOCK: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Program (m, kv) makes the HEADS / KV_HEADS heads of row m that share key/value head kv."""
    row, kv = tl.program_id(0).to(tl.int64), tl.program_id(1)
    group: tl.constexpr = HEADS // KV_HEADS
    member, dims = tl.arange(0, GROUP_BLOCK), tl.arange(0, DIM_BLOCK)
    inside = (member < group)[:, None] & (dims < DIM)[None, :]
    head_dims = (kv * group + member)[:, None] * DIM + dims[None, :]
    query = tl.load(qkv_ptr + row * (HEADS + 2 * KV_HEADS) * DIM + head_dims, mask=inside, other=0.0)
    query = query.to(keys_ptr.dtype.element_ty)  # [GROUP_BLOCK, DIM_BLOCK]
    if WIDEN:
        query = query.to(tl.float32)
    length = tl.load(lengths_ptr + row)
    table = tables_ptr + tl.load(row_seq_ptr + row).to(tl.int64) * table_width
    prefix = length  # places that the table tells of
    if paths_ptr is not None:
        path = paths_ptr + row * path_width
        for start in range(0, path_width, BLOCK_SIZE):
            nodes = start + tl.arange(0, BLOCK_SIZE)
            slots = tl.load(path + nodes, mask=nodes < path_width, other=-1)
            prefix -= tl.sum((slots >= 0).to(tl.int32), axis=0)
    peak = tl.full((GROUP_BLOCK,), float("-inf"), dtype=tl.float32)
    mass = tl.zeros((GROUP_BLOCK,), dtype=tl.float32)
    total = tl.zeros((GROUP_BLOCK, DIM_BLOCK), dtype=tl.float32)
    for start in range(0, length, TILE):
        token = start + tl.arange(0, TILE)
        visible = token < length
        block = tl.load(table + token // BLOCK_SIZE, mask=token < prefix, other=0).to(tl.int64)
        offset = token % BLOCK_SIZE
        if paths_ptr is not None:
            on_path = visible & (token >= prefix)
            slot = tl.load(path + (token - prefix), mask=on_path, other=0)
            block, offset = block + slot // BLOCK_SIZE, tl.where(on_path, slot % BLOCK_SIZE, offset)
        place = (block * KV_HEADS + kv) * DIM * BLOCK_SIZE  # of the head's part of the block, in keys and in values
        keys = tl.load(
            keys_ptr + place[None, :] + dims[:, None] * BLOCK_SIZE + offset[None, :],
            mask=(dims < DIM)[:, None] & visible[None, :],
            other=0.0,
        )  # [DIM_BLOCK, TILE]
        values = tl.load(
            values_ptr + place[:, None] + offset[:, None] * DIM + dims[None, :],
            mask=visible[:, None] & (dims < DIM)[None, :],
            other=0.0,
        )  # [TILE, DIM_BLOCK]
        if WIDEN:
            keys, values = keys.to(tl.float32), values.to(tl.float32)
        scores = tl.dot(query, keys, input_precision="ieee") * scale
        scores = tl.where(visible[None, :], scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, axis=1))
        weights = tl.exp(scores - new_peak[:, None])
        shrink = tl.exp(peak - new_peak)
        mass = mass * shrink + tl.sum(weights, axis=1)
        total = tl.dot(weights.to(values.dtype), values, total * shrink[:, None], input_precision="ieee")
        peak = new_peak
    tl.store(out_ptr + row * HEADS * DIM + head_dims, total / mass[:, None], mask=inside)


def paged_attention(qkv: Tensor, num_heads: int, batch: ForwardBatch, cache: LayerCache) -> Tensor:
    """Attend with the rotated queries in qkv float32 [M, (H + 2 KV) D] over what `cache` holds, own row included.

    A node of a tree gathers its path in the order of a plain sequence, so its result is that of one, bit for bit.

    Queries and softmax weights are rounded to the cache's type before each product.

    Returns:
        float32 [M, H D].
    """
    _, kv_heads, block_size, head_dim = cache.values.shape
    out = torch.empty((qkv.shape[0], num_heads * head_dim), dtype=torch.float32, device=qkv.device)
    _attention_kernel[(qkv.shape[0], kv_heads)](
        qkv, cache.keys, cache.values, batch.tables, batch.row_seq, batch.lengths, batch.paths, out,
        batch.tables.shape[1], 0 if batch.paths is None else batch.paths.shape[1], head_dim**-0.5,
        HEADS=num_heads, KV_HEADS=kv_heads, DIM=head_dim,
        DIM_BLOCK=max(_SMALLEST_DOT, triton.next_power_of_2(head_dim)),
        GROUP_BLOCK=max(_SMALLEST_DOT, triton.next_power_of_2(num_heads // kv_heads)),
        BLOCK_SIZE=block_size, TILE=_TILE, WIDEN=on_the_cpu(qkv),
    )  # fmt: skip
    return out
