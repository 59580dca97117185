"""Product with NF4 weights: dequantised tile by tile on the way into the dot product, never stored.

Twin: `nf4_linear`, below. Layout of the weights: `nf4.py`. One program makes 32 rows x 64 columns, going through
K a block of 64 at a time; the tile is the same for every number of rows.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from mathlete.ryanstream.model.nf4 import NF4_BLOCK, NF4_LEVELS, dequantize_nf4, unpack_nf4
from mathlete.ryanstream.model.triton import on_the_cpu

_ROWS, _COLUMNS = 32, 64


@triton.jit
def _nf4_matmul_kernel(
    x_ptr, packed_ptr, absmax_ptr, levels_ptr, out_ptr, num_rows, num_columns, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, K_BLOCK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Program (i, j) makes out[i ROWS :, j COLUMNS :]."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = rows < num_rows, columns < num_columns
    row_start, column_start = rows.to(tl.int64) * width, columns.to(tl.int64) * width
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, width, K_BLOCK):
        inner = start + tl.arange(0, K_BLOCK)
        pairs = start // 2 + tl.arange(0, K_BLOCK // 2)
        x = tl.load(x_ptr + row_start[:, None] + inner[None, :], mask=row_inside[:, None], other=0.0)
        packed = tl.load(
            packed_ptr + column_start[:, None] // 2 + pairs[None, :], mask=column_inside[:, None], other=0
        ).to(tl.int32)  # [COLUMNS, K_BLOCK / 2]
        scale = tl.load(absmax_ptr + (column_start + start) // K_BLOCK, mask=column_inside, other=0.0)
        codes = tl.interleave(packed >> 4, packed & 15)  # [COLUMNS, K_BLOCK]
        weight = tl.load(levels_ptr + codes) * scale[:, None]
        weight = tl.trans(weight.to(x.dtype))
        if WIDEN:
            x, weight = x.to(tl.float32), weight.to(tl.float32)
        total = tl.dot(x, weight, total, input_precision="ieee")
    target = out_ptr + rows.to(tl.int64)[:, None] * num_columns + columns[None, :]
    tl.store(target, total, mask=row_inside[:, None] & column_inside[None, :])


@functools.cache
def _levels_on(device: torch.device) -> Tensor:
    """The levels float32 [16], made once: a copy from the CPU cannot be part of a CUDA graph."""
    return torch.tensor(NF4_LEVELS, dtype=torch.float32, device=device)


def nf4_matmul(x: Tensor, packed: Tensor, absmax: Tensor) -> Tensor:
    """X [M, K] in bf16 or float32 times NF4 weights, float32 [M, N], without a bias.

    Args:
        x: contiguous; the weights are rounded to its type before the product, whose sums are float32.
        packed: uint8 [N, K / 2].
        absmax: float32 [N, K / 64].
    """
    (num_rows, width), num_columns = x.shape, packed.shape[0]
    out = torch.empty((num_rows, num_columns), dtype=torch.float32, device=x.device)
    levels = _levels_on(x.device)
    _nf4_matmul_kernel[(triton.cdiv(num_rows, _ROWS), triton.cdiv(num_columns, _COLUMNS))](
        x, packed, absmax, levels, out, num_rows, num_columns, width,
        ROWS=_ROWS, COLUMNS=_COLUMNS, K_BLOCK=NF4_BLOCK, WIDEN=on_the_cpu(x),
    )  # fmt: skip
    return out


def nf4_linear(x: Tensor, packed: Tensor, absmax: Tensor) -> Tensor:
    """The twin of `nf4_matmul`: the whole weight dequantised, then torch's product in float32."""
    weight = dequantize_nf4(unpack_nf4(packed), absmax).to(x.dtype)
    return F.linear(x.float(), weight.float())
