"""How a draft grows, level by level, from what a small model says may come next. Knows numbers; knows no tensors.

A level is one pass of the small model over the newest nodes of all drafts at once. Three ways to choose:

- a *chain* takes the token that the small model draws itself, **with the request's own parameters and noise**: where
  the two distributions are alike, so are their draws, also at high temperatures. To the model it is a point mass:
  the output is token for token that of no speculation. For a greedy request it is the likeliest token;
- a *tree* takes that token and the likeliest others, the best by the product of probabilities down from the root
  (SPEC A2: depth 8, width 4, prune below 0.01; Li et al. 2024, EAGLE-2);
- a *drawn* chain draws from the small model's distribution q with noise of its own and reports q, for the accept rule
  of speculative sampling (Leviathan et al. 2023). The distribution of the output is that of no speculation; the
  tokens for a seed are not.

What is proposed must not depend on a token that was drawn from q other than through the tokens before it, or the
output would be biased. So growth stops before a draw, not after it, and the confidence of a drawn node tells of q only.
"""

from __future__ import annotations

import bisect
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.sampling import uniform_at
from mathlete.ryanstream.speculative.draft_tree import MAX_DRAFT_NODES, ROOT, DraftTree, DrawnFrom
from mathlete.ryanstream.speculative.proposer import DraftSlot

# Makes the noise of drafts independent of the noise of the tokens, which decides whether drafts are accepted.
_DRAFT_NOISE = 0x5DEECE66D
_COLDEST = 1e-5  # as in sampling.py: colder is greedy


@dataclass(frozen=True, slots=True)
class GrowthRule:
    """What a draft may look like.

    Attributes:
        width: nodes a level at most; 1 grows chains.
        min_probability: growth stops where the product of the small model's probabilities from the root is below.
        drawn: draw from the small model's distribution and report it; chains only.
    """

    width: int = 1
    min_probability: float = 0.1
    drawn: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if not 1 <= self.width <= MAX_DRAFT_NODES:
            raise ValueError(f"GrowthRule.width must be in [1, {MAX_DRAFT_NODES}], not {self.width}")
        if not 0 <= self.min_probability <= 1:
            raise ValueError(f"GrowthRule.min_probability must be in [0, 1], not {self.min_probability}")
        if self.drawn and self.width > 1:
            raise ValueError("GrowthRule.drawn needs width 1: a drawn node is its parent's only child")


SPEC_A2_TREE = GrowthRule(width=4, min_probability=0.01)


class NextToken(NamedTuple):
    """What the small model says after one node.

    Attributes:
        token_id: what it draws with the request's parameters and noise; negative when its logits were not numbers.
        top_ids: its likeliest tokens.
        top_logprobs: theirs, under its own distribution, natural logarithms.
    """

    token_id: int
    top_ids: Sequence[int]
    top_logprobs: Sequence[float]


class FrontierNode(NamedTuple):
    """A node whose continuations are asked for: the number of its draft, and the node there or `ROOT`."""

    draft: int
    node: int


class _Child(NamedTuple):
    """A candidate for a node.

    Attributes:
        product: of the small model's probabilities, from the root to it.
        parent: a node or `ROOT`.
        token_id: its token.
        probability: its confidence.
        drawn_from: the distribution it was drawn from; empty for a point mass.
    """

    product: float
    parent: int
    token_id: int
    probability: float
    drawn_from: tuple[DrawnFrom, ...] = ()


class GrowingDraft:
    """The draft of one request in the making.

    Attributes:
        frontier: the nodes, or `ROOT`, whose continuations are asked for next; empty when it is done.
        token_ids: of each node.
        parents: of each node.
        paths: of each node, the nodes from the root's child down to itself.
    """

    def __init__(self, slot: DraftSlot, rule: GrowthRule, vocab_size: int, max_grown: int | None = None) -> None:
        """Start with the root.

        Args:
            slot: whose draft, and how much of it is wanted.
            rule: how it grows.
            vocab_size: only tokens below are proposed.
            max_grown: nodes that may be tried, the best of which are kept; as many as are wanted when None.
        """
        self._slot, self._rule, self._vocab_size = slot, rule, vocab_size
        self._max_grown = slot.max_nodes if max_grown is None else max_grown
        self._draws = rule.drawn and slot.request.sampling.temperature >= _COLDEST
        self.frontier: tuple[int, ...] = (ROOT,)
        self.token_ids: list[int] = []
        self.parents: list[int] = []
        self.paths: list[tuple[int, ...]] = []
        self._confidences: list[float] = []
        self._products: list[float] = []
        self._drawn_from: tuple[DrawnFrom, ...] = ()

    @property
    def request(self) -> EngineRequest:
        """Whose draft it is."""
        return self._slot.request

    def place(self, node: int) -> int:
        """How many output tokens the request has had before the one that follows `node` (or `ROOT`)."""
        return len(self.request.output_ids) + (0 if node == ROOT else len(self.paths[node]))

    def take(self, following: Sequence[NextToken]) -> None:
        """Add a level: what follows each node of the frontier, in order."""
        children = [
            child for node, after in zip(self.frontier, following, strict=True) for child in self._of(node, after)
        ]
        room = min(self._rule.width, self._max_grown - len(self.token_ids))
        best = sorted(children, key=lambda child: -child.product)[:room]
        first = len(self.token_ids)
        for child in best:
            self._add(child)
        deep = bool(best) and len(self.paths[-1]) >= self._slot.max_depth
        full = len(self.token_ids) >= self._max_grown
        grows = () if deep or full else range(first, len(self.token_ids))
        least = max(self._rule.min_probability, self._slot.min_probability)
        self.frontier = tuple(node for node in grows if self._products[node] >= least)

    def tree(self) -> DraftTree:
        """The best of what has grown. A child is never likelier than its parent, so they are connected."""
        nodes = sorted(range(len(self.token_ids)), key=lambda node: -self._products[node])[: self._slot.max_nodes]
        whole = DraftTree(tuple(self.token_ids), tuple(self.parents), tuple(self._confidences), self._drawn_from)
        return whole.keep(sorted(nodes))

    def _add(self, child: _Child) -> None:
        above = () if child.parent == ROOT else self.paths[child.parent]
        self.paths.append((*above, len(self.token_ids)))
        self.token_ids.append(child.token_id)
        self.parents.append(child.parent)
        self._confidences.append(child.probability)
        self._products.append(child.product)
        self._drawn_from += child.drawn_from

    def _of(self, node: int, after: NextToken) -> list[_Child]:
        """The candidates that follow a node."""
        q = likeliest_at(after, self.request.sampling.temperature, self._vocab_size)
        if after.token_id < 0 or not q.token_ids:
            return []
        above = 1.0 if node == ROOT else self._products[node]
        known = dict(zip(q.token_ids, q.probs, strict=True))
        if self._draws:
            token_id = _draw(q, self.request.sampling, self.place(node))
            return [_Child(above * known[token_id], node, token_id, max(q.probs), (q,))]
        if after.token_id >= self._vocab_size:
            return []
        own = known.pop(after.token_id, 0.0)  # outside the likeliest: nothing is known but that it is unlikely
        if self._rule.width == 1:
            children = [_Child(above * own, node, after.token_id, own)]
        else:  # in a tree it stands beside the likeliest
            children = [_Child(above * max(q.probs), node, after.token_id, own)]
            children += [_Child(above * p, node, token_id, p) for token_id, p in known.items()]
        return [child for child in children if child.product >= self._rule.min_probability]


def likeliest_at(after: NextToken, temperature: float, vocab_size: int) -> DrawnFrom:
    """The likeliest tokens at a temperature (1 for a greedy request), as a distribution of their own."""
    heat = temperature if temperature >= _COLDEST else 1.0
    pairs = zip(after.top_ids, after.top_logprobs, strict=True)
    known = [(i, value / heat) for i, value in pairs if 0 <= i < vocab_size and value > -math.inf]
    if not known:
        return DrawnFrom((), ())
    peak = max(value for _, value in known)
    masses = [math.exp(value - peak) for _, value in known]
    total = math.fsum(masses)
    return DrawnFrom(tuple(i for i, _ in known), tuple(mass / total for mass in masses))


def _draw(q: DrawnFrom, sampling: SamplingParams, place: int) -> int:
    """Invert the cumulative distribution at the draft's own noise."""
    cumulative = list(itertools.accumulate(q.probs))
    at = uniform_at(sampling.seed ^ _DRAFT_NOISE, place) * cumulative[-1]
    return q.token_ids[min(bisect.bisect_right(cumulative, at), len(cumulative) - 1)]


def grow(
    drafts: Sequence[GrowingDraft],
    run_level: Callable[[Sequence[FrontierNode]], Sequence[NextToken]],
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Grow all drafts together, each as far as it goes.

    Args:
        drafts: changed in place.
        run_level: what follows each of these nodes, in order.
        clock: seconds.

    Returns:
        The seconds that each level took.
    """
    seconds = []
    while nodes := [FrontierNode(i, node) for i, draft in enumerate(drafts) for node in draft.frontier]:
        start = clock()
        following = iter(run_level(nodes))
        for draft in drafts:
            if draft.frontier:
                draft.take([next(following) for _ in draft.frontier])
        seconds.append(clock() - start)
    return seconds
