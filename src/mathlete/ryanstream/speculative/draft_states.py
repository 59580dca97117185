"""What decides the next token at each node of a draft: the request's constraint and its think block, as they would be.

Knows requests and trees; knows nothing of models, costs or who guessed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

from mathlete.core.generation import TokenConstraint
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.draft_tree import EMPTY, ROOT, DraftTree, DrawnFrom
from mathlete.ryanstream.thinking import ThinkingBudget


class PathState(NamedTuple):
    """Constraint and think block after the tokens down to a node; both None for a request without either."""

    constraint: TokenConstraint | None
    thinking: ThinkingBudget | None

    @property
    def forced_id(self) -> int | None:
        """The token that must come next, or None when one may be drawn."""
        return None if self.thinking is None else self.thinking.forced_id

    def after(self, token_id: int) -> PathState | None:
        """The state after one more token, on copies; None when it cannot come. Raises what a constraint raises."""
        if self.forced_id is not None and token_id != self.forced_id:
            return None
        constraint, thinking = self.constraint, copy.copy(self.thinking)
        if constraint is not None:
            constraint = constraint.copy()
            if not constraint.accept((token_id,)) or constraint.terminated:
                return None  # nothing is drawn after a node that ends its text: it is not worth a row
        if thinking is not None:
            thinking.push(token_id)
        return PathState(constraint, thinking)


class DrawnGuess(NamedTuple):
    """A guess that was drawn, and from what."""

    token_id: int
    drawn_from: DrawnFrom


@dataclass(frozen=True, slots=True)
class PlannedDraft:
    """What is computed and judged for a request beside its newest token.

    Attributes:
        tree: the nodes that are computed.
        states: at each of them.
        drawn: the guesses that were drawn, one after the other, also those that are not among the nodes: each is
            judged where the token in its place is drawn (`accept_rule.py` says why none may be passed over).
    """

    tree: DraftTree
    states: tuple[PathState, ...]
    drawn: tuple[DrawnGuess, ...] = ()


def allowed_draft(request: EngineRequest, tree: DraftTree) -> PlannedDraft:
    """The part of a tree that the request's constraint and think block would let be drawn.

    Where the constraint raises on a guess, nothing is: it may never be asked about that text, and says the same again
    when it is.
    """
    root = PathState(request.constraint, request.thinking)
    if request.constraint is None and request.thinking is None:
        return PlannedDraft(tree, (root,) * tree.num_nodes)
    states: dict[int, PathState] = {ROOT: root}
    try:
        for node, parent in enumerate(tree.parents):
            if parent in states and (state := states[parent].after(tree.token_ids[node])) is not None:
                states[node] = state
    except Exception:
        return PlannedDraft(EMPTY, ())
    kept = [node for node in states if node != ROOT]
    return PlannedDraft(tree.keep(kept), tuple(states[node] for node in kept))
