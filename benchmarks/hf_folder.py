"""A GGUF file as a Hugging Face folder, so that a peer that does not read GGUF runs the very same weights.

usage: hf_folder.py FILE.gguf OUT [--int8]
Writes bf16 safetensors (each tensor as the GGUF dequantises), config.json, tokenizer files and generation_config.json.
`--int8` writes the linear layers as int8 with one scale an output column, for int8 activations with one scale a row:
the "compressed-tensors" W8A8 format that vLLM reads; embedding and output head stay bf16 in it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mathlete.ryanstream.checkpoint.gguf_source import GGUFSource
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.quantization import quantize_rows

_LINEAR = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_LINEAR += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
_W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**_INT8, "strategy": "channel", "dynamic": False},
            "input_activations": {**_INT8, "strategy": "token", "dynamic": True},
        }
    },
}
# ChatML as the Qwen2 family writes it.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def main() -> None:
    """Parse the command line, convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--int8", action="store_true")
    args = parser.parse_args()
    source = GGUFSource(args.gguf)
    args.out.mkdir(parents=True, exist_ok=True)
    tensors = dict(_tensors(source, args.int8))
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})
    _write_json(args.out / "config.json", _config(source, args.int8))
    _write_tokenizer(source, args.out)
    print(f"{args.out}: {len(tensors)} tensors, {sum(tensor.nbytes for tensor in tensors.values()) / 1e9:.2f} GB")


def _tensors(source: GGUFSource, int8: bool) -> Iterator[tuple[str, Tensor]]:
    shape = source.config
    tops = ["model.embed_tokens.weight", "model.norm.weight"]
    if not shape.tie_word_embeddings:
        tops.append("lm_head.weight")
    for name in tops:
        yield name, source.read(name).bfloat16()
    for i in range(shape.num_layers):
        layer = f"model.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{norm}.weight", source.read(f"{layer}.{norm}.weight").bfloat16()
        for part in _LINEAR:
            weight = source.read(f"{layer}.{part}.weight")
            if int8:
                codes, scales = quantize_rows(weight)
                yield f"{layer}.{part}.weight", codes
                yield f"{layer}.{part}.weight_scale", scales[:, None].contiguous()
            else:
                yield f"{layer}.{part}.weight", weight.bfloat16()
        if shape.attention_bias:
            for part in "qkv":
                name = f"{layer}.self_attn.{part}_proj.bias"
                yield name, source.read(name).bfloat16()


def _config(source: GGUFSource, int8: bool) -> dict[str, Any]:
    shape: ModelConfig = source.config
    ends = source.tokenizer().eos_token_ids
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "max_position_embeddings": shape.max_positions,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "hidden_act": "silu",
        "use_sliding_window": False,
        "torch_dtype": str(torch.bfloat16).removeprefix("torch."),
        "eos_token_id": list(ends),
        **({"quantization_config": _W8A8} if int8 else {}),
    }


def _write_tokenizer(source: GGUFSource, out: Path) -> None:
    spec = source.tokenizer()
    content = json.loads(spec.tokenizer_json)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": i, "content": name, **plain} for name, i in spec.control_tokens.items()]
    _write_json(out / "tokenizer.json", content)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    _write_json(
        out / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": _CHAT_TEMPLATE, **named},
    )
    _write_json(
        out / "generation_config.json",
        {"eos_token_id": list(spec.eos_token_ids), "pad_token_id": spec.control_tokens["<|endoftext|>"]},
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
