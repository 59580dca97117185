"""RMSNorm (Zhang & Sennrich 2019), of whole rows or of heads inside rows. Twin: `ops_torch.rms_norm`.

One program normalises one row, which it holds whole.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rms_norm_kernel(
    x_ptr, weight_ptr, out_ptr, x_stride, out_stride, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Program (m, g) normalises the g-th piece of WIDTH columns in row m."""
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    x = tl.load(x_ptr + row * x_stride + piece * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / WIDTH + eps)
    tl.store(out_ptr + row * out_stride + piece * WIDTH + columns, x * scale * weight, mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """X float32 [M, K] normalised and times weight float32 [K], as `dtype` [M, K]."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    _rms_norm_kernel[(x.shape[0], 1)](
        x, weight, out, x.stride(0), out.stride(0), eps, WIDTH=x.shape[1], BLOCK=triton.next_power_of_2(x.shape[1])
    )
    return out


def normalize_heads(x: Tensor, first: int, count: int, weight: Tensor, eps: float) -> None:
    """Normalise in place `count` heads of x float32 [M, heads * D], from head `first`; weight float32 [D]."""
    width = weight.shape[0]
    heads = x[:, first * width : (first + count) * width]
    _rms_norm_kernel[(x.shape[0], count)](
        heads, weight, heads, x.stride(0), x.stride(0), eps, WIDTH=width, BLOCK=triton.next_power_of_2(width)
    )
