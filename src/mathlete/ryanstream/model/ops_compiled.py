"""Plain torch with its elementwise paths fused by `torch.compile`; twin: `TorchOps`, whose products it keeps.

Fused are RMSNorm with the rounding to the product's type, SwiGLU likewise, the rotation of queries and keys, and
bias and residual after a product. The number of rows is dynamic: one compilation serves every batch, and torch
makes a second one for a single row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.ops_torch import TorchOps, rms_norm
from mathlete.ryanstream.model.rotary import RotaryTables
from mathlete.ryanstream.model.weights import DenseWeight, LinearWeight

# What `torch.compile` calls with a graph and example inputs, for a function that computes it.
Backend = Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., Any]]


_REASON_WORDS = 30  # of an error that goes on with torch's advice


@dataclass(frozen=True, slots=True)
class CompileUnavailable:
    """Why `torch.compile` cannot be used here."""

    reason: str


def norm_as(x: Tensor, norm: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """RMSNorm of x float32 [M, K], as `dtype`."""
    return rms_norm(x, norm, eps).to(dtype)


def swiglu_as(gate_up: Tensor, dtype: torch.dtype) -> Tensor:
    """silu(gate) * up of gate_up float32 [M, 2 I], as `dtype` [M, I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return (F.silu(gate) * up).to(dtype)


def add_all(product: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    """A product [M, N] of any type, plus what there is of bias [N] and residual [M, N], in float32."""
    total = product.float()
    if bias is not None:
        total = total + bias
    return total if residual is None else residual + total


class CompiledOps(TorchOps):
    """`Ops` in torch, fused where the weights are dense. Not to be built directly: `compiled_ops`."""

    def __init__(self, config: ModelConfig, rotary: RotaryTables, backend: str | Backend = "inductor") -> None:
        """Wrap the fused paths; each compiles, with torch's `backend`, when it first runs."""
        super().__init__(config, rotary)
        self._norm_as = torch.compile(norm_as, dynamic=True, backend=backend)
        self._swiglu_as = torch.compile(swiglu_as, dynamic=True, backend=backend)
        self._add_all = torch.compile(add_all, dynamic=True, backend=backend)
        self._fused_rotate = torch.compile(super()._rotate, dynamic=True, backend=backend)

    def norm_linear(self, x: Tensor, norm: Tensor, weight: LinearWeight) -> Tensor:
        """See `Ops.norm_linear`."""
        if not isinstance(weight, DenseWeight):
            return super().norm_linear(x, norm, weight)
        rows = self._norm_as(x, norm, self._config.rms_norm_eps, weight.weight.dtype)
        return self._add_all(F.linear(rows, weight.weight), weight.bias, None)

    def linear_add(self, x: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.linear_add`."""
        if not isinstance(weight, DenseWeight):
            return super().linear_add(x, weight, residual)
        return self._add_all(F.linear(x.to(weight.weight.dtype), weight.weight), weight.bias, residual)

    def swiglu_linear_add(self, gate_up: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.swiglu_linear_add`."""
        if not isinstance(weight, DenseWeight):
            return super().swiglu_linear_add(gate_up, weight, residual)
        rows = self._swiglu_as(gate_up, weight.weight.dtype)
        return self._add_all(F.linear(rows, weight.weight), weight.bias, residual)

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return self._fused_rotate(x, positions)


def compiled_ops(
    config: ModelConfig, rotary: RotaryTables, backend: str | Backend = "inductor"
) -> CompiledOps | CompileUnavailable:
    """The fused operations, once one of them has been compiled and run here; else why not (no compiler, say)."""
    ops = CompiledOps(config, rotary, backend)
    rows = torch.ones((2, 64), device=rotary.cosines.device)
    try:
        ops._swiglu_as(rows, torch.bfloat16)
    except (RuntimeError, OSError) as error:  # what Dynamo, Inductor and a missing C++ compiler raise
        return CompileUnavailable(f"torch.compile failed: {' '.join(str(error).split()[:_REASON_WORDS])}")
    return ops
