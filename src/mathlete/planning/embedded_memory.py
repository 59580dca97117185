"""Memory of the embedded engine, on a CPU or on one GPU: weights as they lie there, keys, values, and what is beside.

On a CPU the weights are mapped: a page counts once it was read. Every step reads all products, but of the embedding
table only the rows of tokens that occur, each with the pages that the system maps around it. Keys and values are pages
that count once they are written, huge ones where the system has them. `docs/planning.md` compares it with what
processes took.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mathlete.core.errors import InputError
from mathlete.planning.kv_memory import BLOCK_SIZE, KVLayers, kv_layers_per_gpu
from mathlete.planning.model_shape import ModelShape
from mathlete.planning.parallel_weights import Layout, weight_bytes, weight_bytes_per_gpu
from mathlete.planning.weight_formats import EMBEDDED_FORMATS, EMBEDDED_GPU_FORMATS, WeightFormat

MIB = float(1 << 20)

# A process with torch (2.13, CPU), the engine's modules and kernels, and no model: resident, measured. And its
# tokenizer, for each token of the vocabulary: 166 MiB for 151,936 tokens, measured.
_PYTHON_AND_TORCH_BYTES = 240 * MIB
_TOKENIZER_BYTES_PER_TOKEN = 1144
# Places of the embedding table that n tokens of text read, far enough apart to be mapped one by one, are about so many
# times the root of n: frequent tokens have low numbers and lie together. Judged; it was too little to measure.
_DISTINCT_OF_ROOT = 3
_FAULT_AROUND_BYTES = 64 << 10  # Linux maps so much of a cached file around a page that is read
_HUGE_PAGE_BYTES = 2 << 20
_EXPECTED_TOKENS = 2048  # for which the engine makes its cache, a request (`ryanstream.loading`)

# On the device: what CUDA, its libraries and the Triton kernels keep outside torch's allocator (0.74 to 0.76 GiB with
# torch 2.11 on an H200), and what the allocator and the pools of CUDA graphs hold beyond what is used (0.3 to 0.6).
_CUDA_CONTEXT_BYTES = 768 * MIB
_ALLOCATOR_BYTES = 410 * MIB

_FP32 = 4


@dataclass(frozen=True, slots=True)
class EmbeddedMemory:
    """Bytes, by what they are for.

    Attributes:
        weights: that a step reads.
        embedding: of the table, as far as it is there.
        kv: keys and values.
        workspace: of one step: residual stream, products, logits; on a GPU the largest weight that is written out.
        tables: rotary tables, tokenizer, vocabulary.
        base: the process, or CUDA's context.
    """

    weights: float
    embedding: float
    kv: float
    workspace: float
    tables: float
    base: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.embedding + self.kv + self.workspace + self.tables + self.base

    @property
    def fixed(self) -> float:
        """All but keys and values."""
        return self.total - self.kv


@dataclass(frozen=True, slots=True)
class EmbeddedLoad:
    """What the engine is set up for and asked to do.

    Attributes:
        precisions: of the linear layers; more than one where "auto" keeps several.
        kv_cache_dtype: of keys and values.
        attempts: at once.
        prompt: tokens that they share.
        length: tokens of an attempt at its end, prompt included.
        max_step_tokens: rows of a step.
        max_model_len: tokens of an attempt at most.
        huge_pages: whether the system hands out huge pages (Linux: transparent_hugepage is not "never").
    """

    precisions: tuple[str, ...] = ("w8a8",)
    kv_cache_dtype: str = "bf16"
    attempts: int = 8
    prompt: int = 256
    length: int = 1280
    max_step_tokens: int = 256
    max_model_len: int = 4096
    huge_pages: bool = True


def embedded_format(precision: str, on_gpu: bool) -> WeightFormat:
    """How the engine holds weights of a precision. Raises `InputError` where it has no such precision there."""
    known: Mapping[str, WeightFormat] = EMBEDDED_GPU_FORMATS if on_gpu else EMBEDDED_FORMATS
    if precision not in known:
        where = "a GPU" if on_gpu else "a CPU"
        raise InputError(f"the embedded engine has no precision {precision!r} on {where}; it has {', '.join(known)}")
    return known[precision]


def memory_on_cpu(shape: ModelShape, load: EmbeddedLoad) -> EmbeddedMemory:
    """Resident memory of the process once every attempt has its last token."""
    weights = [weight_bytes(shape, embedded_format(precision, on_gpu=False)) for precision in load.precisions]
    kv = kv_layers_per_gpu(shape, load.kv_cache_dtype, Layout())
    tokens = load.prompt + load.attempts * (load.length - load.prompt)
    return EmbeddedMemory(
        weights=sum(one.total - one.embedding for one in weights),
        embedding=max(min(one.embedding, _DISTINCT_OF_ROOT * tokens**0.5 * _FAULT_AROUND_BYTES) for one in weights),
        kv=_written_bytes(kv, load, 2 * shape.num_layers),
        workspace=_workspace_bytes(shape, load),
        tables=_rotary_bytes(shape, load) + shape.vocab_size * _TOKENIZER_BYTES_PER_TOKEN,
        base=_PYTHON_AND_TORCH_BYTES,
    )


def memory_on_gpu(
    shape: ModelShape, load: EmbeddedLoad, kv_blocks: int | None = None, layout: Layout | None = None
) -> EmbeddedMemory:
    """Memory on the fullest device: a cache of `kv_blocks` blocks, there from the start, or of what is asked for."""
    layout = layout or Layout()
    formats = [embedded_format(precision, on_gpu=True) for precision in load.precisions]
    weights = [weight_bytes_per_gpu(shape, packed, layout) for packed in formats]
    kv = kv_layers_per_gpu(shape, load.kv_cache_dtype, layout)
    if kv_blocks is None:
        cache = kv.attempts_bytes(load.attempts, load.prompt, load.length)
    else:
        cache = kv_blocks * BLOCK_SIZE * kv.token_bytes
    return EmbeddedMemory(
        weights=sum(one.total - one.embedding for one in weights),
        embedding=sum(one.embedding for one in weights),
        kv=cache,
        workspace=_workspace_bytes(shape, load) + max(_written_out_bytes(shape, one, layout) for one in formats),
        tables=_rotary_bytes(shape, load),
        base=_CUDA_CONTEXT_BYTES + _ALLOCATOR_BYTES,
    )


def kv_of(shape: ModelShape, kv_cache_dtype: str) -> KVLayers:
    """Keys and values of a token in one process."""
    return kv_layers_per_gpu(shape, kv_cache_dtype, Layout())


def _workspace_bytes(shape: ModelShape, load: EmbeddedLoad) -> float:
    """Of the widest step: residual, normalised rows, queries and keys, both halves of the gate, its product, logits."""
    row = 3 * shape.hidden_size + 2 * shape.query_width + 2 * shape.kv_width + 3 * shape.intermediate_size
    return _FP32 * (load.max_step_tokens * row + 2.0 * load.attempts * shape.vocab_size)


def _written_out_bytes(shape: ModelShape, packed: WeightFormat, layout: Layout) -> float:
    """Of the largest product's weight, gate and up or attention's, which is there in 16 bits while it is multiplied."""
    outputs = max(2 * shape.intermediate_size, shape.query_width + 2 * shape.kv_width)
    return outputs * shape.hidden_size / layout.tensor_parallel * packed.written_out_bytes


def _rotary_bytes(shape: ModelShape, load: EmbeddedLoad) -> float:
    """Cosines and sines in fp32, half a head each."""
    return float(load.max_model_len * shape.head_dim * _FP32)


def _written_bytes(kv: KVLayers, load: EmbeddedLoad, num_tensors: int) -> float:
    """Of the attempts' keys and values. Each layer's keys, and its values, are a mapping of their own.

    A mapping that is large enough is handed out in whole huge pages, from its start on.
    """
    used = kv.attempts_bytes(load.attempts, load.prompt, load.length)
    made_for = max(load.attempts * _EXPECTED_TOKENS, load.max_model_len)
    if not load.huge_pages or made_for * kv.token_bytes / num_tensors < _HUGE_PAGE_BYTES:
        return used
    return num_tensors * math.ceil(used / num_tensors / _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
