"""A Hugging Face `config.json` as a `ModelShape`. What it says comes from outside and is checked.

Knows which key of the file means what, and what the families leave out of it; knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mathlete.core.errors import ModelError
from mathlete.planning.model_shape import Experts, ModelShape

_DENSE = ("qwen2", "qwen3", "llama", "mistral")
_OF_EXPERTS = ("gpt_oss", "qwen3_moe", "mixtral")
_QKV_BIAS = ("qwen2",)  # whatever the file says
_QK_NORM = ("qwen3", "qwen3_moe")
# `quantization_config.quant_method` -> the plan's name of the format.
_FORMATS = {"mxfp4": "mxfp4", "awq": "awq", "gptq": "gptq", "bitsandbytes": "nf4", "fp8": "fp8"}


def shape_from_config(config: Mapping[str, Any], name: str, source: str) -> ModelShape:
    """The shape that a `config.json` describes.

    Raises:
        ModelError: an architecture whose weights cannot be counted here, or an entry that is missing or no number.
    """
    architecture = config.get("model_type")
    if architecture not in (*_DENSE, *_OF_EXPERTS):
        known = ", ".join((*_DENSE, *_OF_EXPERTS))
        raise ModelError(f"{source} describes a {str(architecture)[:40]!r} model; the plan counts {known}")
    try:
        return _shape(config, str(architecture), name, source)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{source} does not describe a model that can be counted: {str(error)[:200]}") from error


def _shape(config: Mapping[str, Any], architecture: str, name: str, source: str) -> ModelShape:
    def number(key: str, default: int | None = None) -> int:
        value = config.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{key} is {str(value)[:40]!r}, not a whole number")
        return value

    heads, layers, hidden = number("num_attention_heads"), number("num_hidden_layers"), number("hidden_size")
    window, num_sliding = _sliding(config, layers)
    is_gpt_oss = architecture == "gpt_oss"
    if heads < 1:
        raise ValueError("num_attention_heads must be >= 1")
    return ModelShape(
        name=name,
        architecture=architecture,
        vocab_size=number("vocab_size"),
        hidden_size=hidden,
        intermediate_size=number("intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", hidden // heads),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        max_positions=number("max_position_embeddings"),
        attention_bias=architecture in _QKV_BIAS or bool(config.get("attention_bias", is_gpt_oss)),
        output_bias=architecture not in _QKV_BIAS and bool(config.get("attention_bias", is_gpt_oss)),
        qk_norm=architecture in _QK_NORM,
        sliding_window=window,
        num_sliding_layers=num_sliding,
        experts=_experts(number, architecture),
        expert_bias=is_gpt_oss,
        attention_sinks=is_gpt_oss,
        published_format=_published_format(config),
        source=source,
    )


def _experts(number: Any, architecture: str) -> Experts | None:
    if architecture not in _OF_EXPERTS:
        return None
    width = "moe_intermediate_size" if architecture == "qwen3_moe" else "intermediate_size"
    count = "num_experts" if architecture == "qwen3_moe" else "num_local_experts"
    return Experts(number(count), number("num_experts_per_tok"), number(width))


def _sliding(config: Mapping[str, Any], num_layers: int) -> tuple[int | None, int]:
    """The window and how many layers have it."""
    window = config.get("sliding_window")
    if window is None or config.get("use_sliding_window") is False:
        return None, 0
    if not isinstance(window, int) or window < 1:
        raise ValueError(f"sliding_window is {str(window)[:40]!r}")
    types = config.get("layer_types")
    if types is None:
        # Qwen slides above `max_window_layers`, gpt-oss in every second layer, Mistral everywhere.
        if config["model_type"] == "gpt_oss":
            return window, (num_layers + 1) // 2
        return window, num_layers - min(num_layers, int(config.get("max_window_layers", 0)))
    if not isinstance(types, list) or len(types) != num_layers:
        raise ValueError("layer_types does not name every layer")
    count = sum(kind == "sliding_attention" for kind in types)
    return (window, count) if count else (None, 0)


def _published_format(config: Mapping[str, Any]) -> str:
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        return "bf16"
    method = str(quantization.get("quant_method"))[:40]
    if method == "compressed-tensors":
        return "fp8" if "float" in str(quantization) else "int8"
    if method not in _FORMATS:
        raise ValueError(f"quant_method {method!r} is not known")
    return _FORMATS[method]
