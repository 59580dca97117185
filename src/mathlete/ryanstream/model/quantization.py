"""Weights and activations in few bits: the definitions in torch, and the layouts of the native kernels.

Every function here is the twin of a native one (native/*.cpp) or undoes one. Knows numbers and layouts; knows
nothing of layers. N output features (rows of a weight), K input features, panels of 32 output features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.ryanstream.model.nf4 import NF4_BLOCK, NF4_LEVELS, NF4Rows

PANEL = 32
INT4_GROUP = 32

# A row that stays below is taken as zero: 127 / peak must be finite.
_SMALLEST_PEAK = 1e-30
# Steps that a group of int4 weights may span; see native/int4.cpp.
_SPANS = (15, 14, 13, 12, 11, 10, 9, 8, 16, 17)
_CHUNK_ELEMENTS = 1 << 22


class Int8Rows(NamedTuple):
    """Rows in int8: `codes` int8 [M, K], `scales` float32 [M] or [M, K / group]."""

    codes: Tensor
    scales: Tensor


class Int4Rows(NamedTuple):
    """Rows in int4: `codes` uint8 [N, K], 0..15; `scales`, `offsets` float32 [N, K / 32], as fp16 holds them."""

    codes: Tensor
    scales: Tensor
    offsets: Tensor


def quantize_rows(x: Tensor) -> Int8Rows:
    """X float32 [M, K] in int8, one scale a row, symmetric.

    A row below `_SMALLEST_PEAK` is taken as zero. A row with a NaN or an infinity gets codes 0 and
    scale NaN, so that its products are NaN and not garbage.
    """
    peak = x.abs().amax(dim=1)
    large = peak > _SMALLEST_PEAK
    scales = torch.where(large, peak / 127, torch.ones_like(peak))
    scales = torch.where(peak.isfinite(), scales, torch.nan)
    inverse = torch.where(large, 127 / peak, torch.zeros_like(peak))
    codes = torch.round(torch.where(peak.isfinite()[:, None], x, 0.0) * inverse[:, None])
    return Int8Rows(codes.to(torch.int8), scales)


def quantize_groups(x: Tensor, group: int) -> Int8Rows:
    """X float32 [M, K] in int8 with a scale for each `group` of a row: scales [M, K / group]."""
    rows = quantize_rows(x.reshape(-1, group))
    return Int8Rows(rows.codes.view(x.shape), rows.scales.view(x.shape[0], -1))


def quantize_int4(weight: Tensor) -> Int4Rows:
    """Weight float32 [N, K] in int4, groups of 32: value ~ scale * code + offset, fp16 scale and offset.

    Of a few spans the one with the least squared error is taken, so weights that lie on a 4-bit grid already (GGUF's
    Q4_K) are found again.
    """
    num_rows, width = weight.shape
    rows = max(1, _CHUNK_ELEMENTS // width)
    parts = [_quantize_int4(chunk.reshape(-1, INT4_GROUP)) for chunk in torch.split(weight, rows)]
    codes, scales, offsets = (torch.cat(part) for part in zip(*parts, strict=True))
    return Int4Rows(codes.view(num_rows, width), scales.view(num_rows, -1), offsets.view(num_rows, -1))


def _quantize_int4(groups: Tensor) -> Int4Rows:
    low = groups.amin(1)
    span = groups.amax(1) - low
    best: Int4Rows | None = None
    least = torch.full_like(low, torch.inf)
    for num_steps in _SPANS:
        scale = (span / num_steps).half().float()
        offset = (low if num_steps <= 15 else low + (num_steps - 15) * 0.5 * scale).half().float()
        inverse = torch.where(scale > 0, 1 / scale, 0.0)
        codes = torch.round((groups - offset[:, None]) * inverse[:, None]).clamp(0, 15)
        error = (groups - (codes * scale[:, None] + offset[:, None])).square().sum(1)
        better = error < least
        least = torch.where(better, error, least)
        if best is None:
            best = Int4Rows(codes.to(torch.uint8), scale, offset)
        else:
            best = Int4Rows(
                torch.where(better[:, None], codes.to(torch.uint8), best.codes),
                torch.where(better, scale, best.scales),
                torch.where(better, offset, best.offsets),
            )
    assert best is not None
    return best


def dequantize_int4(rows: Int4Rows) -> Tensor:
    """The weights float32 [N, K]."""
    codes = rows.codes.view(*rows.scales.shape, INT4_GROUP).float()
    return (codes * rows.scales[..., None] + rows.offsets[..., None]).reshape(rows.codes.shape)


def pack_int8_torch(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The twin of `NativeKernels.pack_int8`: weight float32 [N, K] to (packed, scales)."""
    n, k = weight.shape
    rows, scales = quantize_rows(weight)
    codes = _whole_panels(rows.to(torch.int16))
    panels = (codes + 128).to(torch.uint8).view(-1, PANEL, k // 4, 4).permute(0, 2, 1, 3)
    return panels.reshape(-1, k * PANEL).contiguous(), scales


def unpack_int8(packed: Tensor, num_rows: int) -> Tensor:
    """int8 codes [N, K] of packed panels."""
    k = packed.shape[1] // PANEL
    codes = packed.view(-1, k // 4, PANEL, 4).permute(0, 2, 1, 3).reshape(-1, k)[:num_rows]
    return (codes.to(torch.int16) - 128).to(torch.int8)


def pack_int4(rows: Int4Rows) -> Tensor:
    """Panels uint8 [ceil(N / 32), K / 32 * 640] of native/int4.cpp, kind int4."""
    return torch.cat(
        [_pack_nibbles(rows.codes, INT4_GROUP), _fp16_bytes(rows.scales), _fp16_bytes(rows.offsets)], dim=2
    ).flatten(1)


def unpack_int4(packed: Tensor, num_rows: int) -> Int4Rows:
    """The rows of packed panels."""
    groups = packed.view(packed.shape[0], -1, INT4_GROUP * 16 + 4 * PANEL)
    codes, scales, offsets = torch.split(groups, [INT4_GROUP * 16, 2 * PANEL, 2 * PANEL], dim=2)
    return Int4Rows(
        _unpack_nibbles(codes, INT4_GROUP)[:num_rows], _from_fp16(scales)[:num_rows], _from_fp16(offsets)[:num_rows]
    )


def pack_nf4_panels(rows: NF4Rows) -> Tensor:
    """Panels uint8 [ceil(N / 32), K / 64 * 1088] of native/int4.cpp, kind nf4; its scales are absmax / 127."""
    return torch.cat([_pack_nibbles(rows.codes, NF4_BLOCK), _fp16_bytes(rows.absmax / 127)], dim=2).flatten(1)


def unpack_nf4_panels(packed: Tensor, num_rows: int) -> NF4Rows:
    """The rows of packed panels; absmax as fp16 held it."""
    groups = packed.view(packed.shape[0], -1, NF4_BLOCK * 16 + 2 * PANEL)
    codes, scales = torch.split(groups, [NF4_BLOCK * 16, 2 * PANEL], dim=2)
    return NF4Rows(_unpack_nibbles(codes, NF4_BLOCK)[:num_rows], _from_fp16(scales)[:num_rows] * 127)


def nf4_level_bytes() -> Tensor:
    """The sixteen levels in 8 bits, uint8 [16]: level * 127 + 128, as the kernel multiplies with them."""
    return (torch.tensor(NF4_LEVELS) * 127).round().add(128).to(torch.uint8)


def pack_bf16(weight: Tensor) -> Tensor:
    """Weight [N, K] to panels bf16 [ceil(N / 32), K * 32]: [K / 2, 32, 2] in each."""
    n, k = weight.shape
    panels = _whole_panels(weight.to(torch.bfloat16)).view(-1, PANEL, k // 2, 2).permute(0, 2, 1, 3)
    return panels.reshape(-1, k * PANEL).contiguous()


def unpack_bf16(packed: Tensor, num_rows: int) -> Tensor:
    """Weights bf16 [N, K] of packed panels."""
    k = packed.shape[1] // PANEL
    return packed.view(-1, k // 2, PANEL, 2).permute(0, 2, 1, 3).reshape(-1, k)[:num_rows].contiguous()


def _whole_panels(rows: Tensor) -> Tensor:
    missing = -rows.shape[0] % PANEL
    return torch.cat([rows, rows.new_zeros((missing, rows.shape[1]))]) if missing else rows


def _pack_nibbles(codes: Tensor, group: int) -> Tensor:
    """Codes uint8 [N, K] to bytes [panels, K / group, group * 16]: columns c and c + 16 share a byte."""
    by_place = _whole_panels(codes).view(-1, 2, 16, codes.shape[1] // group, group // 4, 4)
    low, high = by_place.unbind(1)  # [panels, 16, groups, group / 4, 4]
    return (low | high << 4).permute(0, 2, 3, 1, 4).reshape(low.shape[0], low.shape[2], group * 16)


def _unpack_nibbles(packed: Tensor, group: int) -> Tensor:
    by_place = packed.reshape(packed.shape[0], packed.shape[1], group // 4, 16, 4).permute(0, 3, 1, 2, 4)
    codes = torch.stack([by_place & 15, by_place >> 4], dim=1)  # [panels, 2, 16, groups, group / 4, 4]
    return codes.reshape(packed.shape[0] * PANEL, packed.shape[1] * group)


def _fp16_bytes(values: Tensor) -> Tensor:
    """Values [N, groups] to fp16 in bytes [panels, groups, 64]."""
    by_panel = _whole_panels(values.half()).view(-1, PANEL, values.shape[1]).transpose(1, 2).contiguous()
    return by_panel.view(torch.uint8)


def _from_fp16(stored: Tensor) -> Tensor:
    values = stored.contiguous().view(torch.float16).float()  # [panels, groups, 32]
    return values.transpose(1, 2).reshape(-1, stored.shape[1])
