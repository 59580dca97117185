"""Reads a Hugging Face folder: config.json, *.safetensors (sharded or not), tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.ryanstream.checkpoint.source import TokenizerSpec
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.tokenizer import split_control_tokens


class SafetensorsSource:
    """A folder with a model. Files are opened when a tensor is read."""

    def __init__(self, folder: Path) -> None:
        """Read the configuration and the index. Raises `ModelError` when something is missing or damaged."""
        self._folder = folder
        self._raw = self._read_json("config.json")
        self._file_of: dict[str, Path] = {}
        for path in weight_files(folder):
            try:
                with safe_open(path, framework="pt") as file:
                    self._file_of.update(dict.fromkeys(file.keys(), path))
            except (SafetensorError, OSError) as error:
                raise ModelError(
                    f"{path} is not a whole safetensors file ({error}). "
                    "It may be a download that was cut: fetch it again."
                ) from error
        if not self._file_of:
            raise ModelError(f"{folder} holds no *.safetensors file")
        self.config = self._read_config()

    def read(self, name: str) -> Tensor:
        """A tensor in the file's own float type."""
        path = self._file_of.get(name)
        if path is None:
            raise ModelError(f"{self._folder} has no tensor {name!r}")
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def tokenizer(self) -> TokenizerSpec:
        """The tokenizer of tokenizer.json, with its added tokens taken out as control tokens."""
        path = self._folder / "tokenizer.json"
        if not path.exists():
            raise ModelError(f"{path} is missing: a model folder needs the tokenizer in the `tokenizers` format")
        plain, control = split_control_tokens(path.read_text(encoding="utf-8"))
        ends = self._raw.get("eos_token_id")
        given = ends if isinstance(ends, list) else [ends]
        named = [control[name] for name in ("<|im_end|>", "<|endoftext|>") if name in control]
        return TokenizerSpec(plain, control, tuple(sorted({*(i for i in given if i is not None), *named})))

    def _read_config(self) -> ModelConfig:
        raw = self._raw
        if raw.get("model_type") != "qwen2":
            raise ModelError(
                f"{self._folder} is a {raw.get('model_type')!r} model; this version of the engine runs qwen2 only"
            )
        if raw.get("use_sliding_window"):
            raise ModelError(f"{self._folder} uses sliding-window attention, which this engine does not run")
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ModelError(f"{self._folder} scales its rotary positions ({rope}), which this engine does not do")
        try:
            return ModelConfig(
                architecture="qwen2",
                vocab_size=raw["vocab_size"],
                hidden_size=raw["hidden_size"],
                intermediate_size=raw["intermediate_size"],
                num_layers=raw["num_hidden_layers"],
                num_heads=raw["num_attention_heads"],
                num_kv_heads=raw["num_key_value_heads"],
                head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
                rms_norm_eps=raw["rms_norm_eps"],
                rope_theta=float(raw.get("rope_theta") or rope["rope_theta"]),
                attention_bias=True,
                tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
                max_positions=raw["max_position_embeddings"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(
                f"{self._folder}/config.json does not describe a model that can be run: {error}"
            ) from error

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self._folder / name
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read as JSON: {error}") from error
        return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, in order of name."""
    return sorted(folder.glob("*.safetensors"))
