"""Linear layers' weights as they lie in a mapped checkpoint, and how a source's tensors become them.

One interface for every precision: a layer holds a `LinearWeight`, and whoever computes with it looks at its kind.
"w8a8": int8 weights with one scale an output column, int8 activations with one scale a row. "int4": groups of 32
weights with an fp16 scale and offset. "nf4": QLoRA's levels, in blocks of 64, the head in int8. "bf16". Products with
4-bit weights take int8 activations with a scale for each group. The embedding table is bf16 in all of them; "fp32" is
for parity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.nf4 import NF4_BLOCK, dequantize_nf4, quantize_nf4
from mathlete.ryanstream.model.quantization import (
    INT4_GROUP,
    dequantize_int4,
    pack_bf16,
    pack_int4,
    pack_int8_torch,
    pack_nf4_panels,
    quantize_int4,
    unpack_bf16,
    unpack_int4,
    unpack_int8,
    unpack_nf4_panels,
)

Precision = Literal["w8a8", "int4", "nf4", "bf16", "fp32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

Kind = Literal["int8", "int4", "nf4", "bf16"]
_KINDS: dict[str, Kind] = {"w8a8": "int8", "int4": "int4", "nf4": "nf4", "bf16": "bf16"}
_WIDTH_MULTIPLE = {"w8a8": 16, "int4": INT4_GROUP, "nf4": NF4_BLOCK, "bf16": 2, "fp32": 1}


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """Weights [N, K] in the layout of the native kernels: panels of 32 output columns (quantization.py).

    Attributes:
        kind: what the panels hold.
        packed: uint8 (bf16 for kind "bf16") [ceil(N / 32), bytes or values of a panel].
        scales: float32 [N] for kind "int8"; the others keep theirs inside the panels.
        bias: float32 [N] or None.
        num_out: N.
    """

    kind: Kind
    packed: Tensor
    scales: Tensor | None
    bias: Tensor | None
    num_out: int


@dataclass(frozen=True, slots=True)
class DenseWeight:
    """Plain weights [N, K] in bf16 or fp32, bias [N] float32 or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class PlainInt8Weight:
    """int8 weights without the kernels' layout, for `torch._int_mm`: codes int8 [N, K], scales and bias [N]."""

    codes: Tensor
    scales: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Nf4Weight:
    """NF4 weights in the layout of nf4.py: packed uint8 [N, K / 2], absmax float32 [N, K / 64], bias as above."""

    packed: Tensor
    absmax: Tensor
    bias: Tensor | None


LinearWeight = PackedWeight | PlainInt8Weight | DenseWeight | Nf4Weight


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """RMSNorm weights float32 [D] of every head's query and of every head's key (Qwen3)."""

    query: Tensor
    key: Tensor


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One transformer layer: fused qkv and gate_up products."""

    input_norm: Tensor
    qkv: LinearWeight
    out: LinearWeight
    post_norm: Tensor
    gate_up: LinearWeight
    down: LinearWeight
    head_norms: HeadNorms | None = None


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """All of a model: `embedding` [V, hidden], layers, final norm [hidden], output head [V, hidden]."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: LinearWeight


def convert_weights(
    config: ModelConfig, read: Callable[[str], Tensor], precision: Precision, kernels: NativeKernels | None
) -> Iterator[tuple[str, Tensor]]:
    """Turn a source's tensors (Hugging Face names, through `read`) into a mapped checkpoint's, one at a time."""
    if not can_be_packed(config, precision):
        raise ModelError(
            f"{precision} needs layer widths that are multiples of {_WIDTH_MULTIPLE[precision]}, and this model's are "
            f"{', '.join(map(str, _widths(config)))}; use --precision bf16"
        )

    def linear(name: str, parts: list[str]) -> Iterator[tuple[str, Tensor]]:
        weight = torch.cat([read(f"{part}.weight").float() for part in parts])
        for suffix, tensor in _stored(weight, _precision_of(name, precision), kernels).items():
            yield f"{name}.{suffix}", tensor
        if (config.attention_bias and name.endswith("qkv")) or (config.output_bias and name.endswith("out")):
            yield f"{name}.bias", torch.cat([read(f"{part}.bias").float() for part in parts])

    embedding_dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    yield "embedding", read("model.embed_tokens.weight").to(embedding_dtype)
    for i in range(config.num_layers):
        old, new = f"model.layers.{i}", f"layers.{i}"
        yield f"{new}.input_norm", read(f"{old}.input_layernorm.weight").float()
        yield f"{new}.post_norm", read(f"{old}.post_attention_layernorm.weight").float()
        if config.qk_norm:
            yield f"{new}.query_norm", read(f"{old}.self_attn.q_norm.weight").float()
            yield f"{new}.key_norm", read(f"{old}.self_attn.k_norm.weight").float()
        yield from linear(f"{new}.qkv", [f"{old}.self_attn.{part}_proj" for part in "qkv"])
        yield from linear(f"{new}.out", [f"{old}.self_attn.o_proj"])
        yield from linear(f"{new}.gate_up", [f"{old}.mlp.gate_proj", f"{old}.mlp.up_proj"])
        yield from linear(f"{new}.down", [f"{old}.mlp.down_proj"])
    yield "norm", read("model.norm.weight").float()
    yield from linear("head", ["model.embed_tokens" if config.tie_word_embeddings else "lm_head"])


def _precision_of(name: str, precision: Precision) -> Precision:
    """Of one layer. NF4's few levels cost most in the output head, which QLoRA leaves out too: it is int8."""
    return "w8a8" if precision == "nf4" and name == "head" else precision


def can_be_packed(config: ModelConfig, precision: Precision) -> bool:
    """Whether a model's layers have widths that this precision's layout can hold."""
    return all(width % _WIDTH_MULTIPLE[precision] == 0 for width in _widths(config))


def _widths(config: ModelConfig) -> tuple[int, ...]:
    return config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim


def packed_int8(weight: Tensor, bias: Tensor | None, kernels: NativeKernels) -> PackedWeight:
    """A layer's weight float32 [N, K] as the native kernels take it, in int8."""
    codes, scales = kernels.pack_int8(weight)
    return PackedWeight("int8", codes, scales, bias, weight.shape[0])


def _stored(weight: Tensor, precision: Precision, kernels: NativeKernels | None) -> dict[str, Tensor]:
    """Weight float32 [N, K] as the checkpoint holds it, by what follows the layer's name."""
    match precision:
        case "w8a8":
            packed, scales = kernels.pack_int8(weight) if kernels else pack_int8_torch(weight)
            return {"int8": packed, "scales": scales}
        case "int4":
            return {"int4": kernels.pack_int4(weight) if kernels else pack_int4(quantize_int4(weight))}
        case "nf4":
            return {"nf4": pack_nf4_panels(quantize_nf4(weight))}
        case "bf16":
            return {"bf16": pack_bf16(weight)}
        case "fp32":
            return {"weight": weight}


def unpacked(weight: PackedWeight) -> PlainInt8Weight | DenseWeight:
    """The same weights for torch's own products: int8 stays int8, 4-bit weights become bf16."""
    match weight.kind:
        case "int8":
            assert weight.scales is not None
            return PlainInt8Weight(unpack_int8(weight.packed, weight.num_out), weight.scales, weight.bias)
        case "int4":
            dense = dequantize_int4(unpack_int4(weight.packed, weight.num_out)).to(torch.bfloat16)
        case "nf4":
            dense = dequantize_nf4(*unpack_nf4_panels(weight.packed, weight.num_out)).to(torch.bfloat16)
        case "bf16":
            dense = unpack_bf16(weight.packed, weight.num_out)
    return DenseWeight(dense, weight.bias)


def assemble_weights(
    config: ModelConfig, tensors: Mapping[str, Tensor], precision: Precision, unpack: bool = False
) -> ModelWeights:
    """Name the tensors of a mapped checkpoint; `unpack` copies packed ones out for torch's own products.

    Raises:
        ModelError: when a tensor is missing.
    """
    qkv_width = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim

    def linear(name: str, num_out: int) -> LinearWeight:
        bias = tensors.get(f"{name}.bias")
        if precision == "fp32":
            return DenseWeight(tensors[f"{name}.weight"], bias)
        kind = _KINDS[_precision_of(name, precision)]
        scales = tensors[f"{name}.scales"] if kind == "int8" else None
        weight = PackedWeight(kind, tensors[f"{name}.{kind}"], scales, bias, num_out)
        return unpacked(weight) if unpack else weight

    def layer(i: int) -> LayerWeights:
        name = f"layers.{i}"
        norms = None
        if config.qk_norm:
            norms = HeadNorms(tensors[f"{name}.query_norm"], tensors[f"{name}.key_norm"])
        return LayerWeights(
            input_norm=tensors[f"{name}.input_norm"],
            qkv=linear(f"{name}.qkv", qkv_width),
            out=linear(f"{name}.out", config.hidden_size),
            post_norm=tensors[f"{name}.post_norm"],
            gate_up=linear(f"{name}.gate_up", 2 * config.intermediate_size),
            down=linear(f"{name}.down", config.hidden_size),
            head_norms=norms,
        )

    try:
        return ModelWeights(
            embedding=tensors["embedding"],
            layers=tuple(layer(i) for i in range(config.num_layers)),
            norm=tensors["norm"],
            head=linear("head", config.vocab_size),
        )
    except KeyError as error:
        raise ModelError(f"the cached checkpoint lacks tensor {error}; delete it and start again") from error
