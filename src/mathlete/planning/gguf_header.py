"""The shape of a model in a GGUF file, from its header alone. Foreign files: every count and length has a ceiling.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Weights are not looked at.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.core.errors import ModelError
from mathlete.planning.model_shape import Experts, ModelShape

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_ENTRIES = 1 << 16
_MAX_TENSORS = 1 << 18
_MAX_STRING = 1 << 24
_MAX_ARRAY = 1 << 24
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class _Header:
    """Single values of the metadata, and each tensor's dimensions, the innermost first."""

    entries: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]


def shape_from_gguf(path: Path) -> ModelShape:
    """The shape that a GGUF file's header describes.

    Raises:
        ModelError: it is no whole GGUF header, or describes a model that cannot be counted here.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Cursor(data).header()
        return _shape(header, path)
    except (ValueError, KeyError, TypeError, struct.error, IndexError, UnicodeDecodeError, OSError) as error:
        raise ModelError(
            f"{path} has no GGUF header that a plan can be made of ({str(error)[:200]}); the file may be cut, or of a "
            "family that is not counted here"
        ) from error


def _shape(header: _Header, path: Path) -> ModelShape:
    entries, tensors = header.entries, header.tensors
    arch = str(entries["general.architecture"])

    def number(key: str, default: int | None = None) -> int:
        value = entries.get(f"{arch}.{key}", default)
        if not isinstance(value, int):
            raise ValueError(f"{arch}.{key} is {str(value)[:40]!r}")
        return value

    heads, hidden, layers = number("attention.head_count"), number("embedding_length"), number("block_count")
    if min(heads, layers) < 1:
        raise ValueError("no heads or layers")
    window, count = entries.get(f"{arch}.attention.sliding_window"), number("expert_count", 0)
    inner = number("feed_forward_length")
    experts = None
    if count:
        experts = Experts(count, number("expert_used_count"), number("expert_feed_forward_length", inner))
    return ModelShape(
        name=str(entries.get("general.name", path.stem))[:100],
        architecture=arch,
        vocab_size=tensors["token_embd.weight"][1],
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", hidden // heads),
        tie_word_embeddings="output.weight" not in tensors,
        max_positions=number("context_length"),
        attention_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        sliding_window=window if isinstance(window, int) and window > 0 else None,
        num_sliding_layers=(layers + 1) // 2 if isinstance(window, int) and window > 0 else 0,
        experts=experts,
        expert_bias="blk.0.ffn_gate_exps.bias" in tensors,
        attention_sinks="blk.0.attn_sinks.weight" in tensors,
        published_format="mxfp4" if arch == "gpt-oss" else "bf16",
        source=str(path),
    )


class _Cursor:
    """Reads on through a mapped file; raises `ValueError` or `struct.error` where it cannot be a header."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def header(self) -> _Header:
        if self._data[:4] != b"GGUF":
            raise ValueError("no GGUF magic")
        self._at = 4
        if not 2 <= self._take("<I") <= 3:
            raise ValueError("not version 2 or 3")
        num_tensors, num_entries = self._take("<Q"), self._take("<Q")
        if num_tensors > _MAX_TENSORS or num_entries > _MAX_ENTRIES:
            raise ValueError(f"{num_tensors} tensors and {num_entries} entries are too many")
        entries = {}
        for _ in range(num_entries):
            key = self._string()
            entries[key] = self._value(self._take("<I"))
        tensors = {}
        for _ in range(num_tensors):
            name, num_dimensions = self._string(), self._take("<I")
            if num_dimensions > _MAX_DIMENSIONS:
                raise ValueError(f"tensor {name[:40]!r} has {num_dimensions} dimensions")
            tensors[name] = tuple(self._take("<Q") for _ in range(num_dimensions))
            self._at += 12  # type and offset
        return _Header(entries, tensors)

    def _take(self, code: str) -> Any:
        (value,) = struct.unpack_from(code, self._data, self._at)
        self._at += struct.calcsize(code)
        return value

    def _string(self) -> str:
        return self._bytes_of_string().decode("utf-8", errors="replace")

    def _bytes_of_string(self) -> bytes:
        length = self._take("<Q")
        if length > _MAX_STRING or self._at + length > len(self._data):
            raise ValueError(f"a text of {length} bytes")
        self._at += length
        return self._data[self._at - length : self._at]

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._skip_array()
            return None
        return self._take(_SCALARS[kind])

    def _skip_array(self) -> None:
        kind, length = self._take("<I"), self._take("<Q")
        if length > _MAX_ARRAY:
            raise ValueError(f"an array of {length}")
        if kind == _STRING:
            for _ in range(length):
                self._bytes_of_string()
        elif kind == _ARRAY:
            raise ValueError("an array of arrays")
        else:
            self._at += length * struct.calcsize(_SCALARS[kind])
