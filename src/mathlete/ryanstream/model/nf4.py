"""NF4, the 4-bit "normal float" of QLoRA (Dettmers et al. 2023), in plain torch: the definition and the layout.

Knows codes, scales and how two codes share a byte; knows nothing of kernels or models. A row of K weights
falls into blocks of 64. A block keeps its largest magnitude (`absmax`) and, for each weight, the number of
the nearest of sixteen levels in [-1, 1]; weight ~ level[code] * absmax. Scales stay float32: QLoRA's second
quantisation, of the scales, is not done. The levels and the order of nibbles are those of bitsandbytes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NF4_BLOCK = 64

# Quantiles of the standard normal, scaled to [-1, 1], with an exact zero (QLoRA, appendix E).
NF4_LEVELS: tuple[float, ...] = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)

# Quantised at a time: the search for the nearest level needs several times a chunk's own memory.
_CHUNK_ELEMENTS = 1 << 22


class NF4Rows(NamedTuple):
    """Rows in NF4: `codes` uint8 [N, K], each 0..15; `absmax` float32 [N, K / 64]."""

    codes: Tensor
    absmax: Tensor


def quantize_nf4(weight: Tensor) -> NF4Rows:
    """Weight float32 [N, K] in NF4; a tie between two levels goes to the lower one.

    A block of zeros gets absmax 0. A block with a NaN or an infinity gets zero codes and absmax NaN, so that
    its products are NaN and not garbage.

    Raises:
        ValueError: when K is not a multiple of 64.
    """
    num_rows, width = weight.shape
    if width % NF4_BLOCK:
        raise ValueError(f"NF4 needs rows of a multiple of {NF4_BLOCK} weights, not {width}")
    codes = torch.empty((num_rows, width), dtype=torch.uint8, device=weight.device)
    absmax = torch.empty((num_rows, width // NF4_BLOCK), dtype=torch.float32, device=weight.device)
    rows_at_once = max(1, _CHUNK_ELEMENTS // max(width, 1))
    for start in range(0, num_rows, rows_at_once):
        chunk = slice(start, start + rows_at_once)
        codes[chunk], absmax[chunk] = _quantize_chunk(weight[chunk].float())
    return NF4Rows(codes, absmax)


def _quantize_chunk(weight: Tensor) -> NF4Rows:
    levels = torch.tensor(NF4_LEVELS, dtype=torch.float32, device=weight.device)
    blocks = weight.reshape(weight.shape[0], -1, NF4_BLOCK)
    peak = blocks.abs().amax(dim=-1)
    usable = (peak > 0) & peak.isfinite()
    scaled = torch.where(usable[..., None], blocks / torch.where(usable, peak, 1.0)[..., None], 0.0)
    codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2, out_int32=True)
    return NF4Rows(codes.to(torch.uint8).reshape(weight.shape), torch.where(peak.isfinite(), peak, torch.nan))


def dequantize_nf4(codes: Tensor, absmax: Tensor) -> Tensor:
    """The weights float32 [N, K] that `codes` uint8 [N, K] and `absmax` float32 [N, K / 64] stand for."""
    levels = torch.tensor(NF4_LEVELS, dtype=torch.float32, device=codes.device)
    blocks = levels[codes.int()].reshape(*absmax.shape, NF4_BLOCK)
    return (blocks * absmax[..., None]).reshape(codes.shape)


def pack_nf4(codes: Tensor) -> Tensor:
    """Two codes a byte: codes uint8 [N, K] to uint8 [N, K / 2]; an even column takes the high four bits."""
    return (codes[:, 0::2] << 4) | codes[:, 1::2]


def unpack_nf4(packed: Tensor) -> Tensor:
    """The codes uint8 [N, K] of `packed` uint8 [N, K / 2]."""
    return torch.stack([packed >> 4, packed & 15], dim=-1).reshape(packed.shape[0], -1)
