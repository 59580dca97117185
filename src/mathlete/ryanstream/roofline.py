"""What a decoding step has to read and compute, and how fast this machine can do either at best.

Knows weights, kernels and memory; knows nothing of requests. Every decoding step reads all weights of the matrix
products once and multiplies each by every row (one row an attempt), so its time is at least the larger of bytes /
bandwidth and operations / peak (Williams, Waterman, Patterson: Roofline, CACM 2009).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.nf4 import NF4_BLOCK, quantize_nf4
from mathlete.ryanstream.model.quantization import INT4_GROUP, pack_bf16, pack_nf4_panels
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.model.weights import ModelWeights, PackedWeight

_READ_BYTES = 1 << 30
# A product whose weights stay in a core's own cache, with as many rows as many attempts have.
_ROWS, _WIDTH, _COLUMNS = 32, 1024, 512
_CALLS = 50


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one decoding step of a model has to do, whatever the machine.

    Attributes:
        num_weights: of all matrix products; each is multiplied once a row.
        weight_bytes: read in a step, scales and norms included; the embedding table is not, few rows of it are read.
        kv_block_bytes: one KV block over all layers.
        kind: of the weights: "int8", "int4", "nf4", "bf16" as the kernels pack them, else "torch".
    """

    num_weights: int
    weight_bytes: int
    kv_block_bytes: int
    kind: str

    @classmethod
    def of(cls, model: Transformer, cache: Sequence[LayerCache]) -> StepWork:
        """The work of a model as it lies in memory."""
        kv_bytes = sum(tensor.nbytes for layer in cache for tensor in _tensors(layer))
        weights, num_blocks = model.weights, cache[0].keys.shape[0]
        kind = weights.head.kind if isinstance(weights.head, PackedWeight) else "torch"
        return cls(num_product_weights(model.config), _weight_bytes(weights), kv_bytes // num_blocks, kind)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What this machine reaches at best, with the threads it was given.

    Attributes:
        read_gb_per_s: 10^9 bytes a second, a sum over 1 GiB.
        peak_gop_per_s: 10^9 operations (two a weight and row) a second of the model's own kernel on weights that stay
            in the cache; None where it has no kernel of ours.
    """

    read_gb_per_s: float
    peak_gop_per_s: float | None

    def step_s(self, work: StepWork, num_rows: int) -> float:
        """Least seconds of a decoding step with one row an attempt; attention and sampling count as nothing."""
        compute_s = 2 * work.num_weights * num_rows / (self.peak_gop_per_s * 1e9) if self.peak_gop_per_s else 0.0
        return max(work.weight_bytes / (self.read_gb_per_s * 1e9), compute_s)


def num_product_weights(shape: ModelConfig) -> int:
    """Weights of all matrix products of a model, its output head included."""
    attention = shape.num_heads * shape.head_dim
    layer = shape.hidden_size * (attention + 2 * shape.num_kv_heads * shape.head_dim)
    layer += attention * shape.hidden_size + 3 * shape.hidden_size * shape.intermediate_size
    return shape.num_layers * layer + shape.vocab_size * shape.hidden_size


def measure_read_gb_per_s(num_threads: int) -> float:
    """Memory read in about a second with `num_threads` threads. For an idle machine."""
    given = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        block = torch.ones(_READ_BYTES // 4)
        return _READ_BYTES / _least_s(block.sum) / 1e9
    finally:
        torch.set_num_threads(given)


def measure_peak_gop_per_s(model: Transformer, kernels: NativeKernels | None) -> float | None:
    """The kernel's peak that runs this model's products now, with the threads it was given; None without kernels."""
    head = model.weights.head
    if kernels is None or not isinstance(head, PackedWeight):
        return None
    product = _cached_product(kernels, head)
    product_s = _least_s(lambda: [product() for _ in range(_CALLS)]) / _CALLS
    return 2 * _ROWS * _WIDTH * _COLUMNS / product_s / 1e9


def _cached_product(kernels: NativeKernels, like: PackedWeight) -> Callable[[], Tensor]:
    """A small product by the kernel that runs `like`; its weights are noise, since its time does not depend on them."""
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, _WIDTH, generator=noise)
    weight = torch.randn(_COLUMNS, _WIDTH, generator=noise)
    match like.kind:
        case "int8":
            packed, scales = kernels.pack_int8(weight)
            rows = kernels.quantize(x)
            return lambda: kernels.gemm_int8(rows, packed, scales, None)
        case "int4":
            packed, rows = kernels.pack_int4(weight), kernels.quantize(x, INT4_GROUP)
            return lambda: kernels.gemm_int4(rows, packed, None, _COLUMNS)
        case "nf4":
            packed, rows = pack_nf4_panels(quantize_nf4(weight)), kernels.quantize(x, NF4_BLOCK)
            return lambda: kernels.gemm_nf4(rows, packed, None, _COLUMNS)
        case "bf16":
            packed, dense_rows = pack_bf16(weight), kernels.to_bf16(x)
            return lambda: kernels.gemm_bf16(dense_rows, packed, None, _COLUMNS)


def _least_s(work: Callable[[], object], repeat: int = 5) -> float:
    """Least seconds of several calls: what the machine can do, not what it does beside others."""
    seconds = []
    for _ in range(repeat):
        start_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start_s)
    return min(seconds)


def _weight_bytes(weights: ModelWeights) -> int:
    read = chain(weights.layers, [weights.head])
    return weights.norm.nbytes + sum(tensor.nbytes for part in read for tensor in _tensors(part))


def _tensors(part: object) -> list[Tensor]:
    """All tensors inside a dataclass of dataclasses."""
    if isinstance(part, Tensor):
        return [part]
    if dataclasses.is_dataclass(part):
        return [t for field in dataclasses.fields(part) for t in _tensors(getattr(part, field.name))]
    return []
