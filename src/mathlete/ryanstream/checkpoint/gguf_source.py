"""Reads a GGUF file (llama.cpp's format) with the `gguf` package: shapes, tensors, vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.ryanstream.checkpoint.source import TokenizerSpec
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.tokenizer import build_tokenizer_json

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
              "lm_head.weight": "output.weight"}  # fmt: skip

# token types of the GGUF specification
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


class GGUFSource:
    """One GGUF file. The file stays mapped while the object lives."""

    def __init__(self, path: Path) -> None:
        """Read the header. Raises `ModelError` for anything that is not a whole GGUF file of a known kind."""
        self._path = path
        try:
            self._reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, OverflowError, KeyError, UnicodeDecodeError) as error:
            # the package maps the file and reads past its end when it is cut
            raise ModelError(
                f"{path} is not a whole GGUF file ({_first_line(error)}; {path.stat().st_size:,} bytes). "
                "It may be a download that was cut: fetch it again (`mathlete models pull --force NAME`)."
            ) from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.config = self._read_config()

    def read(self, name: str) -> Tensor:
        """A tensor, dequantised to float32."""
        tensor = self._tensors.get(_gguf_name(name))
        if tensor is None:
            raise ModelError(f"{self._path} has no tensor {_gguf_name(name)!r} (for {name})")
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=True)
        return torch.from_numpy(values).reshape(tuple(int(n) for n in reversed(tensor.shape)))

    def tokenizer(self) -> TokenizerSpec:
        """The byte-level BPE tokenizer of the file."""
        kind, pattern = self._field("tokenizer.ggml.model"), self._field("tokenizer.ggml.pre")
        if kind != "gpt2":
            raise ModelError(f"{self._path} has a tokenizer of kind {kind!r}; only byte-level BPE ('gpt2') is known")
        tokens: list[str] = self._field("tokenizer.ggml.tokens")
        types: list[int] = self._field("tokenizer.ggml.token_type")
        vocab = {token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind == _NORMAL}
        control = {
            token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind in (_CONTROL, _USER_DEFINED)
        }  # fmt: skip
        merges = [tuple(merge.split(" ", 1)) for merge in self._field("tokenizer.ggml.merges")]
        ends = {self._field("tokenizer.ggml.eos_token_id"), control.get("<|im_end|>"), control.get("<|endoftext|>")}
        return TokenizerSpec(
            build_tokenizer_json(vocab, merges, pattern), control, tuple(sorted(i for i in ends if i is not None))
        )

    def _read_config(self) -> ModelConfig:
        arch = self._field("general.architecture")
        if arch != "qwen2":
            raise ModelError(f"{self._path} is a {arch!r} model; this version of the engine runs qwen2 only")
        head_dim = self._reader.get_field(f"{arch}.attention.key_length")
        scaling = self._reader.get_field(f"{arch}.rope.scaling.type")
        if scaling is not None and scaling.contents() != "none":
            raise ModelError(
                f"{self._path} scales its rotary positions ({scaling.contents()}), which this engine does not do"
            )
        heads, hidden = self._field(f"{arch}.attention.head_count"), self._field(f"{arch}.embedding_length")
        try:
            return ModelConfig(
                architecture=arch,
                vocab_size=int(self._tensors["token_embd.weight"].shape[1]),
                hidden_size=hidden,
                intermediate_size=self._field(f"{arch}.feed_forward_length"),
                num_layers=self._field(f"{arch}.block_count"),
                num_heads=heads,
                num_kv_heads=self._field(f"{arch}.attention.head_count_kv"),
                head_dim=hidden // heads if head_dim is None else head_dim.contents(),
                rms_norm_eps=self._field(f"{arch}.attention.layer_norm_rms_epsilon"),
                rope_theta=self._field(f"{arch}.rope.freq_base"),
                attention_bias="blk.0.attn_q.bias" in self._tensors,
                tie_word_embeddings="output.weight" not in self._tensors,
                max_positions=self._field(f"{arch}.context_length"),
            )
        except (KeyError, ValueError) as error:
            raise ModelError(f"{self._path} does not describe a model that can be run: {error}") from error

    def _field(self, name: str) -> Any:
        field = self._reader.get_field(name)
        if field is None:
            raise ModelError(f"{self._path} lacks the entry {name!r}")
        return field.contents()


def _gguf_name(name: str) -> str:
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    _, _, index, rest = name.split(".", 3)
    stem, suffix = rest.rsplit(".", 1)
    return f"blk.{index}.{_LAYER_NAMES[stem]}.{suffix}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
