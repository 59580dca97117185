"""NF4: the published levels, the nearest level, packing, and what is not a number."""

from __future__ import annotations

import pytest
import torch

from mathlete.ryanstream.model.nf4 import (
    NF4_BLOCK,
    NF4_LEVELS,
    dequantize_nf4,
    pack_nf4,
    quantize_nf4,
    unpack_nf4,
)


def test_levels_are_the_published_quantiles() -> None:
    """QLoRA's construction: 8 quantiles below zero and 7 above, from 1 - (1/32 + 1/30) / 2 inwards, scaled to 1."""
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    above = torch.special.ndtri(torch.linspace(outermost, 0.5, 9, dtype=torch.float64))[:-1]
    below = -torch.special.ndtri(torch.linspace(outermost, 0.5, 8, dtype=torch.float64))[:-1]
    levels = torch.cat([above, below, torch.zeros(1, dtype=torch.float64)]).sort().values
    torch.testing.assert_close(torch.tensor(NF4_LEVELS, dtype=torch.float64), levels / levels.max(), rtol=0, atol=2e-7)


def test_each_weight_takes_the_nearest_level(rng: torch.Generator) -> None:
    weight = torch.randn((7, 3 * NF4_BLOCK), generator=rng)
    rows = quantize_nf4(weight)
    peaks = weight.view(7, 3, NF4_BLOCK).abs().amax(-1)
    assert torch.equal(rows.absmax, peaks)
    candidates = torch.tensor(NF4_LEVELS) * peaks.repeat_interleave(NF4_BLOCK, dim=1)[..., None]
    least = (candidates - weight[..., None]).abs().amin(-1)
    torch.testing.assert_close((dequantize_nf4(*rows) - weight).abs(), least, rtol=0, atol=1e-6)


def test_levels_themselves_come_back_exactly() -> None:
    weight = 3.5 * torch.tensor(NF4_LEVELS).repeat(2, 8)
    rows = quantize_nf4(weight)
    assert torch.equal(rows.codes, torch.arange(16, dtype=torch.uint8).repeat(2, 8))
    assert torch.equal(dequantize_nf4(*rows), weight)


def test_packing_puts_the_even_column_high(rng: torch.Generator) -> None:
    codes = torch.randint(0, 16, (5, 128), generator=rng, dtype=torch.uint8)
    packed = pack_nf4(codes)
    assert packed.shape == (5, 64)
    assert packed[2, 3] == codes[2, 6] * 16 + codes[2, 7]
    assert torch.equal(unpack_nf4(packed), codes)


def test_zeros_the_smallest_numbers_and_what_is_no_number(rng: torch.Generator) -> None:
    weight = torch.randn((5, 2 * NF4_BLOCK), generator=rng)
    weight[0, :NF4_BLOCK] = 0
    weight[1, 3] = torch.nan
    weight[2, 100] = -torch.inf
    weight[3] = 1e-45
    back = dequantize_nf4(*quantize_nf4(weight))
    assert (back[0, :NF4_BLOCK] == 0).all()
    assert back[1, :NF4_BLOCK].isnan().all() and back[1, NF4_BLOCK:].isfinite().all()
    assert back[2, :NF4_BLOCK].isfinite().all() and back[2, NF4_BLOCK:].isnan().all()
    assert torch.equal(back[3], weight[3])


def test_a_row_that_is_not_whole_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        quantize_nf4(torch.zeros((2, 96)))
