"""A runner without a model: keeps a ledger of what lies in each KV slot, and refuses to read a wrong one."""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.ryanstream.kv_cache import BLOCK_SIZE, SlotMove
from mathlete.ryanstream.runner import SampledToken
from mathlete.ryanstream.scheduler import PlannedRequest, StepPlan

VOCAB = 50
EOS = 49


def next_token(tokens: tuple[int, ...], seed: int) -> int:
    """What the ledger's model says after `tokens`. Often the same for two seeds, so that siblings overlap."""
    return hash((tokens[-3:], seed % 3 if len(tokens) % 4 == 0 else 0, len(tokens))) % VOCAB


class LedgerRunner:
    """Takes the place of `ModelRunner`. A slot holds all tokens up to and including its own."""

    def __init__(self) -> None:
        self.slots: dict[int, tuple[int, ...]] = {}
        self.num_computed = 0
        self.plans: list[StepPlan] = []

    def execute(self, plan: StepPlan) -> list[tuple[SampledToken, ...]]:
        self.plans.append(plan)
        for copy in plan.copies:  # in order, and before anything is stored
            for offset in range(BLOCK_SIZE):
                self._move(copy.src * BLOCK_SIZE + offset, copy.dst * BLOCK_SIZE + offset)
        for entry in plan.entries:  # like a layer: all keys are stored before any is read
            tokens = tuple(entry.request.token_slice(0, entry.end))
            for position in range(entry.start, entry.end):
                self.slots[_slot(entry, position)] = tokens[: position + 1]
            for node, path in enumerate(_node_texts(entry)):
                self.slots[_slot(entry, entry.end + node)] = tokens + path
            self.num_computed += entry.end - entry.start + entry.num_nodes
        return [self._read(entry) for entry in plan.entries]

    def move_slots(self, moves: Sequence[SlotMove]) -> None:
        for move in moves:
            self._move(move.src, move.dst)

    def _move(self, src: int, dst: int) -> None:
        if src in self.slots:
            self.slots[dst] = self.slots[src]
        else:
            self.slots.pop(dst, None)

    def _read(self, entry: PlannedRequest) -> tuple[SampledToken, ...]:
        request = entry.request
        tokens = tuple(request.token_slice(0, entry.end))
        for position in range(entry.end):
            assert self.slots[_slot(entry, position)] == tokens[: position + 1], "the cache holds another's tokens"
        if not entry.samples:
            return ()
        assert entry.end == request.num_tokens
        texts = [tokens, *(tokens + path for path in _node_texts(entry))]
        return tuple(SampledToken(next_token(text, request.sampling.seed), -1.0, 1.0) for text in texts)


def _node_texts(entry: PlannedRequest) -> list[tuple[int, ...]]:
    """The guessed tokens from the root down to each node of an entry's draft."""
    if entry.draft is None:
        return []
    tree = entry.draft.tree
    return [tuple(tree.token_ids[node] for node in path) for path in tree.paths()]


def _slot(entry: PlannedRequest, position: int) -> int:
    return entry.request.block_ids[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
