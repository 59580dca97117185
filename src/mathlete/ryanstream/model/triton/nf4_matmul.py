"""Product with NF4 weights on a GPU: the weight is written out in x's type by Triton, and the product is torch's.

Twin: `nf4_linear`, below. Layout of the weights: `nf4.py`. Writing out runs at the speed of memory; a product that
takes the codes in tile by tile was five to thirty times slower, since what it looks up has to change its layout on
the way into a tensor core (LOG.md). The weight written out lives for one product; its memory is that of the largest.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from mathlete.ryanstream.model.nf4 import NF4_BLOCK, NF4_LEVELS, dequantize_nf4, unpack_nf4

_PAIRS = 1024


@triton.jit
def _dequantize_kernel(
    packed_ptr, absmax_ptr, levels_ptr, out_ptr, num_pairs, PAIRS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Program i writes the weights of the bytes i PAIRS : (i + 1) PAIRS; a byte holds two neighbours of a row."""
    first = tl.program_id(0).to(tl.int64) * PAIRS
    pairs = first + tl.arange(0, PAIRS)
    inside = pairs < num_pairs
    packed = tl.load(packed_ptr + pairs, mask=inside, other=0).to(tl.int32)
    scale = tl.load(absmax_ptr + pairs // (BLOCK // 2), mask=inside, other=0.0)
    high = tl.load(levels_ptr + (packed >> 4)) * scale
    low = tl.load(levels_ptr + (packed & 15)) * scale
    places = 2 * first + tl.arange(0, 2 * PAIRS)
    weights = tl.interleave(high, low).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + places, weights, mask=places < 2 * num_pairs)


@functools.cache
def _levels_on(device: torch.device) -> Tensor:
    """The levels float32 [16], made once: a copy from the CPU cannot be part of a CUDA graph."""
    return torch.tensor(NF4_LEVELS, dtype=torch.float32, device=device)


def nf4_matmul(x: Tensor, packed: Tensor, absmax: Tensor) -> Tensor:
    """X [M, K] in bf16 or float32 times NF4 weights, float32 [M, N], without a bias.

    Args:
        x: the weights are rounded to its type before the product, and the product to it afterwards.
        packed: contiguous uint8 [N, K / 2].
        absmax: contiguous float32 [N, K / 64].
    """
    weight = torch.empty((packed.shape[0], x.shape[1]), dtype=x.dtype, device=x.device)
    num_pairs = packed.numel()
    _dequantize_kernel[(triton.cdiv(num_pairs, _PAIRS),)](
        packed, absmax, _levels_on(x.device), weight, num_pairs, PAIRS=_PAIRS, BLOCK=NF4_BLOCK
    )
    return F.linear(x, weight).float()


def nf4_linear(x: Tensor, packed: Tensor, absmax: Tensor) -> Tensor:
    """The twin of `nf4_matmul`: the whole weight dequantised in torch, then torch's product in float32."""
    weight = dequantize_nf4(unpack_nf4(packed), absmax).to(x.dtype)
    return F.linear(x.float(), weight.float())
