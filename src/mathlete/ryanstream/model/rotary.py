"""Rotary position embedding tables (Su et al. 2021), half-split pairs as in Llama and Qwen2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mathlete.ryanstream.model.config import RopeScaling


@dataclass(frozen=True, slots=True)
class RotaryTables:
    """float32 cosines and sines [positions, D / 2]."""

    cosines: Tensor
    sines: Tensor


def rotary_tables(num_positions: int, head_dim: int, theta: float, scaling: RopeScaling | None = None) -> RotaryTables:
    """Tables for positions 0 .. num_positions - 1 with base `theta`, scaled where the model says so."""
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    factor = 1.0
    if scaling is not None:
        frequencies = frequencies / torch.tensor(scaling.divisors, dtype=torch.float32)
        factor = scaling.attention_factor
    angles = torch.arange(num_positions, dtype=torch.float32)[:, None] * frequencies
    return RotaryTables(angles.cos() * factor, angles.sin() * factor)
