"""The shape of a model, as every source of weights has to state it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Names are Hugging Face's `model_type`. Mistral without a sliding window is Llama's arithmetic.
SUPPORTED_ARCHITECTURES = ("qwen2", "qwen3", "llama", "mistral")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How the rotary frequencies differ from the plain ones: whatever the published scheme, it comes to this.

    Attributes:
        divisors: what each of the D / 2 plain frequencies is divided by, highest frequency first.
        attention_factor: what cosines and sines are multiplied by (YaRN's temperature; 1 otherwise).
    """

    divisors: tuple[float, ...]
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if not all(0 < divisor < math.inf for divisor in self.divisors):
            raise ValueError("RopeScaling.divisors must be > 0 and finite")
        if not 0 < self.attention_factor < math.inf:
            raise ValueError(f"RopeScaling.attention_factor must be > 0 and finite, not {self.attention_factor}")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer with grouped-query attention.

    Attributes:
        architecture: one of `SUPPORTED_ARCHITECTURES`.
        vocab_size: rows of the embedding table.
        hidden_size: width of the residual stream.
        intermediate_size: width inside the feed-forward layer.
        num_layers: transformer layers.
        num_heads: query heads.
        num_kv_heads: key/value heads; divides `num_heads`.
        head_dim: width of a head, even.
        rms_norm_eps: added to the mean square in RMSNorm.
        rope_theta: base of the rotary frequencies.
        attention_bias: whether the query, key and value products have a bias.
        tie_word_embeddings: whether the output head is the embedding table.
        max_positions: longest context the model was trained for, tokens.
        output_bias: whether the attention's output product has a bias.
        qk_norm: whether each head's query and key is normalised (RMSNorm) before it is rotated.
        rope_scaling: what becomes of the rotary frequencies; None leaves them as they are.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    attention_bias: bool
    tie_word_embeddings: bool
    max_positions: int
    output_bias: bool = False
    qk_norm: bool = False
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.architecture not in SUPPORTED_ARCHITECTURES:
            raise ValueError(f"architecture {self.architecture!r} is not one of {', '.join(SUPPORTED_ARCHITECTURES)}")
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim", "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, not {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, not {self.head_dim}")
        if self.rope_scaling is not None and len(self.rope_scaling.divisors) != self.head_dim // 2:
            raise ValueError(
                f"rope_scaling has {len(self.rope_scaling.divisors)} divisors for {self.head_dim // 2} frequencies"
            )

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """The configuration that `dataclasses.asdict` and JSON made of one."""
        scaling = raw["rope_scaling"]
        if scaling is not None:
            scaling = RopeScaling(tuple(scaling["divisors"]), scaling["attention_factor"])
        return cls(**{**raw, "rope_scaling": scaling})
