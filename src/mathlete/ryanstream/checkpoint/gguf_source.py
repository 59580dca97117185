"""Reads a GGUF file (llama.cpp's format) with the `gguf` package: shapes, tensors, vocabulary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.ryanstream.checkpoint.source import TokenizerSpec
from mathlete.ryanstream.model.config import ModelConfig, RopeScaling
from mathlete.ryanstream.model.rope_scaling import rope_scaling_from
from mathlete.ryanstream.model.tokenizer import build_tokenizer_json, end_token_ids

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
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
_TOP_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
              "lm_head.weight": "output.weight"}  # fmt: skip

_ARCHITECTURES = ("qwen2", "qwen3", "llama")  # Mistral's is "llama" there
_KNOWN = ", ".join(_ARCHITECTURES)
_SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")

# token types of the GGUF specification
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


class GGUFSource:
    """One GGUF file, or the parts of a split one. Files stay mapped while the object lives."""

    def __init__(self, path: Path) -> None:
        """Read the headers. Raises `ModelError` for anything that is not a whole GGUF file of a known kind."""
        self.path = path
        readers = [_open(part) for part in gguf_files(path)]
        self._reader = readers[0]
        self._tensors = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
        self.config = self._read_config()
        self._swapped_rows = self._field("general.architecture") == "llama"

    def shape(self, name: str) -> tuple[int, ...] | None:
        """See `WeightSource.shape`."""
        tensor = self._tensors.get(_gguf_name(name))
        return None if tensor is None else tuple(int(n) for n in reversed(tensor.shape))

    def read(self, name: str) -> Tensor:
        """A tensor, dequantised to float32, in the order of rows that Hugging Face uses."""
        tensor, shape = self._tensors.get(_gguf_name(name)), self.shape(name)
        if tensor is None or shape is None:
            raise ModelError(f"{self.path} has no tensor {_gguf_name(name)!r} (for {name})")
        try:
            values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=True)
        except NotImplementedError as error:
            raise ModelError(
                f"{self.path} has tensor {tensor.name!r} in {tensor.tensor_type.name}, which this engine cannot read; "
                "fetch the model in another quantisation (Q4_K_M, Q8_0, BF16)"
            ) from error
        weights = torch.from_numpy(values).reshape(shape)
        part = name.rsplit(".", 2)[-2]
        if self._swapped_rows and part in ("q_proj", "k_proj"):
            weights = _half_split_rows(weights, self.config.head_dim)
        return weights

    def tokenizer(self) -> TokenizerSpec:
        """The byte-level BPE tokenizer of the file."""
        kind = self._field("tokenizer.ggml.model")
        if kind != "gpt2":
            raise ModelError(
                f"{self.path} has a tokenizer of kind {kind!r}; from a GGUF file only byte-level BPE ('gpt2') is "
                "read: use the model's safetensors folder, which holds a tokenizer.json"
            )
        tokens: list[str] = self._field("tokenizer.ggml.tokens")
        types: list[int] = self._field("tokenizer.ggml.token_type")
        vocab = {token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind == _NORMAL}
        control = {
            token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind in (_CONTROL, _USER_DEFINED)
        }  # fmt: skip
        merges = [tuple(merge.split(" ", 1)) for merge in self._field("tokenizer.ggml.merges")]
        ends = (self._optional(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
        return TokenizerSpec(
            build_tokenizer_json(vocab, merges, self._field("tokenizer.ggml.pre")), control,
            end_token_ids(control, ends), tuple(i for i in control.values() if types[i] == _USER_DEFINED),
        )  # fmt: skip

    def _read_config(self) -> ModelConfig:
        arch = self._field("general.architecture")
        if arch not in _ARCHITECTURES:
            raise ModelError(f"{self.path} is a {arch!r} model; from a GGUF file this engine runs {_KNOWN}")
        for entry in ("expert_count", "attention.sliding_window"):
            if self._optional(f"{arch}.{entry}"):
                raise ModelError(f"{self.path} has {arch}.{entry} set, which this engine does not run")
        try:
            heads, hidden = self._field(f"{arch}.attention.head_count"), self._field(f"{arch}.embedding_length")
            head_dim = self._optional(f"{arch}.attention.key_length") or hidden // heads
            theta = self._optional(f"{arch}.rope.freq_base") or 10_000.0
            rotated = self._optional(f"{arch}.rope.dimension_count") or head_dim
            if rotated != head_dim:
                raise ValueError(f"only {rotated} of a head's {head_dim} numbers are rotated")
            return ModelConfig(
                architecture=arch,
                vocab_size=int(self._tensors["token_embd.weight"].shape[1]),
                hidden_size=hidden,
                intermediate_size=self._field(f"{arch}.feed_forward_length"),
                num_layers=self._field(f"{arch}.block_count"),
                num_heads=heads,
                num_kv_heads=self._optional(f"{arch}.attention.head_count_kv") or heads,
                head_dim=head_dim,
                rms_norm_eps=self._field(f"{arch}.attention.layer_norm_rms_epsilon"),
                rope_theta=theta,
                attention_bias="blk.0.attn_q.bias" in self._tensors,
                tie_word_embeddings="output.weight" not in self._tensors,
                max_positions=self._field(f"{arch}.context_length"),
                output_bias="blk.0.attn_output.bias" in self._tensors,
                qk_norm=arch == "qwen3",
                rope_scaling=self._rope_scaling(arch, head_dim, theta),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(f"{self.path} does not describe a model that can be run: {error}") from error

    def _rope_scaling(self, arch: str, head_dim: int, theta: float) -> RopeScaling | None:
        """From the entries; Llama 3's scheme is a tensor of divisors."""
        kind = self._optional(f"{arch}.rope.scaling.type") or "none"
        factor = self._optional(f"{arch}.rope.scaling.factor") or self._optional(f"{arch}.rope.scale_linear") or 1.0
        divisors = self._tensors.get("rope_freqs.weight")
        if divisors is not None:
            if kind != "none":
                raise ValueError(f"both rope_freqs.weight and {kind} scaling of the rotary positions")
            return RopeScaling(tuple(float(value) for value in divisors.data.reshape(-1)))
        if kind == "none":
            return None
        given = {"rope_type": kind, "factor": factor}
        original = self._optional(f"{arch}.rope.scaling.original_context_length")
        for name in ("beta_fast", "beta_slow"):
            given[name] = self._optional(f"{arch}.rope.scaling.yarn_{name}")
        scaling = rope_scaling_from(
            {**given, "original_max_position_embeddings": original}, head_dim, theta,
            self._field(f"{arch}.context_length"),
        )  # fmt: skip
        times = self._optional(f"{arch}.rope.scaling.attn_factor")  # on top of YaRN's own, in llama.cpp
        if scaling is None or times is None:
            return scaling
        return RopeScaling(scaling.divisors, scaling.attention_factor * times)

    def _field(self, name: str) -> Any:
        value = self._optional(name)
        if value is None:
            raise ModelError(f"{self.path} lacks the entry {name!r}")
        return value

    def _optional(self, name: str) -> Any:
        field = self._reader.get_field(name)
        return None if field is None else field.contents()


def gguf_files(path: Path) -> list[Path]:
    """All parts of a GGUF file: itself, or those named like `model-00001-of-00003.gguf`.

    Raises:
        ModelError: when a part is missing.
    """
    split = _SPLIT_NAME.fullmatch(path.name)
    if split is None:
        return [path]
    parts = [path.with_name(f"{split[1]}-{i:05}-of-{split[3]}.gguf") for i in range(1, int(split[3]) + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ModelError(f"{path} is one part of {len(parts)}, and {', '.join(missing[:3])} is not beside it: fetch it")
    return parts


def _open(path: Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, OverflowError, KeyError, UnicodeDecodeError) as error:
        # the package maps the file and reads past its end when it is cut
        raise ModelError(
            f"{path} is not a whole GGUF file ({_first_line(error)}; {path.stat().st_size:,} bytes). "
            "It may be a download that was cut: fetch it again (`mathlete models pull --force NAME`)."
        ) from error


def _half_split_rows(weights: Tensor, head_dim: int) -> Tensor:
    """Undo what llama.cpp's converter does for Llama: it rotates neighbouring rows of a head, Hugging Face its halves.

    weights [heads * D, ...]: row 2 i + j of a head becomes row j * D / 2 + i.
    """
    pairs = weights.reshape(-1, head_dim // 2, 2, *weights.shape[1:])
    return pairs.transpose(1, 2).reshape(weights.shape)


def _gguf_name(name: str) -> str:
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    _, _, index, rest = name.split(".", 3)
    stem, suffix = rest.rsplit(".", 1)
    return f"blk.{index}.{_LAYER_NAMES[stem]}.{suffix}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
