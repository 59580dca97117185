"""Executes step plans: turns a plan into tensors, runs the model, draws tokens. Owns the KV tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch

from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.ops import ForwardBatch, LayerCache
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.sampling import sample, sampling_batch
from mathlete.ryanstream.scheduler import PlannedRequest, StepPlan


class SampledToken(NamedTuple):
    """What was drawn for one request: token id (-1 when the logits were not numbers), logprob, entropy."""

    token_id: int
    logprob: float
    entropy: float


class ModelRunner:
    """One model on one device."""

    def __init__(
        self, model: Transformer, num_blocks: int, kv_dtype: torch.dtype, kernels: NativeKernels | None
    ) -> None:
        """Allocate the paged cache: keys [blocks, KV, D, 16] and values [blocks, KV, 16, D] a layer."""
        config = model.config
        shape = (num_blocks, config.num_kv_heads)
        self._model = model
        self._kernels = kernels
        self._cache = [
            LayerCache(
                torch.zeros((*shape, config.head_dim, BLOCK_SIZE), dtype=kv_dtype),
                torch.zeros((*shape, BLOCK_SIZE, config.head_dim), dtype=kv_dtype),
            )
            for _ in range(config.num_layers)
        ]

    def execute(self, plan: StepPlan) -> list[SampledToken | None]:
        """Run one step. Returns one item an entry: the drawn token, or None where none was due."""
        logits = self._model.forward(_forward_batch(plan), self._cache)
        sampling = [entry for entry in plan.entries if entry.samples]
        if not sampling:
            return [None] * len(plan.entries)
        batch = sampling_batch(
            [entry.request.sampling for entry in sampling], [len(entry.request.output_ids) for entry in sampling]
        )
        drawn = sample(logits, batch, self._kernels)
        rows = iter(zip(drawn.token.tolist(), drawn.logprob.tolist(), drawn.entropy.tolist(), strict=True))
        return [SampledToken(*next(rows)) if entry.samples else None for entry in plan.entries]


def _forward_batch(plan: StepPlan) -> ForwardBatch:
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    row_seq: list[int] = []
    logit_rows: list[int] = []
    longest = max(len(entry.request.block_ids) for entry in plan.entries)
    tables = torch.zeros((len(plan.entries), longest), dtype=torch.int32)
    for seq, entry in enumerate(plan.entries):
        blocks = entry.request.block_ids
        tables[seq, : len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
        token_ids += entry.request.token_slice(entry.start, entry.end)
        positions += range(entry.start, entry.end)
        slots += _slots(entry)
        row_seq += [seq] * (entry.end - entry.start)
        if entry.samples:
            logit_rows.append(len(token_ids) - 1)
    places = torch.tensor(positions, dtype=torch.int32)
    return ForwardBatch(
        token_ids=torch.tensor(token_ids),
        positions=places,
        slots=torch.tensor(slots),
        row_seq=torch.tensor(row_seq, dtype=torch.int32),
        lengths=places + 1,
        tables=tables,
        logit_rows=torch.tensor(logit_rows, dtype=torch.int64),
    )


def _slots(entry: PlannedRequest) -> list[int]:
    blocks = entry.request.block_ids
    return [blocks[i // BLOCK_SIZE] * BLOCK_SIZE + i % BLOCK_SIZE for i in range(entry.start, entry.end)]
