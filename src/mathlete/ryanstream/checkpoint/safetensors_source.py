"""Reads a Hugging Face folder: config.json, *.safetensors (sharded or not), tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.ryanstream.checkpoint.source import TokenizerSpec
from mathlete.ryanstream.model.config import SUPPORTED_ARCHITECTURES, ModelConfig
from mathlete.ryanstream.model.rope_scaling import rope_scaling_from
from mathlete.ryanstream.model.tokenizer import end_token_ids, split_control_tokens

_INDEX = "model.safetensors.index.json"
# Of these families' attention only the query, key and value products have a bias (Qwen2), whatever the file says.
_ALWAYS_QKV_BIAS = ("qwen2",)
_READABLE_DTYPES = ("BF16", "F16", "F32")
_WHAT_TO_FETCH = (
    "this engine reads bf16, fp16 and fp32 safetensors and quantises them itself, or reads quantised GGUF files: "
    "fetch one of these"
)


class SafetensorsSource:
    """A folder with a model. Files are opened when a tensor is read."""

    def __init__(self, folder: Path) -> None:
        """Read the configuration and the headers. Raises `ModelError` when something is missing or damaged."""
        self.path = folder
        self._raw = read_json(folder / "config.json")
        self.config = read_model_config(folder, self._raw)
        self._file_of: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        dtypes: dict[str, str] = {}  # with one tensor each, for the message
        for path in weight_files(folder):
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118  (not a mapping)
                        tensor = file.get_slice(name)
                        self._file_of[name], self._shapes[name] = path, tuple(tensor.get_shape())
                        dtypes.setdefault(tensor.get_dtype(), name)
            except (SafetensorError, OSError) as error:
                raise ModelError(
                    f"{path} is not a whole safetensors file ({error}). "
                    "It may be a download that was cut: fetch it again."
                ) from error
        if not self._file_of:
            raise ModelError(f"{folder} holds no *.safetensors file")
        for dtype, name in dtypes.items():
            if dtype not in _READABLE_DTYPES:
                raise ModelError(f"{folder} has tensor {name!r} in {dtype}; {_WHAT_TO_FETCH}")

    def shape(self, name: str) -> tuple[int, ...] | None:
        """See `WeightSource.shape`."""
        return self._shapes.get(name)

    def read(self, name: str) -> Tensor:
        """A tensor in the file's own float type."""
        path = self._file_of.get(name)
        if path is None:
            raise ModelError(f"{self.path} has no tensor {name!r}")
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def tokenizer(self) -> TokenizerSpec:
        """The tokenizer of tokenizer.json, with its added tokens taken out as control tokens."""
        path = self.path / "tokenizer.json"
        if not path.exists():
            raise ModelError(f"{path} is missing: a model folder needs the tokenizer in the `tokenizers` format")
        split = split_control_tokens(path.read_text(encoding="utf-8"))
        given = _ids(self._raw.get("eos_token_id"))
        generation = self.path / "generation_config.json"
        if generation.exists():
            given += _ids(read_json(generation).get("eos_token_id"))
        ends = end_token_ids(split.control_tokens, given)
        return TokenizerSpec(split.tokenizer_json, split.control_tokens, ends, split.spoken_ids)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, in order of name: those its index names, or all when it has none.

    Raises:
        ModelError: when the index is damaged or names a file that is not there.
    """
    if not (folder / _INDEX).exists():
        return sorted(folder.glob("*.safetensors"))
    named = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise ModelError(f"{folder / _INDEX} has no weight_map: fetch it again")
    files = sorted({folder / Path(name).name for name in named.values()})
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of {len(files)} weight files that {_INDEX} names "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): fetch them"
        )
    return files


def read_model_config(folder: Path, raw: dict[str, Any]) -> ModelConfig:
    """The shape that a config.json `raw` of this folder states. Raises `ModelError` where it cannot be run."""
    architecture = raw.get("model_type")
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise ModelError(f"{folder} is a {architecture!r} model; this engine runs {', '.join(SUPPORTED_ARCHITECTURES)}")
    _refuse_what_it_cannot_run(folder, raw)
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    try:
        heads, positions = raw["num_attention_heads"], int(raw["max_position_embeddings"])
        head_dim = raw.get("head_dim") or raw["hidden_size"] // heads
        theta = float(raw.get("rope_theta") or rope.get("rope_theta") or 10_000.0)
        has_bias = bool(raw.get("attention_bias", False))
        return ModelConfig(
            architecture=architecture,
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_layers=raw["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=raw.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            rms_norm_eps=raw["rms_norm_eps"],
            rope_theta=theta,
            attention_bias=architecture in _ALWAYS_QKV_BIAS or has_bias,
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
            max_positions=_stretched(rope, positions),
            output_bias=architecture not in _ALWAYS_QKV_BIAS and has_bias,
            qk_norm=architecture == "qwen3",
            rope_scaling=rope_scaling_from(rope, head_dim, theta, positions),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder}/config.json does not describe a model that can be run: {error}") from error


def _refuse_what_it_cannot_run(folder: Path, raw: dict[str, Any]) -> None:
    """Raise `ModelError` for a setting that would be computed wrongly."""
    quantisation = raw.get("quantization_config")
    if quantisation:
        method = quantisation.get("quant_method", "unknown") if isinstance(quantisation, dict) else "unknown"
        raise ModelError(f"{folder} holds weights that are already quantised ({method}); {_WHAT_TO_FETCH}")
    slides = raw.get("use_sliding_window") or "sliding_attention" in (raw.get("layer_types") or ())
    if slides or (raw["model_type"] == "mistral" and raw.get("sliding_window") is not None):
        raise ModelError(f"{folder} uses sliding-window attention, which this engine does not run")
    if raw.get("hidden_act", "silu") != "silu":
        raise ModelError(f"{folder} uses activation {raw['hidden_act']!r}; this engine runs silu only")
    if raw.get("mlp_bias"):
        raise ModelError(f"{folder} has biases in its feed-forward layers, which this engine does not run")


def _stretched(rope: dict[str, Any], positions: int) -> int:
    """Longest context: YaRN's factor may be given beside the length before stretching (Qwen2.5's model card)."""
    if rope.get("rope_type", rope.get("type")) != "yarn":
        return positions
    return max(positions, int(rope.get("factor", 1.0) * (rope.get("original_max_position_embeddings") or positions)))


def _ids(entry: Any) -> list[int]:
    given = entry if isinstance(entry, list) else [entry]
    return [i for i in given if isinstance(i, int)]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `ModelError` when the file holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a JSON object: fetch it again")
    return content
