"""Product with NF4 weights: dequantised tile by tile on the way into the dot product, never stored.

Twin: `nf4_linear`, below. Layout of the weights: `nf4.py`. A byte holds two neighbours of a row, so a tile of bytes is
two tiles of weights, those of even and of odd places: x is read the same way, and nothing has to be interleaved.
One program makes up to 32 rows x `COLUMNS` columns over one part of K; few columns would leave most of a GPU idle
otherwise. The parts are added in order by a second kernel. Sizes of tiles along K, and the number of parts, go by the
shape of the weight only, so a row's result does not depend on the batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from mathlete.ryanstream.model.nf4 import NF4_BLOCK, NF4_LEVELS, dequantize_nf4, unpack_nf4
from mathlete.ryanstream.model.triton import on_the_cpu


@dataclass(frozen=True, slots=True)
class Nf4Tiles:
    """Sizes of the kernel's tiles.

    Attributes:
        columns: of the product, that a program makes.
        blocks: NF4 blocks of each column that it takes in at once.
        warps: of a program.
        stages: tiles that are loaded ahead.
        programs: that a product is to have, which its K is parted for.
    """

    columns: int = 64
    blocks: int = 2
    warps: int = 4
    stages: int = 4
    programs: int = 528


_TILES = Nf4Tiles()


@triton.jit
def _nf4_matmul_kernel(
    x_ptr, packed_ptr, absmax_ptr, levels_ptr, out_ptr, num_rows, num_columns, width, part,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Program (i, j, k) makes out[k, i ROWS :, j COLUMNS :] over the columns k part : (k + 1) part of x."""
    PAIRS: tl.constexpr = BLOCKS * BLOCK // 2
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = rows < num_rows, columns < num_columns
    row_start, column_start = rows.to(tl.int64) * width, columns.to(tl.int64) * width
    begin = tl.program_id(2) * part
    end = tl.minimum(begin + part, width)
    block = tl.arange(0, BLOCKS)
    pair = tl.arange(0, BLOCK // 2)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(begin, end, BLOCKS * BLOCK):
        inner = start + 2 * tl.arange(0, PAIRS)
        x_mask = row_inside[:, None] & (inner < end)[None, :]
        even = tl.load(x_ptr + row_start[:, None] + inner[None, :], mask=x_mask, other=0.0)
        odd = tl.load(x_ptr + row_start[:, None] + inner[None, :] + 1, mask=x_mask, other=0.0)
        inside = column_inside[:, None] & (start + block * BLOCK < end)[None, :]  # [COLUMNS, BLOCKS]
        first = column_start[:, None] + start + (block * BLOCK)[None, :]
        scale = tl.load(absmax_ptr + first // BLOCK, mask=inside, other=0.0)[:, :, None]
        packed = tl.load(
            packed_ptr + (first // 2)[:, :, None] + pair[None, None, :], mask=inside[:, :, None], other=0
        ).to(tl.int32)  # [COLUMNS, BLOCKS, BLOCK / 2]
        high = (tl.load(levels_ptr + (packed >> 4)) * scale).to(even.dtype)
        low = (tl.load(levels_ptr + (packed & 15)) * scale).to(even.dtype)
        high = tl.trans(tl.reshape(high, (COLUMNS, PAIRS)))
        low = tl.trans(tl.reshape(low, (COLUMNS, PAIRS)))
        if WIDEN:
            even, odd, high, low = even.to(tl.float32), odd.to(tl.float32), high.to(tl.float32), low.to(tl.float32)
        total = tl.dot(even, high, total, input_precision="ieee")
        total = tl.dot(odd, low, total, input_precision="ieee")
    row = tl.program_id(2).to(tl.int64) * num_rows + rows
    target = out_ptr + row[:, None] * num_columns + columns[None, :]
    tl.store(target, total, mask=row_inside[:, None] & column_inside[None, :])


@triton.jit
def _add_parts_kernel(parts_ptr, out_ptr, size, num_parts, SIZE: tl.constexpr):
    """Program i makes out[i SIZE :], adding the parts in order."""
    places = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = places < size
    total = tl.zeros((SIZE,), dtype=tl.float32)
    for part in range(num_parts):
        total += tl.load(parts_ptr + part * size + places, mask=inside, other=0.0)
    tl.store(out_ptr + places, total, mask=inside)


@functools.cache
def _levels_on(device: torch.device) -> Tensor:
    """The levels float32 [16], made once: a copy from the CPU cannot be part of a CUDA graph."""
    return torch.tensor(NF4_LEVELS, dtype=torch.float32, device=device)


def nf4_matmul(x: Tensor, packed: Tensor, absmax: Tensor, tiles: Nf4Tiles = _TILES) -> Tensor:
    """X [M, K] in bf16 or float32 times NF4 weights, float32 [M, N], without a bias.

    Args:
        x: contiguous; the weights are rounded to its type before the product, whose sums are float32.
        packed: uint8 [N, K / 2].
        absmax: float32 [N, K / 64].
        tiles: sizes of the kernel's tiles.
    """
    (num_rows, width), num_columns = x.shape, packed.shape[0]
    step = tiles.blocks * NF4_BLOCK
    num_tiles = triton.cdiv(num_columns, tiles.columns)
    wanted = min(triton.cdiv(tiles.programs, num_tiles), triton.cdiv(width, 4 * step))
    part = step * triton.cdiv(triton.cdiv(width, step), max(1, wanted))
    num_parts = triton.cdiv(width, part)
    parts = torch.empty((num_parts, num_rows, num_columns), dtype=torch.float32, device=x.device)
    rows = 16 if num_rows <= 16 else 32
    _nf4_matmul_kernel[(triton.cdiv(num_rows, rows), num_tiles, num_parts)](
        x, packed, absmax, _levels_on(x.device), parts, num_rows, num_columns, width, part,
        ROWS=rows, COLUMNS=tiles.columns, BLOCKS=tiles.blocks, BLOCK=NF4_BLOCK, WIDEN=on_the_cpu(x),
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    if num_parts == 1:
        return parts[0]
    out = torch.empty((num_rows, num_columns), dtype=torch.float32, device=x.device)
    size = num_rows * num_columns
    _add_parts_kernel[(triton.cdiv(size, 1024),)](parts, out, size, num_parts, SIZE=1024)
    return out


def nf4_linear(x: Tensor, packed: Tensor, absmax: Tensor) -> Tensor:
    """The twin of `nf4_matmul`: the whole weight dequantised, then torch's product in float32."""
    weight = dequantize_nf4(unpack_nf4(packed), absmax).to(x.dtype)
    return F.linear(x.float(), weight.float())
