"""The shape of a published model, and how many weights each of its parts has. Knows no bytes, files or machines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Experts:
    """The feed-forward layers of a mixture of experts.

    Attributes:
        num_experts: in a layer.
        num_per_token: that a token goes through.
        intermediate_size: width inside one expert.
        shared_intermediate_size: width of the expert that every token goes through; 0 for none.
    """

    num_experts: int
    num_per_token: int
    intermediate_size: int
    shared_intermediate_size: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("num_experts", "num_per_token", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"Experts.{name} must be >= 1, not {getattr(self, name)}")
        if self.num_per_token > self.num_experts:
            raise ValueError(f"Experts.num_per_token must be <= num_experts, not {self.num_per_token}")
        if self.shared_intermediate_size < 0:
            raise ValueError(f"Experts.shared_intermediate_size must be >= 0, not {self.shared_intermediate_size}")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder-only transformer with grouped-query attention, dense or of experts.

    Attributes:
        name: as its publisher calls it.
        architecture: Hugging Face's `model_type`.
        vocab_size: rows of the embedding table.
        hidden_size: width of the residual stream.
        intermediate_size: width inside a dense feed-forward layer.
        num_layers: transformer layers.
        num_heads: query heads.
        num_kv_heads: key/value heads; divides `num_heads`.
        head_dim: width of a head.
        tie_word_embeddings: whether the output head is the embedding table.
        max_positions: longest context, tokens.
        attention_bias: whether the query, key and value products have a bias.
        output_bias: whether the attention's output product has one.
        qk_norm: whether heads are normalised.
        sliding_window: tokens that a sliding layer sees; None where all layers see everything.
        num_sliding_layers: how many layers slide.
        experts: in place of dense feed-forward layers; None for a dense model.
        expert_bias: whether the experts and their router have biases (gpt-oss).
        attention_sinks: whether each head has a learnt sink (gpt-oss).
        published_format: in which the weights are published, a name of `weight_formats.FORMATS`.
        source: where the figures come from.
    """

    name: str
    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    tie_word_embeddings: bool
    max_positions: int
    attention_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    num_sliding_layers: int = 0
    experts: Experts | None = None
    expert_bias: bool = False
    attention_sinks: bool = False
    published_format: str = "bf16"
    source: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim", "max_positions"):
            if not 1 <= getattr(self, name) <= 1 << 30:
                raise ValueError(f"{name} must be from 1 to 2^30, not {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        if not 0 <= self.num_sliding_layers <= self.num_layers:
            raise ValueError(f"num_sliding_layers must be from 0 to num_layers, not {self.num_sliding_layers}")
        if (self.sliding_window is None) != (self.num_sliding_layers == 0):
            raise ValueError("sliding_window and num_sliding_layers go together")

    @property
    def num_full_layers(self) -> int:
        """Layers that see the whole context."""
        return self.num_layers - self.num_sliding_layers

    @property
    def query_width(self) -> int:
        """Width of all query heads."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many weights the parts of a model have.

    Attributes:
        embedding: of the table of token vectors.
        head: of the output head as a product; not stored a second time when it is tied.
        head_is_stored: whether the head has weights of its own.
        attention: of the products of all attention layers.
        feed_forward: of all dense feed-forward products, shared experts included.
        experts: of all experts.
        active_experts: of the experts that one token goes through.
        unquantized: norms, biases, routers and sinks, which stay as published in every format.
    """

    embedding: int
    head: int
    head_is_stored: bool
    attention: int
    feed_forward: int
    experts: int
    active_experts: int
    unquantized: int

    @property
    def linear(self) -> int:
        """Weights that a format of dense linear layers packs."""
        return self.attention + self.feed_forward

    @property
    def total(self) -> int:
        """All weights that are stored, as publishers count them."""
        stored_head = self.head if self.head_is_stored else 0
        return self.embedding + stored_head + self.linear + self.experts + self.unquantized

    @property
    def active(self) -> int:
        """Weights that one token is multiplied with; of the embedding only a row is read."""
        return self.linear + self.active_experts + self.head


def count_parameters(shape: ModelShape) -> Parameters:
    """Count the weights of a model from its shape, tensor by tensor."""
    hidden, layers = shape.hidden_size, shape.num_layers
    attention = hidden * (shape.query_width + 2 * shape.kv_width) + shape.query_width * hidden
    unquantized = hidden + layers * _small_tensors(shape)
    if shape.experts is None:
        feed_forward, experts, active = 3 * hidden * shape.intermediate_size, 0, 0
    else:
        one = 3 * hidden * shape.experts.intermediate_size
        experts, active = shape.experts.num_experts * one, shape.experts.num_per_token * one
        feed_forward = 3 * hidden * shape.experts.shared_intermediate_size
    table = shape.vocab_size * hidden
    return Parameters(
        embedding=table,
        head=table,
        head_is_stored=not shape.tie_word_embeddings,
        attention=layers * attention,
        feed_forward=layers * feed_forward,
        experts=layers * experts,
        active_experts=layers * active,
        unquantized=unquantized,
    )


def _small_tensors(shape: ModelShape) -> int:
    """Norms, biases, the router and the sinks of a layer."""
    count = 2 * shape.hidden_size
    if shape.attention_bias:
        count += shape.query_width + 2 * shape.kv_width
    if shape.output_bias:
        count += shape.hidden_size
    if shape.qk_norm:
        count += 2 * shape.head_dim
    if shape.attention_sinks:
        count += shape.num_heads
    if shape.experts is not None:
        count += shape.hidden_size * shape.experts.num_experts
        if shape.expert_bias:
            count += shape.experts.num_experts * (1 + 2 * shape.experts.intermediate_size + shape.hidden_size)
    return count
