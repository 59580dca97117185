"""`Ops` of one rank: its own part by another `Ops`, and what the ranks have to tell each other in between.

Two sums a layer (behind the attention and behind the feed-forward part), one for the embedding, one gathering of
logits. Everything else is each rank's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.ops import ForwardBatch, Ops
from mathlete.ryanstream.model.weights import HeadNorms, LinearWeight
from mathlete.ryanstream.parallel.collectives import RankGroup


class ParallelOps:
    """Wraps the `Ops` of a shard, whose weights are those of a `ShardedSource`."""

    def __init__(self, inner: Ops, group: RankGroup, vocab_size: int) -> None:
        """`vocab_size` is the whole model's."""
        self._inner = inner
        self._group = group
        self._vocab_size = vocab_size

    def embed(self, token_ids: Tensor, table: Tensor) -> Tensor:
        """See `Ops.embed`: `table` holds this rank's rows; each token is known to one rank, the others add zeros."""
        local = token_ids - self._group.shard.rank * table.shape[0]
        known = (local >= 0) & (local < table.shape[0])
        rows = self._inner.embed(torch.where(known, local, 0), table)
        return self._group.sum_(rows * known[:, None])

    def norm_linear(self, x: Tensor, norm: Tensor, weight: LinearWeight) -> Tensor:
        """See `Ops.norm_linear`: this rank's output features."""
        return self._inner.norm_linear(x, norm, weight)

    def attention(
        self, qkv: Tensor, batch: ForwardBatch, cache: LayerCache, head_norms: HeadNorms | None = None
    ) -> Tensor:
        """See `Ops.attention`: this rank's heads."""
        return self._inner.attention(qkv, batch, cache, head_norms)

    def linear_add(self, x: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.linear_add`: `x` and `weight` are this rank's input features."""
        return self._group.sum_(self._inner.linear_add(x, weight, self._share(residual)))

    def swiglu_linear_add(self, gate_up: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.swiglu_linear_add`: `gate_up` and `weight` are this rank's input features."""
        return self._group.sum_(self._inner.swiglu_linear_add(gate_up, weight, self._share(residual)))

    def logits(self, x: Tensor, norm: Tensor, head: LinearWeight) -> Tensor:
        """See `Ops.logits`: of the whole vocabulary on rank 0, which samples; of this rank's part on the others."""
        gathered = self._group.gather_columns(self._inner.logits(x, norm, head))
        if self._group.shard.rank != 0 or gathered.shape[1] == self._vocab_size:
            return gathered
        return gathered[:, : self._vocab_size].contiguous()

    def _share(self, residual: Tensor) -> Tensor:
        """The residual is the same on all ranks and must be counted once: rank 0 adds it to its product."""
        return residual if self._group.shard.rank == 0 else torch.zeros_like(residual)
