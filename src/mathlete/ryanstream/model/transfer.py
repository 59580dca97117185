"""Several small tensors on their way to a GPU as one copy. Knows bytes; knows nothing of what they mean.

Each copy costs the CPU about ten microseconds, whatever its size, and one from memory that is not pinned waits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 16  # bytes; kernels are compiled for pointers that are such multiples


def move_together(parts: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The parts on `device`: in one copy, which nobody waits for, from the CPU to CUDA, else one by one."""
    if device.type != "cuda" or not all(part.is_cpu for part in parts):
        return [part.to(device) for part in parts]
    return unpack(pack(parts, pinned=True).to(device, non_blocking=True), parts)


def pack(parts: Sequence[Tensor], pinned: bool = False) -> Tensor:
    """The bytes of tensors on the CPU one behind the other, each from a multiple of 16 on: uint8 [bytes]."""
    starts, size = _layout(parts)
    packed = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    for part, start in zip(parts, starts, strict=True):
        packed[start : start + part.nbytes].copy_(part.contiguous().view(-1).view(torch.uint8))
    return packed


def unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of what `pack` made of tensors of these shapes and types, wherever its bytes lie now."""
    starts, _ = _layout(like)
    return [
        packed[start : start + part.nbytes].view(part.dtype).view(part.shape)
        for part, start in zip(like, starts, strict=True)
    ]


def _layout(parts: Sequence[Tensor]) -> tuple[list[int], int]:
    """Where each part begins, and how many bytes there are."""
    starts, size = [], 0
    for part in parts:
        starts.append(size)
        size += -(-part.nbytes // _ALIGNMENT) * _ALIGNMENT
    return starts, size
