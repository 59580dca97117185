"""What of a model's weights lies on each GPU under tensor and pipeline parallelism. Knows shapes and formats.

Tensor parallelism of t cuts every product in t parts, the key and value heads as well as long as there are t of them
(each GPU holds at least one), and the vocabulary, padded to a multiple of 64 (vLLM's
`DEFAULT_VOCAB_PADDING_SIZE`). Norms, biases, routers and sinks lie on every GPU. Pipeline parallelism of p gives each
stage 1/p of the layers; the first has the embedding table, the last the head. What is told is the fullest GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mathlete.planning.model_shape import ModelShape, count_parameters
from mathlete.planning.weight_formats import WeightFormat

_VOCABULARY_PADDING = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """How an engine is spread over GPUs.

    Attributes:
        tensor_parallel: GPUs that share each layer.
        pipeline_parallel: groups of them that share the layers.
        data_parallel: copies of the whole.
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("tensor_parallel", "pipeline_parallel", "data_parallel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, not {getattr(self, name)}")

    @property
    def gpus_per_copy(self) -> int:
        """GPUs of one copy."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def num_gpus(self) -> int:
        """GPUs of all copies."""
        return self.gpus_per_copy * self.data_parallel


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes of the weights on one GPU, or of a whole model.

    Attributes:
        embedding: the table of token vectors.
        head: the output head, when it is stored apart.
        attention: packed or not, scales included.
        feed_forward: dense feed-forward layers.
        experts: all of them that lie here.
        unquantized: norms, biases, routers, sinks.
    """

    embedding: float
    head: float
    attention: float
    feed_forward: float
    experts: float
    unquantized: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.embedding + self.head + self.attention + self.feed_forward + self.experts + self.unquantized


def layout_problem(shape: ModelShape, layout: Layout, group: int = 0) -> str | None:
    """Why a model cannot be cut so, in a person's words; None when it can.

    Args:
        shape: of the model.
        layout: over GPUs.
        group: inputs of a product that share scales and must stay together; 0 for none.
    """
    t, p = layout.tensor_parallel, layout.pipeline_parallel
    if shape.num_heads % t:
        return f"tensor parallelism of {t} does not divide the {shape.num_heads} query heads of {shape.name}"
    if shape.num_kv_heads % t and t % shape.num_kv_heads:
        return f"tensor parallelism of {t} and the {shape.num_kv_heads} key heads of {shape.name} do not divide"
    widths = [shape.intermediate_size] if shape.experts is None else [shape.experts.intermediate_size]
    if any(width % t for width in widths):
        return f"tensor parallelism of {t} does not divide the feed-forward width {widths[0]} of {shape.name}"
    if group and t > 1 and any(width // t % group for width in widths):
        return (
            f"tensor parallelism of {t} cuts through groups of {group} inputs: the feed-forward width {widths[0]} of "
            f"{shape.name} is no multiple of {group * t} (Qwen publishes its 72B in AWQ and GPTQ widened to 29696)"
        )
    if p > shape.num_layers:
        return f"pipeline parallelism of {p} is more than the {shape.num_layers} layers of {shape.name}"
    return None


def kv_heads_per_gpu(shape: ModelShape, tensor_parallel: int) -> int:
    """Key heads that each GPU holds: its part of them, or a copy of one where there are fewer than GPUs."""
    return max(1, shape.num_kv_heads // tensor_parallel)


def weight_bytes(shape: ModelShape, packed: WeightFormat) -> WeightBytes:
    """Bytes of a whole model's weights in a format."""
    counted = count_parameters(shape)
    head_is_there = counted.head_is_stored or packed.copies_tied_head
    return WeightBytes(
        embedding=counted.embedding * packed.embedding_bytes,
        head=counted.head * packed.head_bytes if head_is_there else 0.0,
        attention=counted.attention * packed.dense_bytes,
        feed_forward=counted.feed_forward * packed.dense_bytes,
        experts=counted.experts * packed.expert_bytes,
        unquantized=counted.unquantized * packed.unquantized_bytes,
    )


def weight_bytes_per_gpu(
    shape: ModelShape, packed: WeightFormat, layout: Layout, expert_padding: float = 1.0
) -> WeightBytes:
    """Bytes of the weights on the fullest GPU of one copy.

    Args:
        shape: of the model.
        packed: the format.
        layout: over GPUs.
        expert_padding: by what the engine's kernels widen the experts.
    """
    whole = weight_bytes(shape, packed)
    t, p = layout.tensor_parallel, layout.pipeline_parallel
    layers = math.ceil(shape.num_layers / p) / shape.num_layers
    padded = math.ceil(shape.vocab_size / _VOCABULARY_PADDING) * _VOCABULARY_PADDING / shape.vocab_size
    kept = kv_heads_per_gpu(shape, t) * shape.head_dim
    attention_here = (2 * shape.query_width / t + 2 * kept) / (2 * shape.query_width + 2 * shape.kv_width)
    embedding, head = whole.embedding * padded / t, whole.head * padded / t
    if p > 1:  # they lie on different stages; a tied head is the table once more
        last = head if whole.head else embedding
        embedding, head = (embedding, 0.0) if embedding >= last else (0.0, last)
    return WeightBytes(
        embedding=embedding,
        head=head,
        attention=whole.attention * layers * attention_here,
        feed_forward=whole.feed_forward * layers / t,
        experts=whole.experts * layers / t * expert_padding,
        unquantized=whole.unquantized * layers,
    )
