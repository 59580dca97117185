"""Which tensors a model of a given shape has, and whether a source holds them. Nothing is read to find out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mathlete.core.errors import ModelError
from mathlete.ryanstream.checkpoint.source import WeightSource
from mathlete.ryanstream.model.config import ModelConfig


class TensorShape(NamedTuple):
    """A tensor's name in Hugging Face's `LlamaForCausalLM` and its shape."""

    name: str
    shape: tuple[int, ...]


def expected_tensors(config: ModelConfig) -> Iterator[TensorShape]:
    """All tensors of a model, in the order of its layers."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    yield TensorShape("model.embed_tokens.weight", (config.vocab_size, hidden))
    for i in range(config.num_layers):
        layer, attention = f"model.layers.{i}", f"model.layers.{i}.self_attn"
        yield TensorShape(f"{layer}.input_layernorm.weight", (hidden,))
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield TensorShape(f"{attention}.{part}_proj.weight", (rows, hidden))
            if config.attention_bias:
                yield TensorShape(f"{attention}.{part}_proj.bias", (rows,))
            if config.qk_norm and part != "v":
                yield TensorShape(f"{attention}.{part}_norm.weight", (config.head_dim,))
        yield TensorShape(f"{attention}.o_proj.weight", (hidden, queries))
        if config.output_bias:
            yield TensorShape(f"{attention}.o_proj.bias", (hidden,))
        yield TensorShape(f"{layer}.post_attention_layernorm.weight", (hidden,))
        yield TensorShape(f"{layer}.mlp.gate_proj.weight", (inner, hidden))
        yield TensorShape(f"{layer}.mlp.up_proj.weight", (inner, hidden))
        yield TensorShape(f"{layer}.mlp.down_proj.weight", (hidden, inner))
    yield TensorShape("model.norm.weight", (hidden,))
    if not config.tie_word_embeddings:
        yield TensorShape("lm_head.weight", (config.vocab_size, hidden))


def check_tensors(source: WeightSource) -> None:
    """Raise `ModelError` naming the first tensor that the source lacks or has in another shape."""
    for name, expected in expected_tensors(source.config):
        found = source.shape(name)
        if found is None:
            raise ModelError(
                f"{source.path} has no tensor {name!r}, which its configuration calls for; "
                "a file may be missing or belong to another model: fetch the model again"
            )
        if found != expected:
            raise ModelError(
                f"{source.path} has tensor {name!r} in shape {list(found)}, but its configuration says "
                f"{list(expected)}; the files do not belong together: fetch the model again"
            )
