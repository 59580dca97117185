"""The shape of a model, as every source of weights has to state it."""

from __future__ import annotations

from dataclasses import dataclass

SUPPORTED_ARCHITECTURES = ("qwen2",)


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
