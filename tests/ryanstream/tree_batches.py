"""Batches whose rows are nodes of trees, and the plain sequences that such nodes must not be told from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mathlete.ryanstream.block_tensors import copy_blocks
from mathlete.ryanstream.kv_cache import BLOCK_SIZE, BlockCopy, blocks_for
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.ops import ForwardBatch

MAX_NODES = 24
SPARE_BLOCKS = 3  # hold the partly filled last block and a path of MAX_NODES


@dataclass(frozen=True)
class Tree:
    """A sequence of `num_known` computed tokens, then its root, then a node for each parent (-1 is the root)."""

    num_known: int
    parents: Sequence[int]

    def lineage(self, node: int) -> list[int]:
        """The nodes from the root's child down to this one; of the root (-1), none."""
        return [] if node < 0 else [*self.lineage(self.parents[node]), node]


def random_trees(num_known: Sequence[int], rng: torch.Generator) -> list[Tree]:
    """One a number: no nodes, a chain, then trees of any shape."""
    trees = []
    for i, known in enumerate(num_known):
        size = 0 if i == 0 else int(torch.randint(1, MAX_NODES + 1, (1,), generator=rng))
        parents = [int(torch.randint(-1, node, (1,), generator=rng)) if i > 1 else node - 1 for node in range(size)]
        trees.append(Tree(known, parents))
    return trees


@dataclass(frozen=True)
class TreeBatch:
    """One step of several trees, each root (a plain row) and then its nodes.

    Attributes:
        batch: the step; its blocks are numbered from 0.
        lineages: of each row, the rows from the root's down to itself.
        num_blocks: a cache needs; the last `SPARE_BLOCKS` are no tree's.
    """

    batch: ForwardBatch
    lineages: list[list[int]]
    num_blocks: int


def tree_batch(trees: Sequence[Tree], rng: torch.Generator) -> TreeBatch:
    """All rows of the trees, their blocks scattered."""
    width = max(blocks_for(tree.num_known + 1 + len(tree.parents)) for tree in trees)
    tables = torch.randperm(width * len(trees), generator=rng).view(-1, width)
    row_seq, positions, slots, paths, lineages = [], [], [], [], []
    for seq, tree in enumerate(trees):
        first_row, first_place = len(row_seq) + 1, tree.num_known + 1
        places = [tree.num_known, *range(first_place, first_place + len(tree.parents))]
        here = [int(tables[seq, place // BLOCK_SIZE]) * BLOCK_SIZE + place % BLOCK_SIZE for place in places]
        for node in range(-1, len(tree.parents)):
            lineage = tree.lineage(node)
            row_seq.append(seq)
            positions.append(tree.num_known + len(lineage))
            slots.append(here[node + 1])
            paths.append([here[n + 1] for n in lineage] + [-1] * (MAX_NODES - len(lineage)))
            lineages.append([first_row - 1, *(first_row + n for n in lineage)])
    places = torch.tensor(positions, dtype=torch.int32)
    batch = ForwardBatch(
        token_ids=(places.long() * 7 + 3) % 80, positions=places, slots=torch.tensor(slots),
        row_seq=torch.tensor(row_seq, dtype=torch.int32), lengths=places + 1, tables=tables.int(),
        logit_rows=torch.arange(len(places)), paths=torch.tensor(paths),
    )  # fmt: skip
    return TreeBatch(batch, lineages, tables.numel() + SPARE_BLOCKS)


def as_plain_sequence(trees: TreeBatch, row: int, cache: LayerCache) -> ForwardBatch:
    """The rows of one lineage as a sequence without a tree, in the spare blocks of `cache`, which are overwritten."""
    batch, rows = trees.batch, torch.tensor(trees.lineages[row])
    known = int(batch.positions[row]) + 1 - len(rows)
    whole = known // BLOCK_SIZE
    device = batch.positions.device
    table = batch.tables[batch.row_seq[row]].tolist()
    spare = list(range(trees.num_blocks - SPARE_BLOCKS, trees.num_blocks))
    if known % BLOCK_SIZE:
        copy_blocks([cache], [BlockCopy(table[whole], spare[0])])
    places = range(known, known + len(rows))
    blocks = table[:whole] + spare
    return ForwardBatch(
        token_ids=batch.token_ids[rows], positions=batch.positions[rows], row_seq=batch.row_seq.new_zeros(len(rows)),
        slots=torch.tensor([blocks[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in places], device=device),
        lengths=batch.lengths[rows], tables=torch.tensor([blocks], dtype=torch.int32, device=device),
        logit_rows=torch.arange(len(rows), device=device),
    )  # fmt: skip
