"""A tiny random Qwen2 model on disk: what `soak.py` runs when it is given no other."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from mathlete.ryanstream.model.tokenizer import _BYTE_OF, build_tokenizer_json

_HIDDEN, _INNER, _LAYERS, _HEADS, _KV_HEADS, _WIDTH, _VOCAB = 64, 128, 3, 4, 2, 32, 272
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write_random_model(folder: Path) -> None:
    """Write a folder with config.json, tokenizer.json and model.safetensors; its weights are noise with a seed."""
    folder.mkdir(parents=True)
    vocab = {token: i for i, token in enumerate(_BYTE_OF)}
    control = {name: len(vocab) + i for i, name in enumerate(_CONTROL)}
    config = {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": _VOCAB, "hidden_size": _HIDDEN,
        "intermediate_size": _INNER, "num_hidden_layers": _LAYERS, "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV_HEADS, "head_dim": _WIDTH, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "eos_token_id": control["<|im_end|>"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads(build_tokenizer_json(vocab, [], "qwen2"))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] = [{"id": i, "content": name, **plain} for name, i in control.items()]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    noise = torch.Generator().manual_seed(7)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.ones(shape) if len(shape) == 1 else 0.15 * torch.randn(shape, generator=noise)

    tensors = {"model.embed_tokens.weight": tensor(_VOCAB, _HIDDEN), "model.norm.weight": tensor(_HIDDEN)}
    for layer in range(_LAYERS):
        shapes = {
            "input_layernorm.weight": (_HIDDEN,),
            "post_attention_layernorm.weight": (_HIDDEN,),
            "self_attn.q_proj.weight": (_HEADS * _WIDTH, _HIDDEN),
            "self_attn.k_proj.weight": (_KV_HEADS * _WIDTH, _HIDDEN),
            "self_attn.v_proj.weight": (_KV_HEADS * _WIDTH, _HIDDEN),
            "self_attn.o_proj.weight": (_HIDDEN, _HEADS * _WIDTH),
            "self_attn.q_proj.bias": (_HEADS * _WIDTH,),
            "self_attn.k_proj.bias": (_KV_HEADS * _WIDTH,),
            "self_attn.v_proj.bias": (_KV_HEADS * _WIDTH,),
            "mlp.gate_proj.weight": (_INNER, _HIDDEN),
            "mlp.up_proj.weight": (_INNER, _HIDDEN),
            "mlp.down_proj.weight": (_HIDDEN, _INNER),
        }
        tensors |= {f"model.layers.{layer}.{name}": tensor(*shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
