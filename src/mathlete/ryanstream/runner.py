"""Executes step plans: turns a plan into tensors, runs the model, draws tokens. Owns the KV tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.core.generation import TokenLogprob
from mathlete.ryanstream.block_tensors import copy_blocks, export_blocks, import_blocks
from mathlete.ryanstream.constraints import ConstraintMasks
from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.model.layer_cache import LayerCache, allocate_cache, block_bytes
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.transformer import ForwardOutput, Transformer
from mathlete.ryanstream.precision import AutoPrecisionManager
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.row_by_row import single_rows
from mathlete.ryanstream.sampling import NOT_FORCED, Drawn, SampleKernel, sample, sampling_batch
from mathlete.ryanstream.scheduler import PlannedRequest, StepPlan


class SampledToken(NamedTuple):
    """One request's next token, and what the model's own distribution was there (natural logarithms).

    Attributes:
        token_id: -1 when the logits were not numbers, -2 when the request's constraint allowed nothing.
        logprob: of the token.
        entropy: of the distribution.
        eos_logprob: of the end of text, all its ids together.
        top_mean: mean logprob of the 20 likeliest tokens, impossible ones left out (DeepConf's confidence, negated).
        top: the likeliest tokens, as many as the request asks for.
    """

    token_id: int
    logprob: float
    entropy: float
    eos_logprob: float = -math.inf
    top_mean: float = math.nan
    top: tuple[TokenLogprob, ...] = ()


class ModelRunner:
    """One model on one device."""

    def __init__(
        self,
        model: Transformer,
        num_blocks: int,
        kv_dtype: torch.dtype,
        kernels: NativeKernels | None,
        eos_token_ids: Sequence[int] = (),
        precisions: AutoPrecisionManager | None = None,
        row_by_row: bool = False,
        sampler: SampleKernel | None = None,
    ) -> None:
        """Allocate the paged cache.

        Args:
            model: what it runs.
            num_blocks: of the cache.
            kv_dtype: of the cache.
            kernels: the native kernels, or None.
            eos_token_ids: those whose probability is told (`eos_logprob`).
            precisions: chooses the model's weights for each step; None leaves them as they are.
            row_by_row: compute every row alone, so that it is the same in any batch (`row_by_row.py`).
            sampler: what draws instead of `kernels`, on a GPU.
        """
        self._model = model
        self._precisions = precisions
        self._row_by_row = row_by_row
        self._kernels = kernels
        self._sampler = kernels if sampler is None else sampler
        self._eos_token_ids = list(eos_token_ids)
        self._masks = ConstraintMasks(model.config.vocab_size)
        self._device = model.weights.embedding.device
        self._cache = allocate_cache(model.config, num_blocks, kv_dtype, self._device)

    @property
    def model(self) -> Transformer:
        """What it runs, for whoever measures it."""
        return self._model

    @property
    def kernels(self) -> NativeKernels | None:
        """The native kernels, where they run."""
        return self._kernels

    @property
    def cache(self) -> Sequence[LayerCache]:
        """Keys and values of every layer."""
        return self._cache

    def execute(self, plan: StepPlan) -> list[SampledToken | None]:
        """Run one step. Returns one item an entry: the drawn token, or None where none was due."""
        copy_blocks(self._cache, plan.copies)
        if not plan.entries:
            return []
        logits, hidden = self._forward(_forward_batch(plan))
        if hidden is not None:
            _keep_hidden(plan, hidden)
        sampling = [entry for entry in plan.entries if entry.samples]
        if not sampling:
            return [None] * len(plan.entries)
        requests = [entry.request for entry in sampling]
        if self._row_by_row:
            rows = torch.split(logits, 1)
            drawn = [token for row, one in zip(rows, requests, strict=True) for token in self._draw(row, [one])]
        else:
            drawn = self._draw(logits, requests)
        tokens = iter(drawn)
        return [next(tokens) if entry.samples else None for entry in plan.entries]

    def _forward(self, batch: ForwardBatch) -> ForwardOutput:
        if self._precisions is not None:
            self._model.weights = self._precisions.weights(len(batch.token_ids))
        if not self._row_by_row:
            return self._model.forward(batch.to(self._device), self._cache)
        rows = [self._model.forward(row.to(self._device), self._cache) for row in single_rows(batch)]
        hidden = [row.hidden for row in rows if row.hidden is not None]
        return ForwardOutput(torch.cat([row.logits for row in rows]), torch.cat(hidden) if hidden else None)

    def _draw(self, logits: Tensor, requests: Sequence[EngineRequest]) -> list[SampledToken]:
        """The next token of each request. logits float32 [R, V]."""
        batch = sampling_batch(
            [request.sampling for request in requests],
            [len(request.output_ids) for request in requests],
            [NOT_FORCED if request.forced_id is None else request.forced_id for request in requests],
        )
        constrained = self._masks.fill(requests)
        if constrained is not None:
            constrained = constrained.to(self._device)
        drawn = sample(logits, batch.to(self._device), self._sampler, constrained)
        return _read(drawn, logits[:, self._eos_token_ids], [request.sampling.num_logprobs for request in requests])

    @property
    def block_bytes(self) -> int:
        """Memory of one KV block."""
        return block_bytes(self._model.config, self._cache[0].keys.dtype)

    def export_blocks(self, block_ids: Sequence[int]) -> dict[str, Tensor]:
        """What these blocks hold, as copies: see `block_tensors.export_blocks`."""
        return export_blocks(self._cache, block_ids)

    def import_blocks(self, block_ids: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        """Write exported blocks back. Raises `ValueError` when they do not fit this cache."""
        import_blocks(self._cache, block_ids, tensors)


def _read(drawn: Drawn, eos_logits: Tensor, num_logprobs: Sequence[int]) -> list[SampledToken]:
    """The rows of a draw as plain numbers, fetched from the device at once. eos_logits float32 [R, E]."""
    eos_logprob = eos_logits.logsumexp(-1) - drawn.log_normalizer
    possible = drawn.top_logprobs > -torch.inf
    top_mean = torch.where(possible, drawn.top_logprobs, 0.0).sum(-1) / possible.sum(-1)
    values = torch.stack([drawn.token.double(), drawn.logprob, drawn.entropy, eos_logprob, top_mean], dim=1)
    most = max(num_logprobs)
    rows = torch.cat([values, drawn.top_ids[:, :most].double(), drawn.top_logprobs[:, :most]], dim=1).tolist()
    return [_read_row(row, most, num) for row, num in zip(rows, num_logprobs, strict=True)]


def _read_row(row: list[float], most: int, num_logprobs: int) -> SampledToken:
    token, logprob, entropy, eos_logprob, top_mean = row[:5]
    likeliest = zip(row[5 : 5 + num_logprobs], row[5 + most : 5 + most + num_logprobs], strict=True)
    top = tuple(TokenLogprob(int(token_id), value) for token_id, value in likeliest if token_id >= 0)
    return SampledToken(int(token), logprob, entropy, eos_logprob, top_mean, top)


def _forward_batch(plan: StepPlan) -> ForwardBatch:
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    row_seq: list[int] = []
    logit_rows: list[int] = []
    hidden_rows: list[int] = []
    longest = max(len(entry.request.block_ids) for entry in plan.entries)
    tables = torch.zeros((len(plan.entries), longest), dtype=torch.int32)
    for seq, entry in enumerate(plan.entries):
        blocks = entry.request.block_ids
        tables[seq, : len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
        hidden_rows += [len(token_ids) + position - entry.start for position in _wanted(entry)]
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
        hidden_rows=torch.tensor(hidden_rows) if hidden_rows else None,
    )


def _wanted(entry: PlannedRequest) -> list[int]:
    """Positions of the entry whose hidden states are kept."""
    request = entry.request
    if request.hidden_wanted is None:
        return []
    return request.hidden_wanted.within(entry.start, entry.end, len(request.prompt_ids))


def _keep_hidden(plan: StepPlan, hidden: Tensor) -> None:
    """Hand the rows of hidden float32 [W, hidden] to their requests, as copies that can be trained on."""
    rows = iter(hidden.cpu().clone())
    for entry in plan.entries:
        entry.request.hidden.update({position: next(rows) for position in _wanted(entry)})


def _slots(entry: PlannedRequest) -> list[int]:
    blocks = entry.request.block_ids
    return [blocks[i // BLOCK_SIZE] * BLOCK_SIZE + i % BLOCK_SIZE for i in range(entry.start, entry.end)]
