"""The operations a transformer layer is made of, and the plain data of one forward pass.

Implementations: `ops_torch.TorchOps` (the twin: plain torch, any precision, any device), `ops_native.NativeOps` (fused
kernels on the CPU), `ops_triton.TritonOps` (fused kernels on CUDA) and `ops_compiled.CompiledOps` (torch, its
elementwise paths compiled). The transformer cannot tell which it runs on.

Shapes: M rows (tokens) of this pass, S sequences, H query heads, KV key/value heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.transfer import move_together
from mathlete.ryanstream.model.weights import HeadNorms, LinearWeight


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """One forward pass.

    Attributes:
        token_ids: int64 [M].
        positions: int32 [M], place of each token in its sequence.
        slots: int64 [M], where its key and value go: block * 16 + offset; -1 to store none (torch and Triton only).
        row_seq: int32 [M], its row in `tables`.
        lengths: int32 [M], how many cached tokens it sees, itself included (= position + 1).
        tables: int32 [S, max_blocks], the blocks of each sequence.
        logit_rows: int64 [R], rows whose next-token logits are wanted.
        hidden_rows: int64 [W], rows whose hidden state is wanted, or None.
        paths: int64 [M, P], padded with -1 on the right, or None when no row is a node of a tree. Of the `lengths[m]`
            places that row m sees, the last p (p = how many of paths[m] are >= 0) lie at these slots
            (block * 16 + offset), first ancestor first, itself last; the others in its block table as ever.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    row_seq: Tensor
    lengths: Tensor
    tables: Tensor
    logit_rows: Tensor
    hidden_rows: Tensor | None = None
    paths: Tensor | None = None

    def to(self, device: torch.device) -> ForwardBatch:
        """The same on `device`."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        there: dict[str, Any] = {name: part for name, part in parts.items() if part is not None}
        return ForwardBatch(**dict(zip(there, move_together(list(there.values()), device), strict=True)))


class Ops(Protocol):
    """What a model does, in the order in which it does it."""

    def embed(self, token_ids: Tensor, table: Tensor) -> Tensor:
        """Rows of the embedding table [V, hidden] for token_ids int64 [M], float32 [M, hidden]."""
        ...

    def norm_linear(self, x: Tensor, norm: Tensor, weight: LinearWeight) -> Tensor:
        """Linear(RMSNorm(x)): x float32 [M, K] -> float32 [M, N]."""
        ...

    def attention(
        self, qkv: Tensor, batch: ForwardBatch, cache: LayerCache, head_norms: HeadNorms | None = None
    ) -> Tensor:
        """Normalise heads, rotate, store keys and values, attend: qkv float32 [M, (H + 2 KV) D] -> [M, H D].

        `qkv` is overwritten; without `head_norms` nothing is normalised.
        """
        ...

    def linear_add(self, x: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """Residual + Linear(x); may write into `residual`."""
        ...

    def swiglu_linear_add(self, gate_up: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """Residual + Linear(silu(gate) * up); may write into `residual`."""
        ...

    def logits(self, x: Tensor, norm: Tensor, head: LinearWeight) -> Tensor:
        """Head(RMSNorm(x)): x float32 [R, hidden] -> float32 [R, V]."""
        ...
