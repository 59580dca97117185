"""Linear layers' weights as they lie in a mapped checkpoint, and how a source's tensors become them.

Two precisions: "bf16" keeps weights as bfloat16; "w8a8" keeps int8 weights with one scale an output
column, for int8 activations with one scale a row. The embedding table stays bf16 in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.native.kernels import PANEL, NativeKernels

Precision = Literal["w8a8", "bf16", "fp32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

# A row that stays below is taken as zero: 127 / peak must be finite.
_SMALLEST_PEAK = 1e-30

_DENSE_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """int8 weights in panels of 32 output columns.

    Attributes:
        packed: uint8 [ceil(N / 32), K * 32]: [K / 4, 2, 16, 4] of code + 128 in each panel.
        scales: float32 [N].
        bias: float32 [N] or None.
    """

    packed: Tensor
    scales: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class DenseWeight:
    """Plain weights [N, K] in bf16 or fp32, bias [N] float32 or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class PlainInt8Weight:
    """`Int8Weight` without the kernels' layout, for `torch._int_mm`: codes int8 [N, K], scales and bias [N]."""

    codes: Tensor
    scales: Tensor
    bias: Tensor | None


LinearWeight = Int8Weight | PlainInt8Weight | DenseWeight


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One transformer layer: fused qkv and gate_up products."""

    input_norm: Tensor
    qkv: LinearWeight
    out: LinearWeight
    post_norm: Tensor
    gate_up: LinearWeight
    down: LinearWeight


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """All of a model: `embedding` [V, hidden], layers, final norm [hidden], output head [V, hidden]."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: LinearWeight


class Int8Rows(NamedTuple):
    """Rows in int8: `codes` int8 [M, K], `scales` float32 [M]."""

    codes: Tensor
    scales: Tensor


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


def pack_int8_torch(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The twin of `NativeKernels.pack_int8`: weight float32 [N, K] to (packed, scales)."""
    n, k = weight.shape
    rows, scales = quantize_rows(weight)
    codes = torch.zeros((-(-n // PANEL) * PANEL, k), dtype=torch.int16)
    codes[:n] = rows.to(torch.int16)
    panels = (codes + 128).to(torch.uint8).view(-1, PANEL, k // 4, 4).permute(0, 2, 1, 3)
    return panels.reshape(-1, k * PANEL).contiguous(), scales


def unpack_int8(packed: Tensor, num_rows: int) -> Tensor:
    """int8 codes [N, K] of packed panels."""
    k = packed.shape[1] // PANEL
    codes = packed.view(-1, k // 4, PANEL, 4).permute(0, 2, 1, 3).reshape(-1, k)[:num_rows]
    return (codes.to(torch.int16) - 128).to(torch.int8)


def convert_weights(
    config: ModelConfig, read: Callable[[str], Tensor], precision: Precision, kernels: NativeKernels | None
) -> Iterator[tuple[str, Tensor]]:
    """Turn a source's tensors (Hugging Face names, through `read`) into a mapped checkpoint's, one at a time."""
    widths = (config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim)
    if precision == "w8a8" and any(width % 16 for width in widths):
        raise ModelError(
            f"w8a8 needs layer widths that are multiples of 16, and this model's are "
            f"{', '.join(map(str, widths))}; use --precision bf16"
        )
    pack = kernels.pack_int8 if kernels else pack_int8_torch

    def linear(name: str, parts: list[str]) -> Iterator[tuple[str, Tensor]]:
        weight = torch.cat([read(f"{part}.weight").float() for part in parts])
        if precision == "w8a8":
            packed, scales = pack(weight)
            yield f"{name}.packed", packed
            yield f"{name}.scales", scales
        else:
            yield f"{name}.weight", weight.to(_DENSE_DTYPES[precision])
        if config.attention_bias and name.endswith("qkv"):
            yield f"{name}.bias", torch.cat([read(f"{part}.bias").float() for part in parts])

    embedding_dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    yield "embedding", read("model.embed_tokens.weight").to(embedding_dtype)
    for i in range(config.num_layers):
        old, new = f"model.layers.{i}", f"layers.{i}"
        yield f"{new}.input_norm", read(f"{old}.input_layernorm.weight").float()
        yield f"{new}.post_norm", read(f"{old}.post_attention_layernorm.weight").float()
        yield from linear(f"{new}.qkv", [f"{old}.self_attn.{part}_proj" for part in "qkv"])
        yield from linear(f"{new}.out", [f"{old}.self_attn.o_proj"])
        yield from linear(f"{new}.gate_up", [f"{old}.mlp.gate_proj", f"{old}.mlp.up_proj"])
        yield from linear(f"{new}.down", [f"{old}.mlp.down_proj"])
    yield "norm", read("model.norm.weight").float()
    yield from linear("head", ["model.embed_tokens" if config.tie_word_embeddings else "lm_head"])


def assemble_weights(config: ModelConfig, tensors: Mapping[str, Tensor], unpack: bool = False) -> ModelWeights:
    """Name the tensors of a mapped checkpoint; `unpack` copies int8 panels out for torch's own product.

    Raises:
        ModelError: when a tensor is missing.
    """

    def linear(name: str) -> LinearWeight:
        bias = tensors.get(f"{name}.bias")
        if f"{name}.packed" in tensors:
            packed, scales = tensors[f"{name}.packed"], tensors[f"{name}.scales"]
            if unpack:
                return PlainInt8Weight(unpack_int8(packed, scales.shape[0]), scales, bias)
            return Int8Weight(packed, scales, bias)
        return DenseWeight(tensors[f"{name}.weight"], bias)

    def layer(i: int) -> LayerWeights:
        name = f"layers.{i}"
        return LayerWeights(
            input_norm=tensors[f"{name}.input_norm"],
            qkv=linear(f"{name}.qkv"),
            out=linear(f"{name}.out"),
            post_norm=tensors[f"{name}.post_norm"],
            gate_up=linear(f"{name}.gate_up"),
            down=linear(f"{name}.down"),
        )

    try:
        return ModelWeights(
            embedding=tensors["embedding"],
            layers=tuple(layer(i) for i in range(config.num_layers)),
            norm=tensors["norm"],
            head=linear("head"),
        )
    except KeyError as error:
        raise ModelError(f"the cached checkpoint lacks tensor {error}; delete it and start again") from error
