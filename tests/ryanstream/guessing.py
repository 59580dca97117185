"""A proposer for tests: random trees, some of whose nodes are what the model will draw if somebody told it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.draft_tree import ROOT, DraftTree, DrawnFrom
from mathlete.ryanstream.speculative.proposer import DraftSlot

Oracle = Callable[[EngineRequest, tuple[int, ...]], int]  # the token after a request's tokens and these


class DrawingProposer:
    """Draws chains of guesses from a distribution over a few tokens, the same everywhere."""

    wants_hidden = False
    step_cost_s = 0.0

    def __init__(self, drawn_from: DrawnFrom, seed: int = 0) -> None:
        self._from = drawn_from
        self._random = random.Random(seed)

    def propose(self, slots: Sequence[DraftSlot]) -> list[DraftTree]:
        trees = []
        for slot in slots:
            tokens = tuple(self._random.choices(*self._from, k=slot.max_depth))
            trees.append(replace(DraftTree.chain(tokens, [0.5] * len(tokens)), drawn_from=(self._from,) * len(tokens)))
        return trees

    def note_hidden(self, request: EngineRequest, position: int, hidden: Tensor) -> None:
        raise AssertionError("nobody asked for hidden states")

    def forget(self, request: EngineRequest) -> None:
        """Keeps nothing."""


class GuessingProposer:
    """Each node's token is the oracle's with probability `right`, else any; chains, or trees with branches."""

    wants_hidden = False
    step_cost_s = 0.0

    def __init__(self, oracle: Oracle, vocab: int, right: float, branches: bool, seed: int = 0) -> None:
        self._oracle, self._vocab, self._right, self._branches = oracle, vocab, right, branches
        self._random = random.Random(seed)
        self.forgotten: list[str] = []

    def propose(self, slots: Sequence[DraftSlot]) -> list[DraftTree]:
        return [self._tree(slot) for slot in slots]

    def note_hidden(self, request: EngineRequest, position: int, hidden: Tensor) -> None:
        raise AssertionError("nobody asked for hidden states")

    def forget(self, request: EngineRequest) -> None:
        self.forgotten.append(request.request_id)

    def _tree(self, slot: DraftSlot) -> DraftTree:
        tokens, parents, texts = [], [], {ROOT: ()}
        taken = set()
        for node in range(self._random.randint(0, slot.max_nodes)):
            shallow = [place for place, text in texts.items() if len(text) < slot.max_depth]
            if not shallow:
                break
            parent = self._random.choice(shallow) if self._branches else node - 1
            if parent not in shallow:
                break
            is_right = self._random.random() < self._right
            token = self._oracle(slot.request, texts[parent]) if is_right else self._random.randrange(self._vocab)
            if (parent, token) in taken:
                break
            taken.add((parent, token))
            tokens.append(token)
            parents.append(parent)
            texts[node] = (*texts[parent], token)
        return DraftTree(tuple(tokens), tuple(parents), (0.5,) * len(tokens))
