"""Weights in few bits: what each kind keeps, its packing, and the native products against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.nf4 import dequantize_nf4, quantize_nf4
from mathlete.ryanstream.model.quantization import (
    dequantize_int4,
    nf4_level_bytes,
    pack_bf16,
    pack_int4,
    pack_nf4_panels,
    quantize_groups,
    quantize_int4,
    unpack_bf16,
    unpack_int4,
    unpack_nf4_panels,
)

ROWS = [1, 2, 5, 6, 7, 13, 31]
COLUMNS = [1, 16, 17, 32, 70]


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def on_a_grid(num_rows: int, num_groups: int, rng: torch.Generator) -> Tensor:
    """Weights such as GGUF's Q4_K holds: in each group of 32 up to 16 equal steps, here 8 to 15 of them."""
    steps = torch.randint(8, 16, (num_rows, num_groups, 1), generator=rng)
    codes = torch.rand((num_rows, num_groups, 32), generator=rng) * (steps + 1)
    codes[..., 0], codes[..., 1] = 0, steps[..., 0]  # both ends occur
    scale = (torch.rand((num_rows, num_groups, 1), generator=rng) * 0.01 + 1e-4).half().float()
    low = (-torch.rand((num_rows, num_groups, 1), generator=rng) * 0.05).half().float()
    return (codes.floor() * scale + low).reshape(num_rows, -1)


def test_int4_finds_a_4_bit_grid_again(rng: torch.Generator) -> None:
    weight = on_a_grid(40, 3, rng)
    found = dequantize_int4(quantize_int4(weight))
    assert (found - weight).abs().max() < 1e-5


def test_int4_of_any_weights_is_as_near_as_sixteen_steps_allow(rng: torch.Generator) -> None:
    weight = torch.randn((30, 96), generator=rng)
    weight[0] = 0
    weight[1] = 3.0
    found = dequantize_int4(quantize_int4(weight))
    groups = weight.view(-1, 32)
    step = (groups.amax(1) - groups.amin(1)) / 15
    worst = (found - weight).view(-1, 32).square().mean(1).sqrt()
    assert (worst <= 0.5 * step + 2e-3 * groups.abs().amax(1)).all()
    assert torch.equal(found[0], weight[0]) and torch.equal(found[1], weight[1])


@pytest.mark.parametrize("num_rows", [1, 31, 32, 70])
def test_packing_loses_nothing(num_rows: int, rng: torch.Generator) -> None:
    weight = torch.randn((num_rows, 128), generator=rng)
    int4 = quantize_int4(weight)
    for packed, whole in zip(unpack_int4(pack_int4(int4), num_rows), int4, strict=True):
        assert torch.equal(packed, whole)
    nf4 = quantize_nf4(weight)
    back = unpack_nf4_panels(pack_nf4_panels(nf4), num_rows)
    assert torch.equal(back.codes, nf4.codes)
    torch.testing.assert_close(back.absmax, nf4.absmax, rtol=1e-3, atol=0)
    assert torch.equal(unpack_bf16(pack_bf16(weight), num_rows), weight.bfloat16())


@pytest.mark.parametrize("num_rows", [1, 31, 32, 70])
def test_pack_int4_native(kernels: NativeKernels, rng: torch.Generator, num_rows: int) -> None:
    weight = torch.cat([torch.randn((num_rows, 64), generator=rng) * 0.02, on_a_grid(num_rows, 2, rng)], dim=1)
    ours, twin = unpack_int4(kernels.pack_int4(weight), num_rows), quantize_int4(weight)
    differing = ours.codes != twin.codes
    assert differing.float().mean() < 0.01  # two spans may be equally good to the last bit
    error, twin_error = (dequantize_int4(rows).sub(weight).square().sum() for rows in (ours, twin))
    torch.testing.assert_close(error, twin_error, rtol=1e-4, atol=0)


def restored(x: Tensor, group: int) -> Tensor:
    rows = quantize_groups(x, group)
    return (rows.codes.view(x.shape[0], -1, group) * rows.scales[..., None]).reshape(x.shape)


@pytest.mark.parametrize("group", [32, 64])
def test_quantize_in_groups(kernels: NativeKernels, rng: torch.Generator, group: int) -> None:
    x = torch.randn((5, 192), generator=rng)
    x[1, 32:64] = 0
    x[2, 5] = torch.inf
    ours, twin = kernels.quantize(x, group), quantize_groups(x, group)
    torch.testing.assert_close(ours.scales, twin.scales, rtol=1e-6, atol=0, equal_nan=True)
    assert (ours.codes.int() - twin.codes.int()).abs().max() <= 1
    assert torch.equal(ours.sums, ours.codes.view(5, -1, group).int().sum(-1).int())


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("kind", ["int4", "nf4", "bf16"])
def test_products(kernels: NativeKernels, rng: torch.Generator, kind: str, num_rows: int, columns: int) -> None:
    x, weight = torch.randn((num_rows, 128), generator=rng), torch.randn((columns, 128), generator=rng)
    bias, residual = torch.randn(columns, generator=rng), torch.randn((num_rows, columns), generator=rng)
    if kind == "int4":
        packed, group = kernels.pack_int4(weight), 32
        dense = dequantize_int4(unpack_int4(packed, columns))
        plain = kernels.gemm_int4(kernels.quantize(x, group), packed, bias, columns)
        added = kernels.gemm_int4(kernels.quantize(x, group), packed, None, columns, residual.clone())
        expected = restored(x, group) @ dense.T
    elif kind == "nf4":
        packed, group = pack_nf4_panels(quantize_nf4(weight)), 64
        rows = unpack_nf4_panels(packed, columns)
        in_8_bits = nf4_level_bytes().float().sub(128).div(127)[rows.codes.int()]
        dense = (in_8_bits.view(columns, -1, 64) * rows.absmax[..., None]).reshape(columns, -1)
        assert (dense - dequantize_nf4(*rows)).abs().max() <= 0.5 / 127 * rows.absmax.max() + 1e-6
        plain = kernels.gemm_nf4(kernels.quantize(x, group), packed, bias, columns)
        added = kernels.gemm_nf4(kernels.quantize(x, group), packed, None, columns, residual.clone())
        expected = restored(x, group) @ dense.T
    else:
        if not kernels.has_bf16:
            pytest.skip("this processor lacks avx512_bf16")
        packed = pack_bf16(weight)
        plain = kernels.gemm_bf16(kernels.to_bf16(x), packed, bias, columns)
        added = kernels.gemm_bf16(kernels.to_bf16(x), packed, None, columns, residual.clone())
        expected = x.bfloat16().float() @ weight.bfloat16().float().T
    torch.testing.assert_close(plain, expected + bias, rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(added, expected + residual, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("kind", ["int4", "nf4", "bf16"])
def test_a_row_is_bitwise_the_same_in_any_company(kernels: NativeKernels, rng: torch.Generator, kind: str) -> None:
    x, weight = torch.randn((23, 128), generator=rng), torch.randn((40, 128), generator=rng)
    if kind == "bf16" and not kernels.has_bf16:
        pytest.skip("this processor lacks avx512_bf16")

    def product(rows: Tensor) -> Tensor:
        if kind == "int4":
            return kernels.gemm_int4(kernels.quantize(rows, 32), kernels.pack_int4(weight), None, 40)
        if kind == "nf4":
            packed = pack_nf4_panels(quantize_nf4(weight))
            return kernels.gemm_nf4(kernels.quantize(rows, 64), packed, None, 40)
        return kernels.gemm_bf16(kernels.to_bf16(rows), pack_bf16(weight), None, 40)

    together = product(x)
    for first, last in [(0, 1), (3, 10), (22, 23), (5, 18)]:
        assert torch.equal(product(x[first:last].contiguous()), together[first:last])


@pytest.mark.parametrize("group", [32, 64])
def test_a_broken_row_stays_alone(kernels: NativeKernels, rng: torch.Generator, group: int) -> None:
    x, weight = torch.randn((3, 128), generator=rng), torch.randn((20, 128), generator=rng)
    x[1, 70] = torch.nan
    rows = kernels.quantize(x, group)
    if group == 32:
        out = kernels.gemm_int4(rows, kernels.pack_int4(weight), None, 20)
    else:
        out = kernels.gemm_nf4(rows, pack_nf4_panels(quantize_nf4(weight)), None, 20)
    assert out.isnan().all(1).tolist() == [False, True, False]


def test_fused_norm_and_swiglu_in_bf16(kernels: NativeKernels, rng: torch.Generator) -> None:
    x, norm = torch.randn((4, 96), generator=rng), torch.rand(96, generator=rng)
    expected = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * norm
    torch.testing.assert_close(kernels.rmsnorm_bf16(x, norm, 1e-6).float(), expected, rtol=1e-2, atol=1e-3)
    gate, up = x.chunk(2, dim=1)
    swiglu = torch.nn.functional.silu(gate) * up
    torch.testing.assert_close(kernels.swiglu_bf16(x).float(), swiglu, rtol=1e-2, atol=1e-3)


def test_a_weight_that_is_not_a_number_is_not_hidden(kernels: NativeKernels, rng: torch.Generator) -> None:
    weight = torch.randn((3, 64), generator=rng)
    weight[1, 40] = torch.nan
    out = kernels.gemm_int4(kernels.quantize(torch.ones((1, 64)), 32), kernels.pack_int4(weight), None, 3)
    assert out.isnan().tolist() == [[False, True, False]]
