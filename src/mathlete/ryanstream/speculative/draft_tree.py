"""Guesses about the next tokens of a request, as a tree. Plain data.

Words: the *root* is the request's newest known token; it is computed anyway. A *node* is a guessed token; its parent
is the node (or the root) it would follow. A *chain* is a tree without branches. A node that was *drawn* comes from a
distribution q of the proposer's; one that was not is a point mass (q = 1 at its token), whatever way it was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

ROOT = -1
MAX_DRAFT_NODES = 64


class DrawnFrom(NamedTuple):
    """The distribution q that a node was drawn from; all of it: tokens that are not named have q = 0.

    Attributes:
        token_ids: at most `MAX_LOGPROBS` of them, the node's own among them.
        probs: theirs, summing to 1.
    """

    token_ids: tuple[int, ...]
    probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DraftTree:
    """What may come next.

    Attributes:
        token_ids: of each node.
        parents: of each node, an earlier node or `ROOT`.
        confidences: of each node, the proposer's own estimate in [0, 1] that it is what the model draws, given that
            its parent was; how good such estimates are is measured (`acceptance.py`).
        drawn_from: of each node, the distribution it was drawn from; empty when all nodes are point masses. Nodes that
            were drawn form a chain.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...]
    confidences: tuple[float, ...]
    drawn_from: tuple[DrawnFrom, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` saying what is wrong with the tree."""
        num = len(self.token_ids)
        if not num == len(self.parents) == len(self.confidences) or len(self.drawn_from) not in (0, num):
            raise ValueError("a draft tree needs a parent and a confidence for each of its tokens")
        if num > MAX_DRAFT_NODES:
            raise ValueError(f"a draft tree has at most {MAX_DRAFT_NODES} nodes, not {num}")
        if any(not ROOT <= parent < node for node, parent in enumerate(self.parents)):
            raise ValueError("a node's parent must be an earlier node or ROOT")
        if len({*zip(self.parents, self.token_ids, strict=True)}) < num:
            raise ValueError("two children of a node have the same token")
        if self.drawn_from and not self.is_chain:
            raise ValueError("nodes that were drawn must form a chain")

    @classmethod
    def chain(cls, token_ids: Sequence[int], confidences: Sequence[float]) -> DraftTree:
        """Tokens that follow one another."""
        return cls(tuple(token_ids), tuple(range(ROOT, len(token_ids) - 1)), tuple(confidences))

    @property
    def num_nodes(self) -> int:
        """Guessed tokens."""
        return len(self.token_ids)

    @property
    def is_chain(self) -> bool:
        """Whether every node follows the one before it."""
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def depths(self) -> tuple[int, ...]:
        """Of each node: 1 for a child of the root."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent == ROOT else depths[parent] + 1)
        return tuple(depths)

    def paths(self) -> tuple[tuple[int, ...], ...]:
        """Of each node, the nodes from the root's child down to itself."""
        paths: list[tuple[int, ...]] = []
        for node, parent in enumerate(self.parents):
            paths.append((node,) if parent == ROOT else (*paths[parent], node))
        return tuple(paths)

    def child(self, parent: int, token_id: int) -> int | None:
        """The child of a node (or of `ROOT`) with this token, or None."""
        for node in range(parent + 1, len(self.parents)):
            if self.parents[node] == parent and self.token_ids[node] == token_id:
                return node
        return None

    def keep(self, nodes: Sequence[int]) -> DraftTree:
        """The tree of these nodes, in rising order; the parent of each must be among them."""
        place = {ROOT: ROOT} | {node: at for at, node in enumerate(nodes)}
        return DraftTree(
            tuple(self.token_ids[node] for node in nodes),
            tuple(place[self.parents[node]] for node in nodes),
            tuple(self.confidences[node] for node in nodes),
            tuple(self.drawn_from[node] for node in nodes) if self.drawn_from else (),
        )


EMPTY = DraftTree((), (), ())
