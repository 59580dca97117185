"""What vLLM does with the memory of a GPU: a part of it is its own, and what weights and work leave is keys and values.

    keys and values = gpu_memory_utilization * memory - weights - work - runtime - graphs        (`gpu_worker.py`)

*Work* is the peak of a step that vLLM profiles at its start: either the widest step's activations, or the sampler's
copies of the logits of as many requests as may run. Both are counted here as the number of 16-bit and 32-bit copies
that fit what vLLM logged in the deployments of `docs/planning.md`; the same numbers for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mathlete.planning.hardware import GIB, Accelerator
from mathlete.planning.model_shape import ModelShape
from mathlete.planning.parallel_weights import Layout

# Of the residual stream's width: residual, normalised, attention's input and output, and what the compiler keeps.
_RESIDUAL_COPIES = 6
# Of the feed-forward width: gate and up, and their product.
_INNER_COPIES = 3
_BF16 = 2
# Sorted values, their places, probabilities, sums: what sampling with top-p holds of a logit, about ten float32.
_BYTES_PER_LOGIT = 40

# CUDA's context and libraries beyond torch's allocator, and NCCL's buffers where GPUs share layers. Logged: 0.05 to
# 0.14 GiB on one GPU, 0.25 to 0.74 GiB on two.
_RUNTIME_BYTES = 0.15 * GIB
_NCCL_BYTES = 0.3 * GIB
# Logged: 0.3 to 3.2 GiB, by number of captured sizes; since vLLM 0.19 they are part of the budget.
_GRAPH_BYTES = 0.8 * GIB


@dataclass(frozen=True, slots=True)
class VLLMLimits:
    """How much vLLM may do at once.

    Attributes:
        gpu_memory_utilization: part of each GPU's memory that is its own.
        max_num_seqs: requests that run at once.
        max_num_batched_tokens: tokens of a step.
        enforce_eager: no CUDA graphs.
        graphs_in_budget: whether graphs come out of the budget (vLLM from 0.19 on) or on top of it.
    """

    gpu_memory_utilization: float = 0.92
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    enforce_eager: bool = False
    graphs_in_budget: bool = True


@dataclass(frozen=True, slots=True)
class VLLMMemory:
    """Bytes on the fullest GPU, by what they are for.

    Attributes:
        budget: vLLM's part of the GPU.
        weights: of the model.
        work: the peak of a step.
        runtime: CUDA and NCCL.
        graphs: CUDA graphs.
        kv_room: what is left for keys and values; negative when nothing is.
    """

    budget: float
    weights: float
    work: float
    runtime: float
    graphs: float
    kv_room: float


def default_limits(accelerator: Accelerator) -> tuple[int, int]:
    """`max_num_seqs` and `max_num_batched_tokens` where nobody says (vLLM 0.32, `EngineArgs.get_batch_defaults`)."""
    if accelerator.memory_gib >= 160 or (accelerator.memory_gib >= 70 and not accelerator.name.startswith("a100")):
        return 1024, 16384
    return 256, 8192


def work_bytes(shape: ModelShape, layout: Layout, limits: VLLMLimits) -> float:
    """The peak of a step beside weights and keys: of its activations, or of its sampler."""
    if shape.experts is None:
        inner = shape.intermediate_size / layout.tensor_parallel
    else:
        inner = shape.experts.num_per_token * shape.experts.intermediate_size / layout.tensor_parallel
    row = _INNER_COPIES * inner + _RESIDUAL_COPIES * shape.hidden_size
    activations = limits.max_num_batched_tokens * row * _BF16
    sampled = min(limits.max_num_seqs, limits.max_num_batched_tokens)
    return max(activations, float(sampled * shape.vocab_size * _BYTES_PER_LOGIT))


def vllm_memory(
    shape: ModelShape, layout: Layout, limits: VLLMLimits, accelerator: Accelerator, weights: float
) -> VLLMMemory:
    """How vLLM shares out the fullest GPU. `weights`: bytes of them there."""
    budget = limits.gpu_memory_utilization * accelerator.memory_bytes
    work = work_bytes(shape, layout, limits)
    runtime = _RUNTIME_BYTES + (_NCCL_BYTES if layout.gpus_per_copy > 1 else 0.0)
    graphs = 0.0 if limits.enforce_eager or not limits.graphs_in_budget else _GRAPH_BYTES
    return VLLMMemory(
        budget=budget,
        weights=weights,
        work=work,
        runtime=runtime,
        graphs=graphs,
        kv_room=budget - weights - work - runtime - graphs,
    )


def rotary_cache_bytes(shape: ModelShape) -> float:
    """Cosines and sines of every position in 16 bits, which each GPU holds beside its weights."""
    return float(shape.max_positions * shape.head_dim * _BF16)


def mxfp4_padding(shape: ModelShape, tensor_parallel: int) -> float:
    """By what vLLM's Marlin and TensorRT-LLM kernels widen MXFP4 experts: their widths go up to multiples.

    The residual stream's side to 256, the inner side of each GPU to 128 (`oracle/mxfp4.py`); other kernels less.
    """
    if shape.experts is None:
        return 1.0
    inner = shape.experts.intermediate_size / tensor_parallel
    return _rounded(shape.hidden_size, 256) / shape.hidden_size * _rounded(inner, 128) / inner


def _rounded(width: float, multiple: int) -> float:
    return math.ceil(width / multiple) * multiple
