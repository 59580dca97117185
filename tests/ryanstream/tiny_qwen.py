"""A small random model, made on the spot: as a safetensors folder, as a GGUF file, and in transformers.

Qwen2 unless another family is asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from mathlete.ryanstream.checkpoint.gguf_source import _gguf_name
from mathlete.ryanstream.model.rope_scaling import rope_scaling_from
from mathlete.ryanstream.model.tokenizer import _BYTE_OF, build_tokenizer_json

_MERGES = ["Ġ t", "h e", "i n", "Ġt he", "e r", "Ġ a", "o n", "r e", "a n", "Ġ =", "1 2"]
_CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB_SIZE = 288
_CLASSES: dict[str, tuple[Any, Any]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}


@dataclass(frozen=True, slots=True)
class TinyModel:
    """The folder, and the same model in transformers (fp32, eager)."""

    folder: Path
    model: PreTrainedModel

    def next_logits(self, ids: list[int]) -> Tensor:
        """Logits [len(ids), V] of transformers."""
        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([ids])).logits[0].float()


def tiny_vocab() -> dict[str, int]:
    """All bytes, then what the merges make."""
    tokens = [*_BYTE_OF, *(merge.replace(" ", "") for merge in _MERGES)]
    return {token: i for i, token in enumerate(tokens)}


def control_tokens() -> dict[str, int]:
    """The ids behind the vocabulary's own."""
    return {name: len(tiny_vocab()) + i for i, name in enumerate(_CONTROL)}


def make_tiny_model(
    folder: Path, *, tie_word_embeddings: bool, max_shard_size: str = "1GB", family: str = "qwen2", **settings: object
) -> TinyModel:
    """Save a random model into `folder`. Its head size (32) is not hidden_size / num_heads (16)."""
    ids = control_tokens()
    config_class, model_class = _CLASSES[family]
    shape = {
        "vocab_size": VOCAB_SIZE, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 512,
        "eos_token_id": ids["<|im_end|>"], "bos_token_id": None, "attn_implementation": "eager",
    }  # fmt: skip
    config = config_class(**{**shape, "tie_word_embeddings": tie_word_embeddings, **settings})
    torch.manual_seed(7)
    model = model_class(config).eval()
    with torch.no_grad():  # wide weights, so that the next token depends on the text; biases and norms that matter
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.5 if name.endswith("bias") else 0.15)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    _write_tokenizer(folder)
    return TinyModel(folder, model)


def _write_tokenizer(folder: Path) -> None:
    merges = [tuple(merge.split(" ")) for merge in _MERGES]
    content = json.loads(build_tokenizer_json(tiny_vocab(), merges, "qwen2"))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": i, "content": name, **plain} for name, i in control_tokens().items()]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def write_tiny_gguf(tiny: TinyModel, path: Path, **extra: str) -> None:
    """The same model as a GGUF file with float32 tensors; `extra` adds text entries."""
    config, ids = tiny.model.config, control_tokens()
    swapped = config.model_type in ("llama", "mistral")
    writer = gguf.GGUFWriter(path, "llama" if swapped else config.model_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    unused = [f"[PAD{i}]" for i in range(len(tiny_vocab()) + len(ids), VOCAB_SIZE)]
    writer.add_token_list([*tiny_vocab(), *ids, *unused])
    writer.add_token_types([1] * len(tiny_vocab()) + [3] * len(ids) + [5] * len(unused))
    writer.add_token_merges(_MERGES)
    writer.add_eos_token_id(ids["<|im_end|>"])
    for name, value in extra.items():
        writer.add_string(name.replace("__", "."), value)
    _add_rope_scaling(writer, config)
    for name, tensor in tiny.model.state_dict().items():
        if not (name == "lm_head.weight" and config.tie_word_embeddings):
            if swapped and ("q_proj" in name or "k_proj" in name):
                tensor = _swap_rows(tensor, config.head_dim)
            writer.add_tensor(_gguf_name(name), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _swap_rows(weights: Tensor, head_dim: int) -> Tensor:
    """As llama.cpp's converter (`LlamaModel.permute`): halves of a head become neighbouring rows."""
    halves = weights.reshape(-1, 2, head_dim // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def _add_rope_scaling(writer: gguf.GGUFWriter, config: Any) -> None:
    """As llama.cpp's converter: Llama 3's scheme as a tensor of divisors, the others as entries."""
    rope = config.rope_parameters
    if rope["rope_type"] == "llama3":
        scaling = rope_scaling_from(rope, config.head_dim, rope["rope_theta"], config.max_position_embeddings)
        assert scaling is not None
        writer.add_tensor("rope_freqs.weight", torch.tensor(scaling.divisors).numpy())
    elif rope["rope_type"] != "default":
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if "original_max_position_embeddings" in rope:
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
