"""Keys and values: bytes a token, an attempt, and many attempts that share a prompt; how many fit. Pure arithmetic.

A token of one layer holds 2 * kv_heads * head_dim values. A layer with a sliding window keeps the window and what a
block may overlap; all others keep everything. Memory is handed out in blocks of 16 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mathlete.core.errors import InputError
from mathlete.planning.model_shape import ModelShape
from mathlete.planning.parallel_weights import Layout, kv_heads_per_gpu

BLOCK_SIZE = 16

# Bytes of a value. The embedded engine's int8 has a bf16 scale for each 32 values.
_KV_BYTES: Mapping[str, float] = {
    "auto": 2, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "fp32": 4, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1,
    "int8": 1 + 2 / 32,
}  # fmt: skip


def kv_value_bytes(kv_cache_dtype: str) -> float:
    """Bytes of one key's or value's number. Raises `InputError` for a type that is not known."""
    found = _KV_BYTES.get(kv_cache_dtype)
    if found is None:
        raise InputError(f"kv_cache_dtype {kv_cache_dtype[:40]!r} is not known; use one of {', '.join(_KV_BYTES)}")
    return found


@dataclass(frozen=True, slots=True)
class KVLayers:
    """What one GPU keeps of a token's keys and values.

    Attributes:
        full_bytes: of one token in all layers that see everything.
        sliding_bytes: of one token in all layers with a window.
        window: tokens that those see; None where there are none.
    """

    full_bytes: float
    sliding_bytes: float
    window: int | None

    @property
    def token_bytes(self) -> float:
        """Of a token while it is inside every window."""
        return self.full_bytes + self.sliding_bytes

    def sequence_bytes(self, num_tokens: int) -> float:
        """Of one sequence that shares nothing, in whole blocks."""
        kept = num_tokens if self.window is None else min(num_tokens, self.window + BLOCK_SIZE)
        return _in_blocks(num_tokens) * self.full_bytes + _in_blocks(kept) * self.sliding_bytes

    def read_bytes(self, num_tokens: float) -> float:
        """That attention reads for one new token after `num_tokens`."""
        kept = num_tokens if self.window is None else min(num_tokens, self.window)
        return num_tokens * self.full_bytes + kept * self.sliding_bytes

    def attempts_bytes(self, attempts: int, prompt: int, length: int) -> float:
        """Of attempts of one problem, each of `length` tokens with its prompt; the prompt's whole blocks count once.

        Layers with a window keep only what lies inside it, which soon is each attempt's own.
        """
        shared = min(prompt, length) // BLOCK_SIZE * BLOCK_SIZE
        own = _in_blocks(length - shared)
        kept = length if self.window is None else min(length, self.window + BLOCK_SIZE)
        return (shared + attempts * own) * self.full_bytes + attempts * _in_blocks(kept) * self.sliding_bytes

    def attempts_that_fit(self, room_bytes: float, prompt: int, length: int) -> int:
        """Attempts of one problem that `room_bytes` hold at once, each of `length` tokens."""
        if room_bytes < self.attempts_bytes(1, prompt, length):
            return 0
        first = self.attempts_bytes(1, prompt, length)
        more = self.attempts_bytes(2, prompt, length) - first
        return 1 + int((room_bytes - first) / more)


def kv_layers_per_gpu(shape: ModelShape, kv_cache_dtype: str, layout: Layout) -> KVLayers:
    """Keys and values of a token on the fullest GPU of one copy. Raises `InputError` for an unknown type."""
    heads = kv_heads_per_gpu(shape, layout.tensor_parallel)
    layer_bytes = 2 * heads * shape.head_dim * kv_value_bytes(kv_cache_dtype)
    part = math.ceil(shape.num_layers / layout.pipeline_parallel) / shape.num_layers
    return KVLayers(
        full_bytes=shape.num_full_layers * part * layer_bytes,
        sliding_bytes=shape.num_sliding_layers * part * layer_bytes,
        window=shape.sliding_window,
    )


def _in_blocks(num_tokens: int) -> int:
    return math.ceil(max(0, num_tokens) / BLOCK_SIZE) * BLOCK_SIZE
