"""An EAGLE head (Li et al. 2024): the weights that continue a model's hidden states. Files and arithmetic.

Row i takes the model's hidden state at position i (after the final norm) and the embedding of token i + 1, both of them
through `fc`, then one decoder layer without an input norm at rotary position i. What comes out stands for the hidden
state at position i + 1: the model's own output head reads it as it is.

The folder is the published layout for Llama-like models (SafeAILab/EAGLE, read by vLLM and SGLang too): config.json of
the one layer, and model.safetensors with

    fc.weight [H, 2 H], fc.bias [H] (or not)
    layers.0.self_attn.{q,k,v,o}_proj.weight, layers.0.self_attn.{q,k,v}_proj.bias (or not)
    layers.0.post_attention_layernorm.weight, layers.0.mlp.{gate,up,down}_proj.weight

Embedding and output head are the model's; a copy of them in the file is not read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mathlete.core.errors import ModelError, StorageError
from mathlete.ryanstream.checkpoint.safetensors_source import read_json, read_model_config
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.ops import ForwardBatch, Ops
from mathlete.ryanstream.model.weights import DenseWeight, LinearWeight, can_be_packed, packed_int8

_FILE = "model.safetensors"
_LAYER, _ATTENTION = "layers.0", "layers.0.self_attn"


@dataclass(frozen=True, slots=True)
class EagleTensors:
    """A head as its files hold it.

    Attributes:
        config: the shape of its one layer; vocabulary and width are the model's.
        tensors: float32, by the names of the module's docstring.
    """

    config: ModelConfig
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class EagleHead:
    """A head ready to compute with."""

    config: ModelConfig
    fc: LinearWeight
    qkv: LinearWeight
    out: LinearWeight
    post_norm: Tensor
    gate_up: LinearWeight
    down: LinearWeight


def eagle_shapes(config: ModelConfig, fc_bias: bool = False) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a head whose layer is `config`."""
    width, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    outs = {"q": config.num_heads * head, "k": config.num_kv_heads * head, "v": config.num_kv_heads * head}
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (width, 2 * width)}
    if fc_bias:
        shapes["fc.bias"] = (width,)
    for name, num_out in outs.items():
        shapes[f"{_ATTENTION}.{name}_proj.weight"] = (num_out, width)
        if config.attention_bias:
            shapes[f"{_ATTENTION}.{name}_proj.bias"] = (num_out,)
    shapes[f"{_ATTENTION}.o_proj.weight"] = (width, config.num_heads * head)
    shapes[f"{_LAYER}.post_attention_layernorm.weight"] = (width,)
    shapes[f"{_LAYER}.mlp.gate_proj.weight"] = shapes[f"{_LAYER}.mlp.up_proj.weight"] = (inner, width)
    shapes[f"{_LAYER}.mlp.down_proj.weight"] = (width, inner)
    return shapes


def load_eagle_head(folder: Path, target: ModelConfig) -> EagleTensors:
    """Read the head of a model whose shape is `target`.

    Raises:
        ModelError: when a file is missing or damaged, of another kind of head, or made for another model.
    """
    config = replace(read_model_config(folder, read_json(folder / "config.json")), qk_norm=False, output_bias=False)
    path = folder / _FILE
    if not path.is_file():
        raise ModelError(f"{folder} holds no {_FILE}: convert a head in pytorch_model.bin to safetensors first")
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            config = replace(config, attention_bias=f"{_ATTENTION}.q_proj.bias" in names)
            wanted = eagle_shapes(config, "fc.bias" in names)
            tensors = {name: file.get_tensor(name).float() for name in wanted if name in names}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file ({error}): fetch it again") from error
    _require_head(folder, names, config, target)
    for name, shape in wanted.items():
        found = tuple(tensors[name].shape) if name in tensors else "missing"
        if found != shape:
            raise ModelError(f"{path}: tensor {name} should be {list(shape)} and is {found}")
    return EagleTensors(config, tensors)


def save_eagle_head(head: EagleTensors, folder: Path) -> None:
    """Write a head's two files; config.json comes last, so a folder that has it is whole.

    Raises:
        StorageError: when they cannot be written.
    """
    config = head.config
    told = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "num_hidden_layers": 1,
        "vocab_size": config.vocab_size, "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads, "head_dim": config.head_dim,
        "rms_norm_eps": config.rms_norm_eps, "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_positions, "tie_word_embeddings": config.tie_word_embeddings,
        "bias": "fc.bias" in head.tensors, "qkv_bias": config.attention_bias,
    }  # fmt: skip
    if config.rope_scaling is not None:
        raise StorageError("a head with scaled rotary frequencies cannot be written: give its layer plain ones")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{_FILE}.partial"
        save_file({name: tensor.float().cpu().contiguous() for name, tensor in head.tensors.items()}, partial)
        os.replace(partial, folder / _FILE)
        (folder / "config.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise StorageError(f"the EAGLE head cannot be written into {folder}: {error}. Make room and retry.") from error


def place_eagle_head(
    head: EagleTensors, device: torch.device, dtype: torch.dtype, kernels: NativeKernels | None
) -> EagleHead:
    """The head in the form that operations take: int8 for native kernels, else dense in `dtype` on `device`."""
    config, tensors = head.config, head.tensors
    if kernels is not None and not can_be_packed(config, "w8a8"):
        kernels = None

    def linear(*names: str) -> LinearWeight:
        weight = torch.cat([tensors[f"{name}.weight"] for name in names])
        biases = [tensors[f"{name}.bias"] for name in names if f"{name}.bias" in tensors]
        bias = torch.cat(biases) if biases else None
        if kernels is not None:
            return packed_int8(weight, bias, kernels)
        return DenseWeight(weight.to(device, dtype), None if bias is None else bias.to(device))

    return EagleHead(
        config=config,
        fc=linear("fc"),
        qkv=linear(*(f"{_ATTENTION}.{part}_proj" for part in "qkv")),
        out=linear(f"{_ATTENTION}.o_proj"),
        post_norm=tensors[f"{_LAYER}.post_attention_layernorm.weight"].to(device),
        gate_up=linear(f"{_LAYER}.mlp.gate_proj", f"{_LAYER}.mlp.up_proj"),
        down=linear(f"{_LAYER}.mlp.down_proj"),
    )


@torch.inference_mode()
def eagle_forward(
    head: EagleHead, ops: Ops, hidden: Tensor, embedded: Tensor, batch: ForwardBatch, cache: LayerCache
) -> Tensor:
    """The next hidden states as the head sees them, float32 [M, hidden]; keys and values are written into `cache`.

    Args:
        head: its weights.
        ops: operations for its shape.
        hidden: float32 [M, hidden], at each row's position.
        embedded: float32 [M, hidden], of the token after it.
        batch: positions, places and tables; its token ids are not looked at.
        cache: of the one layer.
    """
    x = ops.linear_add(torch.cat([embedded, hidden], dim=-1), head.fc, torch.zeros_like(hidden))
    width = (head.config.num_heads + 2 * head.config.num_kv_heads) * head.config.head_dim
    qkv = ops.linear_add(x, head.qkv, x.new_zeros((len(x), width)))
    x = ops.linear_add(ops.attention(qkv, batch, cache), head.out, x)
    return ops.swiglu_linear_add(ops.norm_linear(x, head.post_norm, head.gate_up), head.down, x)


def _require_head(folder: Path, names: set[str], config: ModelConfig, target: ModelConfig) -> None:
    if any(name.startswith("midlayer.") or name in ("d2t", "t2d") for name in names):
        raise ModelError(
            f"{folder} is an EAGLE-3 head, which reads three layers of a model; this engine runs EAGLE-1/2"
        )
    if config.num_layers != 1:
        raise ModelError(f"{folder} has {config.num_layers} layers; an EAGLE head has one")
    for name in ("hidden_size", "vocab_size"):
        if getattr(config, name) != getattr(target, name):
            raise ModelError(
                f"{folder} is a head for another model: its {name} is {getattr(config, name)}, the model's is "
                f"{getattr(target, name)}"
            )
    if f"{_LAYER}.input_layernorm.weight" in names:
        raise ModelError(f"{folder}: its layer has an input norm, which a published EAGLE head has not")
