"""Passes over known tokens and the nodes of growing drafts, for whatever model or part of one guesses.

Knows how rows become a `ForwardBatch` and logits become `NextToken`s; knows nothing of who owns blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.kv_cache import slot_of
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.sampling import SampleKernel, sample, sampling_batch
from mathlete.ryanstream.speculative.tree_growth import FrontierNode, GrowingDraft, NextToken


class DraftRow(NamedTuple):
    """One row of a pass.

    Attributes:
        token_id: what is computed.
        position: its place in the text, for the rotation.
        slot: where its key and value go.
        seq: its sequence's place in the tables.
        length: how many places it sees, itself included.
        path: slots of the last of these; empty where they lie in the sequence's blocks as ever.
        samples: whether what follows it is asked for.
    """

    token_id: int
    position: int
    slot: int
    seq: int
    length: int
    path: tuple[int, ...] = ()
    samples: bool = False


def known_rows(
    token_ids: Sequence[int], start: int, block_ids: Sequence[int], seq: int, samples: bool, first_position: int = 0
) -> list[DraftRow]:
    """Tokens that are known, at places `start`, ... of a sequence whose place 0 is position `first_position`.

    What follows the last is asked for when `samples`.
    """
    rows = [
        DraftRow(token_id, first_position + place, slot_of(block_ids, place), seq, place + 1)
        for place, token_id in enumerate(token_ids, start)
    ]
    if samples:
        rows[-1] = rows[-1]._replace(samples=True)
    return rows


def node_row(
    draft: GrowingDraft, node: int, block_ids: Sequence[int], base: int, seq: int, first_position: int = 0
) -> DraftRow:
    """A node of a draft: node j lies at place `base + j`, and sees the places before `base` and its own ancestors.

    A node that is reached through nodes 0, 1, ... in this order needs no path.
    """
    nodes = draft.paths[node]
    length = base + len(nodes)
    in_line = nodes == tuple(range(len(nodes)))
    path = () if in_line else tuple(slot_of(block_ids, base + above) for above in nodes)
    slot, position = slot_of(block_ids, base + node), first_position + length - 1
    return DraftRow(draft.token_ids[node], position, slot, seq, length, path, samples=True)


def draft_batch(rows: Sequence[DraftRow], tables: Sequence[Sequence[int]]) -> ForwardBatch:
    """The rows as tensors; `tables[seq]` are the blocks of a sequence."""
    longest = max(len(table) for table in tables)
    padded = [[*table, *[0] * (longest - len(table))] for table in tables]
    deepest = max(len(row.path) for row in rows)
    paths = None
    if deepest:
        paths = torch.tensor([[*row.path, *[-1] * (deepest - len(row.path))] for row in rows])
    return ForwardBatch(
        token_ids=torch.tensor([row.token_id for row in rows]),
        positions=torch.tensor([row.position for row in rows], dtype=torch.int32),
        slots=torch.tensor([row.slot for row in rows]),
        row_seq=torch.tensor([row.seq for row in rows], dtype=torch.int32),
        lengths=torch.tensor([row.length for row in rows], dtype=torch.int32),
        tables=torch.tensor(padded, dtype=torch.int32),
        logit_rows=torch.tensor([i for i, row in enumerate(rows) if row.samples], dtype=torch.int64),
        paths=paths,
    )


def next_tokens(
    logits: Tensor, sampling: Sequence[SamplingParams], places: Sequence[int], sampler: SampleKernel | None
) -> list[NextToken]:
    """What follows each row of logits float32 [R, V], drawn as its request would; `places` as in `sampling_batch`."""
    drawn = sample(logits, sampling_batch(sampling, places).to(logits.device), sampler)
    tops = zip(drawn.token.tolist(), drawn.top_ids.tolist(), drawn.top_logprobs.tolist(), strict=True)
    return [NextToken(*top) for top in tops]


def tokens_after(
    drafts: Sequence[GrowingDraft], nodes: Sequence[FrontierNode], logits: Tensor, sampler: SampleKernel | None
) -> list[NextToken]:
    """What follows each of the nodes, whose logits are float32 [len(nodes), V]."""
    sampling = [drafts[at.draft].request.sampling for at in nodes]
    return next_tokens(logits, sampling, [drafts[at.draft].place(at.node) for at in nodes], sampler)
