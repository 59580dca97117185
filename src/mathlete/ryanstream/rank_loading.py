"""From a model file to one rank's weights and operations: picks kernels and precisions for this machine.

Without tensor parallelism there is one rank, which holds all of the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mathlete.core.errors import ModelError
from mathlete.ryanstream.checkpoint.convert import CheckpointFolder, Progress, ensure_checkpoint
from mathlete.ryanstream.checkpoint.mapped import map_checkpoint
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.kv_cache import blocks_for
from mathlete.ryanstream.machine import available_cores, available_memory_bytes, memory_in_use, processor_name
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.graphed_transformer import GraphedTransformer
from mathlete.ryanstream.model.layer_cache import KV_GROUP
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.native.library import KernelsUnavailable, load_kernels
from mathlete.ryanstream.model.ops import Ops
from mathlete.ryanstream.model.ops_native import NativeOps, native_supports
from mathlete.ryanstream.model.rotary import rotary_tables
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.model.weights import ModelWeights, Precision, assemble_weights, can_be_packed
from mathlete.ryanstream.parallel.collectives import RankGroup
from mathlete.ryanstream.parallel.ops_parallel import ParallelOps
from mathlete.ryanstream.parallel.sharding import shard_config
from mathlete.ryanstream.placement import (
    LARGEST_FIRST,
    DeviceOps,
    gpu_free_bytes,
    gpu_memory_in_use,
    gpu_ops,
    place_weights,
    resolve_device,
    torch_ops,
)
from mathlete.ryanstream.precision import AutoPrecisionManager, PressureLimits, calibrate, remembered_costs
from mathlete.ryanstream.sampling import SampleKernel
from mathlete.ryanstream.speculative.draft_tree import MAX_DRAFT_NODES


@dataclass(frozen=True, slots=True)
class RankTask:
    """What a process needs to know to load its rank's part of a model."""

    model_path: Path
    cache_dir: Path
    config: EngineConfig


@dataclass(frozen=True, slots=True)
class RankModel:
    """One rank's part of a model; all of it without tensor parallelism.

    Attributes:
        shape: of this part.
        weights: of this part; with `precisions`, those to begin with.
        precisions: chooses the weights of each step, or None when there is one precision.
        ops: operations on them, which talk to the other ranks where that is needed.
        kernels: the native kernels if `ops` uses them.
        sampler: what draws tokens on a GPU, or None.
        description: "native", "torch (why not native)", or "triton".
        kv_dtype: of the KV cache.
        checkpoint: where the whole model's shape and tokenizer are.
        graph_blocks: blocks a sequence has at most in a pass that is a CUDA graph; None when none is.
    """

    shape: ModelConfig
    weights: ModelWeights
    precisions: AutoPrecisionManager | None
    ops: Ops
    kernels: NativeKernels | None
    sampler: SampleKernel | None
    description: str
    kv_dtype: torch.dtype
    checkpoint: CheckpointFolder
    graph_blocks: int | None = None

    def transformer(self) -> Transformer:
        """A transformer on these weights."""
        if self.graph_blocks is None:
            return Transformer(self.shape, self.weights, self.ops)
        return GraphedTransformer(self.shape, self.weights, self.ops, self.graph_blocks)


def load_rank(task: RankTask, group: RankGroup | None, progress: Progress) -> RankModel:
    """Load one rank's part of a model in this process; `group` is its place among the ranks, None for all of it.

    Raises:
        ModelError: when the model is damaged, of an unknown kind, or cannot be run or cut as asked.
        StorageError: when the cache cannot be written.
        EngineError: when there is no such device, or it does not run this precision.
    """
    config, cache_dir = task.config, task.cache_dir
    device = resolve_device(config)
    shard = group.shard if group else None
    num_threads = max(1, (config.num_threads or available_cores()) // config.tensor_parallel)
    torch.set_num_threads(num_threads)
    kernels = load_kernels(cache_dir / "kernels")
    compiled = kernels if isinstance(kernels, NativeKernels) else None

    def convert(precision: Precision) -> CheckpointFolder:
        return ensure_checkpoint(task.model_path, cache_dir, precision, compiled, progress, shard)

    first = _first_precision(config, device)
    folders = {first: convert(first)}
    whole = folders[first].config()
    shape = shard_config(whole, shard) if shard else whole
    smaller = _smaller_precision(config, compiled, device, shape)
    if smaller is not None:
        folders = {smaller: convert(smaller), **folders}
    if config.kv_cache_dtype == "int8" and shape.head_dim % KV_GROUP:
        raise ModelError(
            f"an int8 KV cache needs heads of a multiple of {KV_GROUP}, and this model's are {shape.head_dim} wide; "
            "use --kv-cache-dtype bf16"
        )
    precisions = _that_fit(folders, device)
    why_torch = _why_torch(kernels, shape, precisions)
    native = compiled if device.type == "cpu" and why_torch is None else None
    if native is not None:
        native.set_num_threads(num_threads)
        torch.set_num_threads(1)  # it is left with small things; its idle threads would spin on our cores
    on_device = operations_for(config, shape, device, native, why_torch or "")

    def weights_of(precision: Precision) -> ModelWeights:
        tensors = map_checkpoint(folders[precision].weights)
        if device.type == "cuda":
            return place_weights(assemble_weights(shape, tensors, precision), device)
        return assemble_weights(shape, tensors, precision, unpack=native is None)

    manager, ops = None, on_device.ops
    if len(precisions) > 1 and device.type == "cuda":
        manager = AutoPrecisionManager(precisions, weights_of, LARGEST_FIRST, lambda: gpu_memory_in_use(device))
    elif len(precisions) > 1 and native is not None:
        named = f"{folders[precisions[0]].path.name}:{num_threads}:{processor_name()}:{native.name}"
        path = cache_dir / "calibration" / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.json"
        costs = remembered_costs(
            path, precisions, lambda: calibrate(shape, {name: weights_of(name) for name in precisions}, ops)
        )
        manager = AutoPrecisionManager(precisions, weights_of, costs, memory_in_use)
    if group is not None:
        ops = ParallelOps(ops, group, whole.vocab_size)
    return RankModel(
        shape=shape,
        weights=manager.smallest if manager else weights_of(precisions[0]),
        precisions=manager,
        ops=ops,
        kernels=native,
        sampler=on_device.sampler,
        description=on_device.name,
        kv_dtype=_kv_dtype(config),
        checkpoint=folders[precisions[0]],
        graph_blocks=_graph_blocks(config) if on_device.can_be_captured and group is None else None,
    )


def _graph_blocks(config: EngineConfig) -> int | None:
    """Blocks of the longest sequence with the largest draft; None where graphs are switched off."""
    return blocks_for(config.max_model_len + MAX_DRAFT_NODES) if config.cuda_graphs else None


def operations_for(
    config: EngineConfig, shape: ModelConfig, device: torch.device, native: NativeKernels | None, why_torch: str
) -> DeviceOps:
    """The operations of a model of this shape on `device`; `why_torch` says why there are no native kernels."""
    rotary = rotary_tables(config.max_model_len, shape.head_dim, shape.rope_theta, shape.rope_scaling)
    if device.type == "cuda":
        return gpu_ops(shape, rotary, device)
    if native is not None:
        return DeviceOps(NativeOps(shape, rotary, native), None, "native")
    return torch_ops(shape, rotary, config.compile_torch, why_torch)


def _first_precision(config: EngineConfig, device: torch.device) -> Precision:
    """The precision that is asked for; of "auto", the one for many rows."""
    if config.precision != "auto":
        return config.precision
    return "w8a8" if device.type == "cpu" else "bf16"


def _smaller_precision(
    config: EngineConfig, compiled: NativeKernels | None, device: torch.device, shape: ModelConfig
) -> Precision | None:
    """What "auto" has beside it. Where the native kernels do not run, 4-bit weights are no faster: None."""
    if config.precision != "auto":
        return None
    if device.type == "cuda":
        return "nf4"
    runs = compiled is not None and native_supports(shape) and can_be_packed(shape, "int4")
    return "int4" if runs else None


def _that_fit(folders: Mapping[Precision, CheckpointFolder], device: torch.device) -> tuple[Precision, ...]:
    """All of them, smallest first; the smallest alone when all would take more than is free by `PressureLimits`."""
    precisions = tuple(folders)
    free = gpu_free_bytes(device) if device.type == "cuda" else available_memory_bytes() * (1 - memory_in_use())
    together = sum(folder.weights.stat().st_size for folder in folders.values())
    return precisions if together < PressureLimits().high * free else precisions[:1]


def _why_torch(
    kernels: NativeKernels | KernelsUnavailable, shape: ModelConfig, precisions: tuple[Precision, ...]
) -> str | None:
    """Why the native kernels do not run this model, or None."""
    if isinstance(kernels, KernelsUnavailable):
        return kernels.reason
    if not native_supports(shape):
        return "the model's shape does not fit them"
    if "fp32" in precisions:
        return "they do not run fp32"
    if "bf16" in precisions and not kernels.has_bf16:
        return "this processor lacks avx512_bf16"
    return None


def _kv_dtype(config: EngineConfig) -> torch.dtype:
    if config.precision == "fp32":
        return torch.float32
    return torch.int8 if config.kv_cache_dtype == "int8" else torch.bfloat16
