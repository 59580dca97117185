"""The operations a transformer layer is made of, and the plain data of one forward pass.

Two implementations: `ops_torch.TorchOps` (the twin: plain torch, any precision) and
`ops_native.NativeOps` (fused kernels on the CPU). The transformer cannot tell which it runs on.

Shapes: M rows (tokens) of this pass, S sequences, H query heads, KV key/value heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from mathlete.ryanstream.model.weights import LinearWeight


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """One forward pass.

    Attributes:
        token_ids: int64 [M].
        positions: int32 [M], place of each token in its sequence.
        slots: int64 [M], where its key and value go: block * 16 + offset.
        row_seq: int32 [M], its row in `tables`.
        lengths: int32 [M], how many cached tokens it sees, itself included (= position + 1).
        tables: int32 [S, max_blocks], the blocks of each sequence.
        logit_rows: int64 [R], rows whose next-token logits are wanted.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    row_seq: Tensor
    lengths: Tensor
    tables: Tensor
    logit_rows: Tensor


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Paged keys [blocks, KV, D, 16] and values [blocks, KV, 16, D] of one layer."""

    keys: Tensor
    values: Tensor


class Ops(Protocol):
    """What a layer does, in the order in which it does it."""

    def norm_linear(self, x: Tensor, norm: Tensor, weight: LinearWeight) -> Tensor:
        """Linear(RMSNorm(x)): x float32 [M, K] -> float32 [M, N]."""
        ...

    def attention(self, qkv: Tensor, batch: ForwardBatch, cache: LayerCache) -> Tensor:
        """Rotate, store keys and values, attend: qkv float32 [M, (H + 2 KV) D] (overwritten) -> [M, H D]."""
        ...

    def linear_add(self, x: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """Residual + Linear(x); may write into `residual`."""
        ...

    def swiglu_linear_add(self, gate_up: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """Residual + Linear(silu(gate) * up); may write into `residual`."""
        ...
