"""The middle of SwiGLU, silu(gate) * up (Shazeer 2020). Twin: `TorchOps.swiglu_linear_add`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _swiglu_kernel(gate_up_ptr, out_ptr, width, BLOCK: tl.constexpr):
    """Program (m, t) makes the t-th tile of columns of row m."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(gate_up_ptr + row * 2 * width + columns, mask=inside, other=0.0)
    up = tl.load(gate_up_ptr + row * 2 * width + width + columns, mask=inside, other=0.0)
    tl.store(out_ptr + row * width + columns, gate * tl.sigmoid(gate) * up, mask=inside)


def swiglu(gate_up: Tensor, dtype: torch.dtype) -> Tensor:
    """gate_up float32 [M, 2 I], gates first, to silu(gate) * up as `dtype` [M, I]."""
    num_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((num_rows, width), dtype=dtype, device=gate_up.device)
    _swiglu_kernel[(num_rows, triton.cdiv(width, _BLOCK))](gate_up, out, width, BLOCK=_BLOCK)
    return out
