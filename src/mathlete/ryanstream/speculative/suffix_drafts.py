"""What comes next, judged by what came next in similar places before: a draft tree from occurrences.

Each occurrence votes for the token that followed it, with a weight that grows with the length of its match. The
token's estimate is its share of the votes times the chance that any of them is right, which grows with their sum:

    w(m) = OWN * (m / LENGTH)^POWER,    p(x) = W_x / W * sqrt(W) / (1 + sqrt(W))

where OWN is 1 for an occurrence in another sequence. So one occurrence after 3 matching tokens is worth less than one
after 20, and many that agree are worth more than one, but not as much as if they were independent. LENGTH and POWER
are of highest likelihood on half of 430,000 tokens of a 1.5B model's sampled solutions, the root too (0.50), and they
held on the other half. OWN lies between what fits best among siblings (2.6) and without any (1 to 1.6).
`benchmarks/suffix_drafts.py` shows how often estimates are right. Knows nothing of where the occurrences come from.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count
from math import sqrt
from typing import NamedTuple

from mathlete.ryanstream.speculative.draft_tree import EMPTY, ROOT, DraftTree
from mathlete.ryanstream.speculative.suffix_entries import MAX_MATCH
from mathlete.ryanstream.speculative.suffix_index import Occurrence

OWN = 2.0
LENGTH = 2.2
POWER = 2.5
MIN_REACH = 0.01  # A node that is reached less often is not worth a row.

_WEIGHTS = [(num / LENGTH) ** POWER for num in range(MAX_MATCH + 1)]


class _Follower(NamedTuple):
    """A token that followed, its estimate, and the occurrences that it followed, one token on."""

    token_id: int
    confidence: float
    occurrences: list[Occurrence]


def draft_tree(occurrences: Sequence[Occurrence], max_nodes: int, max_depth: int) -> DraftTree:
    """The nodes that are likeliest to be reached, parents first; nothing when the end of the text was not seen before.

    Args:
        occurrences: of the end of the text.
        max_nodes: of the tree at most, >= 1.
        max_depth: of the tree at most, >= 1.
    """
    token_ids: list[int] = []
    parents: list[int] = []
    confidences: list[float] = []
    serial = count()
    candidates: list[tuple[float, int, int, int, _Follower]] = []  # -reach, serial, parent, depth, what

    def consider(parent: int, depth: int, reach: float, places: Sequence[Occurrence]) -> None:
        for follower in _followers(places):
            if reach * follower.confidence >= MIN_REACH:
                candidate = (-reach * follower.confidence, next(serial), parent, depth, follower)
                heapq.heappush(candidates, candidate)

    consider(ROOT, 1, 1.0, occurrences)
    while candidates and len(token_ids) < max_nodes:
        reach, _, parent, depth, follower = heapq.heappop(candidates)
        token_ids.append(follower.token_id)
        parents.append(parent)
        confidences.append(follower.confidence)
        if depth < max_depth:
            consider(len(token_ids) - 1, depth + 1, -reach, follower.occurrences)
    return DraftTree(tuple(token_ids), tuple(parents), tuple(confidences)) if token_ids else EMPTY


def _followers(occurrences: Sequence[Occurrence]) -> list[_Follower]:
    votes: dict[int, float] = {}
    following: dict[int, list[Occurrence]] = {}
    for token_ids, place, num_matched, is_own in occurrences:
        if place < len(token_ids):  # Otherwise this text ends here.
            token_id = token_ids[place]
            weight = _WEIGHTS[num_matched] * (OWN if is_own else 1.0)
            votes[token_id] = votes.get(token_id, 0.0) + weight
            further = Occurrence(token_ids, place + 1, min(num_matched + 1, MAX_MATCH), is_own)
            following.setdefault(token_id, []).append(further)
    total = sum(votes.values())
    seen = sqrt(total) / (1.0 + sqrt(total))
    return [_Follower(token, vote / total * seen, following[token]) for token, vote in votes.items()]
