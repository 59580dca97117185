"""Executes step plans: turns a plan into tensors, runs the model, draws tokens. Owns the KV tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.core.generation import TokenLogprob
from mathlete.ryanstream.block_tensors import copy_blocks, export_blocks, import_blocks, move_slots
from mathlete.ryanstream.constraints import ConstraintMasks
from mathlete.ryanstream.draw_rows import DrawRow, draw_rows
from mathlete.ryanstream.kv_cache import SlotMove, slot_of
from mathlete.ryanstream.model.layer_cache import LayerCache, allocate_cache, block_bytes
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.transformer import ForwardOutput, Transformer
from mathlete.ryanstream.precision import AutoPrecisionManager
from mathlete.ryanstream.row_by_row import single_rows
from mathlete.ryanstream.sampling import NOT_FORCED, Drawn, SampleKernel, accept_uniform_at, sample, sampling_batch
from mathlete.ryanstream.scheduler import PlannedRequest, StepPlan
from mathlete.ryanstream.speculative.accept_rule import DrawnRows, drawn_rows


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
        self._masks = ConstraintMasks(model.config.vocab_size)
        self._device = model.weights.embedding.device
        self._eos_token_ids = torch.tensor(list(eos_token_ids), dtype=torch.int64, device=self._device)
        self.hidden: Sequence[Tensor] = ()  # of each entry's rows, float32 [rows, hidden], after a plan that keeps them
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

    def execute(self, plan: StepPlan) -> list[tuple[SampledToken, ...]]:
        """Run one step.

        Returns:
            What was drawn for each entry: nothing where none was due, else the token after the newest one, then the
            token after each node of its draft.
        """
        copy_blocks(self._cache, plan.copies)
        if not plan.entries:
            return []
        logits, hidden = self._forward(_forward_batch(plan))
        if hidden is not None:
            self.hidden = _hidden_of_entries(plan, hidden)
        rows = [draw_rows(entry) if entry.samples else [] for entry in plan.entries]
        flat = [row for of_entry in rows for row in of_entry]
        if not flat:
            drawn: list[SampledToken] = []
        elif self._row_by_row:
            pairs = zip(torch.split(logits, 1), flat, strict=True)
            drawn = [token for logit, row in pairs for token in self._draw(logit, [row])]
        else:
            drawn = self._draw(logits, flat)
        tokens = iter(drawn)
        return [tuple(next(tokens) for _ in of_entry) for of_entry in rows]

    def move_slots(self, moves: Sequence[SlotMove]) -> None:
        """Move keys and values in every layer: see `block_tensors.move_slots`."""
        move_slots(self._cache, moves)

    def _forward(self, batch: ForwardBatch) -> ForwardOutput:
        if self._precisions is not None:
            self._model.weights = self._precisions.weights(len(batch.token_ids))
        if not self._row_by_row:
            return self._model.forward(batch, self._cache)
        rows = [self._model.forward(row, self._cache) for row in single_rows(batch)]
        hidden = [row.hidden for row in rows if row.hidden is not None]
        return ForwardOutput(torch.cat([row.logits for row in rows]), torch.cat(hidden) if hidden else None)

    def _draw(self, logits: Tensor, rows: Sequence[DrawRow]) -> list[SampledToken]:
        """The token of each row. logits float32 [R, V]."""
        batch = sampling_batch(
            [row.request.sampling for row in rows],
            [row.place for row in rows],
            [NOT_FORCED if row.forced_id is None else row.forced_id for row in rows],
        )
        constrained = self._masks.fill(rows)
        if constrained is not None:
            constrained = constrained.to(self._device)
        guessed = _guessed_rows(rows)
        if guessed is not None:
            guessed = guessed.to(self._device)
        drawn = sample(logits, batch.to(self._device), self._sampler, constrained, guessed)
        return _read(
            drawn, logits.index_select(1, self._eos_token_ids), [row.request.sampling.num_logprobs for row in rows]
        )

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


def _guessed_rows(rows: Sequence[DrawRow]) -> DrawnRows | None:
    """The rows whose token somebody has guessed by drawing it."""
    guesses = {place: row.guess for place, row in enumerate(rows) if row.guess is not None}
    if not guesses:
        return None
    noise = [accept_uniform_at(rows[place].request.sampling.seed, rows[place].place) for place in guesses]
    token_ids, drawn_from = zip(*guesses.values(), strict=True)
    return drawn_rows(list(guesses), token_ids, drawn_from, noise)


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
    paths: dict[int, list[int]] = {}  # of rows that are nodes of a tree with branches
    longest = max(len(entry.request.block_ids) for entry in plan.entries)
    tables = torch.zeros((len(plan.entries), longest), dtype=torch.int32)
    for seq, entry in enumerate(plan.entries):
        blocks = entry.request.block_ids
        tables[seq, : len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
        first = len(token_ids)
        if not plan.keeps_hidden:
            hidden_rows += [first + position - entry.start for position in _wanted(entry)]
        token_ids += entry.request.token_slice(entry.start, entry.end)
        positions += range(entry.start, entry.end)
        slots += [slot_of(blocks, place) for place in range(entry.start, entry.end + entry.num_nodes)]
        if entry.draft is not None:
            tree = entry.draft.tree
            if not tree.is_chain:
                node_slots = slots[len(token_ids) :]
                for node, path in enumerate(tree.paths()):
                    paths[len(token_ids) + node] = [node_slots[ancestor] for ancestor in path]
            token_ids += tree.token_ids
            positions += [entry.end - 1 + depth for depth in tree.depths()]
        row_seq += [seq] * (len(token_ids) - first)
        if plan.keeps_hidden:
            hidden_rows += range(first, len(token_ids))
        if entry.samples:
            logit_rows += range(first + entry.end - entry.start - 1, len(token_ids))
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
        paths=_padded_paths(paths, len(token_ids)),
    )


def _padded_paths(paths: Mapping[int, Sequence[int]], num_rows: int) -> Tensor | None:
    if not paths:
        return None
    padded = torch.full((num_rows, max(map(len, paths.values()))), -1)
    for row, path in paths.items():
        padded[row, : len(path)] = torch.tensor(path)
    return padded


def _wanted(entry: PlannedRequest) -> list[int]:
    """Positions of the entry whose hidden states are kept."""
    request = entry.request
    if request.hidden_wanted is None:
        return []
    return request.hidden_wanted.within(entry.start, entry.end, len(request.prompt_ids))


def _hidden_of_entries(plan: StepPlan, hidden: Tensor) -> Sequence[Tensor]:
    """Hand rows of hidden float32 [W, hidden] to the requests that want them, as copies that can be trained on.

    Returns:
        The rows of each entry where the plan keeps all of them, else nothing.
    """
    if not plan.keeps_hidden:
        rows = iter(hidden.cpu().clone())
        for entry in plan.entries:
            entry.request.hidden.update({position: next(rows) for position in _wanted(entry)})
        return ()
    num_rows = [entry.end - entry.start + entry.num_nodes for entry in plan.entries]
    entries: Sequence[Tensor] = torch.split(hidden, num_rows)
    for entry, rows_of in zip(plan.entries, entries, strict=True):
        wanted = {position: rows_of[position - entry.start].cpu().clone() for position in _wanted(entry)}
        entry.request.hidden.update(wanted)
    return entries
