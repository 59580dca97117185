"""What recent drafts would have been worth at another depth or in another batch: they are replayed, on paper.

Knows probabilities of nodes and seconds; knows nothing of requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mathlete.ryanstream.speculative.draft_tree import DraftTree

Floats = npt.NDArray[np.float64]

_SIZE = 32


class PastDraft(NamedTuple):
    """A draft as it was proposed, before anything was pruned.

    Attributes:
        tree: what was guessed.
        probabilities: of each node.
        asked_depth: how deep it could have been.
    """

    tree: DraftTree
    probabilities: Sequence[float]
    asked_depth: int


class DraftHistory:
    """The last drafts, nothing among them where nothing was guessed."""

    def __init__(self, max_depth: int) -> None:
        """Replay depths up to `max_depth`."""
        self._max_depth = max_depth
        self._drafts: deque[PastDraft] = deque(maxlen=_SIZE)

    def __len__(self) -> int:
        """Drafts that are remembered."""
        return len(self._drafts)

    def add(self, draft: PastDraft) -> None:
        """Remember one; the oldest goes."""
        self._drafts.append(draft)

    def clear(self) -> None:
        """Forget all."""
        self._drafts.clear()

    def rates(self, num_requests: int, step_s: Floats, draft_s: Sequence[float], least: float = 0.0) -> list[float]:
        """Tokens a second that drafts like these would bring a batch of `num_requests`, the best nodes computed.

        Args:
            num_requests: of the batch.
            step_s: seconds of a step of 0, 1, ... rows, [>= num_requests * (1 + nodes of a draft + max_depth) + 1].
            draft_s: seconds that drafting 0, 1, 2, ... levels takes the batch; the first is not looked at.
            least: drafts do not go on below a node of a smaller probability.

        Returns:
            For each number of levels, from 1 on, the rate when no draft may be deeper.
        """
        probabilities, depths = self._levels(least)
        levels_s, deepest = np.array(draft_s), np.maximum(depths.max(axis=1), 1)  # to find nothing takes a level too
        num_drafts = len(probabilities)
        order = np.arange(max(1, num_drafts // num_requests) * num_requests) % num_drafts
        found = []
        for depth in range(1, len(draft_s)):
            seconds = levels_s[np.minimum(deepest, depth)[order].reshape(-1, num_requests).max(axis=1)]  # [groups]
            allowed = np.where(depths <= depth, probabilities, 0.0)[order].reshape(-1, probabilities.shape[1])
            groups = allowed.reshape(len(order) // num_requests, -1)
            tokens = num_requests + np.cumsum(-np.sort(-groups, axis=1), axis=1)  # [groups, nodes]
            took = step_s[num_requests + 1 : num_requests + 1 + tokens.shape[1]] + seconds[:, None]
            best = np.argmax(tokens / took, axis=1)[:, None]
            with_drafts, their_s = (np.take_along_axis(one, best, axis=1)[:, 0] for one in (tokens, took))
            without_s = step_s[num_requests] + seconds  # where no node is worth it
            pays = with_drafts / their_s > num_requests / without_s
            all_tokens = np.where(pays, with_drafts, num_requests).sum()
            found.append(float(all_tokens / np.where(pays, their_s, without_s).sum()))
        return found

    def _levels(self, least: float) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Probability and depth of each node [drafts, nodes], zeros where a draft has fewer.

        A draft that went as deep as it was allowed to might have gone on: it is continued down to the greatest depth
        by one node a level, which fall off as those above did on average, to below `least`.
        """
        rows = [self._continued(draft, least) for draft in self._drafts]
        width = max(1, max(len(row) for row in rows))
        probabilities, depths = np.zeros((len(rows), width)), np.zeros((len(rows), width), dtype=np.int64)
        for at, row in enumerate(rows):
            if row:
                probabilities[at, : len(row)], depths[at, : len(row)] = zip(*row, strict=True)
        return probabilities, depths

    def _continued(self, draft: PastDraft, least: float) -> list[tuple[float, int]]:
        nodes = list(zip(draft.probabilities, draft.tree.depths(), strict=True))
        deepest = draft.asked_depth
        last = max((probability for probability, depth in nodes if depth == deepest), default=0.0)
        fall = last ** (1 / deepest) if deepest else 0.0
        for depth in range(deepest + 1, self._max_depth + 1):
            if last <= least:
                break
            last *= fall
            nodes.append((last, depth))
        return nodes
