"""Rotary position embedding tables (Su et al. 2021), half-split pairs as in Llama and Qwen2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RotaryTables:
    """float32 cosines and sines [positions, D / 2]."""

    cosines: Tensor
    sines: Tensor


def rotary_tables(num_positions: int, head_dim: int, theta: float) -> RotaryTables:
    """Tables for positions 0 .. num_positions - 1 with base `theta`."""
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.arange(num_positions, dtype=torch.float32)[:, None] * frequencies
    return RotaryTables(angles.cos(), angles.sin())
