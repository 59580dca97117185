"""Where a model runs: the device a name means, a model's weights on it, and the operations it has there.

The CPU's native kernels are no concern of this module; `loading.py` prefers them on the CPU.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.core.errors import EngineError
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.nf4 import pack_nf4
from mathlete.ryanstream.model.ops import Ops
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.quantization import unpack_nf4_panels
from mathlete.ryanstream.model.rotary import RotaryTables
from mathlete.ryanstream.model.weights import (
    HeadNorms,
    LayerWeights,
    LinearWeight,
    ModelWeights,
    Nf4Weight,
    PackedWeight,
    Precision,
    unpacked,
)

# Triton takes its time to import and is of no use without CUDA, so the CPU's path never imports it.
HAS_TRITON = torch.cuda.is_available() and find_spec("triton") is not None
if HAS_TRITON:
    from mathlete.ryanstream.model.ops_triton import TritonOps
    from mathlete.ryanstream.model.triton.sample import TritonSampler

GPU_PRECISIONS: tuple[Precision, ...] = ("bf16", "nf4", "fp32")
_DEVICE_NAME = re.compile(r"cpu|cuda(:\d+)?")


class GpuOps(NamedTuple):
    """What a model computes with on a GPU: its operations, what draws its tokens (None: torch), and their name."""

    ops: Ops
    sampler: SampleKernel | None
    kernels: str


def check_device_name(name: str) -> None:
    """Raise `ValueError` unless `name` is "cpu", "cuda" or "cuda:N"; whether there is one is another question."""
    if not _DEVICE_NAME.fullmatch(name):
        raise ValueError(f"device must be cpu, cuda or cuda:N, not {name!r}")


def resolve_device(name: str, precision: Precision) -> torch.device:
    """The device `name` means, for a model in `precision`.

    Raises:
        ValueError: when it is not the name of a device.
        EngineError: when this machine has no such device, or the precision does not run on it.
    """
    check_device_name(name)
    device = torch.device(name)
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise EngineError(
            f"device {name} was asked for, but torch {torch.__version__} sees no CUDA here; use device cpu, or install "
            "NVIDIA's driver and a CUDA build of torch"
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise EngineError(f"device {name} was asked for, but there are only {torch.cuda.device_count()} GPUs, from 0")
    if precision not in GPU_PRECISIONS:
        raise EngineError(f"precision {precision} runs on the CPU only; on {name} use {', '.join(GPU_PRECISIONS)}")
    return device


def gpu_ops(config: ModelConfig, rotary: RotaryTables, device: torch.device) -> GpuOps:
    """The operations on `device`: Triton's kernels, or plain torch where Triton is not installed."""
    tables = RotaryTables(rotary.cosines.to(device), rotary.sines.to(device))
    if HAS_TRITON:
        return GpuOps(TritonOps(config, tables), TritonSampler(), "triton")
    return GpuOps(TorchOps(config, tables), None, "torch (triton is not installed)")


def place_weights(weights: ModelWeights, device: torch.device, keep_nf4: bool = HAS_TRITON) -> ModelWeights:
    """Copy a packed or dense model to `device`, layer by layer, in the form its operations there take.

    bf16 and fp32 become dense; NF4 stays NF4 in the Triton product's layout when `keep_nf4`, else dense bf16.
    """

    def linear(weight: LinearWeight) -> LinearWeight:
        if isinstance(weight, PackedWeight):
            weight = nf4_weight(weight) if weight.kind == "nf4" and keep_nf4 else unpacked(weight)
        changes = {name: part.to(device) for name, part in _tensors(weight)}
        return replace(weight, **changes)

    def layer(old: LayerWeights) -> LayerWeights:
        norms = old.head_norms
        return LayerWeights(
            input_norm=old.input_norm.to(device),
            qkv=linear(old.qkv),
            out=linear(old.out),
            post_norm=old.post_norm.to(device),
            gate_up=linear(old.gate_up),
            down=linear(old.down),
            head_norms=None if norms is None else HeadNorms(norms.query.to(device), norms.key.to(device)),
        )

    return ModelWeights(
        embedding=weights.embedding.to(device),
        layers=tuple(layer(old) for old in weights.layers),
        norm=weights.norm.to(device),
        head=linear(weights.head),
    )


def nf4_weight(weight: PackedWeight) -> Nf4Weight:
    """NF4 panels of the native kernels in the layout of `nf4.py`, on the CPU."""
    rows = unpack_nf4_panels(weight.packed, weight.num_out)
    return Nf4Weight(pack_nf4(rows.codes), rows.absmax.contiguous(), weight.bias)


def _tensors(weight: LinearWeight) -> list[tuple[str, Tensor]]:
    parts = ((field.name, getattr(weight, field.name)) for field in fields(weight))
    return [(name, part) for name, part in parts if isinstance(part, Tensor)]
