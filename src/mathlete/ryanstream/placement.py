"""Where a model runs: the device a name means, a model's weights on it, and the operations it has there.

The CPU's native kernels are no concern of this module; `rank_loading.py` prefers them on the CPU.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import torch

from mathlete.core.errors import EngineError
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.nf4 import pack_nf4
from mathlete.ryanstream.model.ops import Ops
from mathlete.ryanstream.model.ops_compiled import CompileUnavailable, compiled_ops
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.quantization import unpack_nf4_panels
from mathlete.ryanstream.model.rotary import RotaryTables
from mathlete.ryanstream.model.weights import (
    DenseWeight,
    HeadNorms,
    LayerWeights,
    LinearWeight,
    ModelWeights,
    Nf4Weight,
    PackedWeight,
    PlainInt8Weight,
    unpacked,
)
from mathlete.ryanstream.precision import CALIBRATION_ROWS, StepCosts
from mathlete.ryanstream.sampling import SampleKernel

# Triton takes its time to import and is of no use without CUDA, so the CPU's path never imports it.
HAS_TRITON = torch.cuda.is_available() and find_spec("triton") is not None
if HAS_TRITON:
    from mathlete.ryanstream.model.ops_triton import TritonOps
    from mathlete.ryanstream.model.triton.sample import TritonSampler

GPU_PRECISIONS = ("bf16", "nf4", "fp32", "auto")
# What "auto" means on a GPU: bf16 as long as there is memory for it, whatever the number of rows (SPEC A5).
LARGEST_FIRST = StepCosts({"nf4": (1.0,) * len(CALIBRATION_ROWS), "bf16": (0.0,) * len(CALIBRATION_ROWS)})


class DeviceOps(NamedTuple):
    """What a model computes with: its operations, what draws its tokens (None: torch), and a name for people.

    `can_be_captured`: whether its passes can be CUDA graphs.
    """

    ops: Ops
    sampler: SampleKernel | None
    name: str
    can_be_captured: bool = False


def resolve_device(config: EngineConfig) -> torch.device:
    """The device that is asked for.

    Raises:
        EngineError: when this machine has no such device, or what else is asked for does not run on it.
    """
    name, device = config.device, torch.device(config.device)
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise EngineError(
            f"device {name} was asked for, but torch {torch.__version__} sees no CUDA here; use device cpu, or install "
            "NVIDIA's driver and a CUDA build of torch"
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise EngineError(f"device {name} was asked for, but there are only {torch.cuda.device_count()} GPUs, from 0")
    if config.precision not in GPU_PRECISIONS:
        raise EngineError(
            f"precision {config.precision} runs on the CPU only; on {name} use {', '.join(GPU_PRECISIONS)}"
        )
    if config.kv_cache_dtype == "int8":
        raise EngineError(f"an int8 KV cache is for the CPU only; on {name} use bf16")
    return device


def gpu_ops(config: ModelConfig, rotary: RotaryTables, device: torch.device) -> DeviceOps:
    """The operations on a GPU: Triton's kernels, or plain torch where Triton is not installed."""
    tables = RotaryTables(rotary.cosines.to(device), rotary.sines.to(device))
    if HAS_TRITON:
        return DeviceOps(TritonOps(config, tables), TritonSampler(), "triton", can_be_captured=True)
    return DeviceOps(TorchOps(config, tables), None, "torch (triton is not installed)")


def torch_ops(config: ModelConfig, rotary: RotaryTables, compile_torch: bool, why_torch: str) -> DeviceOps:
    """Plain torch on the CPU, its elementwise paths compiled when that is asked for and works here."""
    if not compile_torch:
        return DeviceOps(TorchOps(config, rotary), None, f"torch ({why_torch})")
    compiled = compiled_ops(config, rotary)
    if isinstance(compiled, CompileUnavailable):
        return DeviceOps(TorchOps(config, rotary), None, f"torch ({why_torch}; {compiled.reason})")
    return DeviceOps(compiled, None, f"torch compiled ({why_torch})")


def gpu_free_bytes(device: torch.device) -> int:
    """Memory of a GPU that is free now."""
    return torch.cuda.mem_get_info(device)[0]


def gpu_memory_in_use(device: torch.device) -> float:
    """Share of a GPU's memory in use, by whomever, in [0, 1]; what torch keeps for later counts as free."""
    free, total = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return 1 - (free + kept) / total


def place_weights(weights: ModelWeights, device: torch.device, keep_nf4: bool = HAS_TRITON) -> ModelWeights:
    """Copy a packed or dense model to `device`, layer by layer, in the form its operations there take.

    bf16 and fp32 become dense; NF4 stays NF4 in the Triton product's layout when `keep_nf4`, else dense bf16.
    """

    def layer(old: LayerWeights) -> LayerWeights:
        norms = old.head_norms
        return LayerWeights(
            input_norm=old.input_norm.to(device),
            qkv=_placed(old.qkv, device, keep_nf4),
            out=_placed(old.out, device, keep_nf4),
            post_norm=old.post_norm.to(device),
            gate_up=_placed(old.gate_up, device, keep_nf4),
            down=_placed(old.down, device, keep_nf4),
            head_norms=None if norms is None else HeadNorms(norms.query.to(device), norms.key.to(device)),
        )

    return ModelWeights(
        embedding=weights.embedding.to(device),
        layers=tuple(layer(old) for old in weights.layers),
        norm=weights.norm.to(device),
        head=_placed(weights.head, device, keep_nf4),
    )


def _placed(weight: LinearWeight, device: torch.device, keep_nf4: bool) -> LinearWeight:
    bias = None if weight.bias is None else weight.bias.to(device)
    if isinstance(weight, PackedWeight) and weight.kind == "nf4" and keep_nf4:
        rows = unpack_nf4_panels(weight.packed, weight.num_out)
        return Nf4Weight(pack_nf4(rows.codes).to(device), rows.absmax.contiguous().to(device), bias)
    if isinstance(weight, PackedWeight):
        weight = unpacked(weight)
    if isinstance(weight, PlainInt8Weight):  # NF4's head
        weight = DenseWeight((weight.codes.float() * weight.scales[:, None]).bfloat16(), weight.bias)
    if not isinstance(weight, DenseWeight):
        raise TypeError(f"{type(weight).__name__} has no form on {device}")
    return DenseWeight(weight.weight.to(device), bias)
