"""How good guesses are: what a proposer's confidence is worth, by what became of the nodes that were computed.

Knows drafts and verdicts; knows nothing of costs.

A node's chance, given that its parent was drawn, is its confidence times what confidences of that size were worth so
far (hits over expected hits, shrunk to what all confidences were worth) times what those of this request were worth
(shrunk to 1). A node's probability is the product of the chances down to it, so it falls along every path.
"""

from __future__ import annotations

import math

from mathlete.ryanstream.request import EngineRequest, Status
from mathlete.ryanstream.speculative.depth_control import DraftVerdict
from mathlete.ryanstream.speculative.draft_tree import ROOT, DraftTree

# A confidence c is in bucket floor(16 c^2): narrow ones near 1, where a long chain needs them.
_NUM_BUCKETS = 16
_LEAST, _MOST = 0.02, 0.99  # of a chance: nothing is known for sure
# How long observations count (the number after which 1/e is left), and how many expected hits a prior is worth. Short:
# texts change from prose to formulas to programs, and each is guessed differently well.
_BUCKET_MEMORY, _BUCKET_PRIOR = 32, 4.0  # the prior: of a confidence of 1, less for smaller ones
_ALL_MEMORY, _ALL_PRIOR = 64, 6.0
_REQUEST_MEMORY, _REQUEST_PRIOR = 16, 6.0


class _Ratio:
    """Hits over expected hits, both fading, shrunk to a prior."""

    __slots__ = ("expected", "hits", "keep", "prior")

    def __init__(self, memory: float, prior: float) -> None:
        self.keep, self.prior = 1 - 1 / memory, prior
        self.hits = self.expected = 0.0

    def add(self, hit: bool, expected: float) -> None:
        self.hits = self.hits * self.keep + hit
        self.expected = self.expected * self.keep + expected

    def fade(self, share: float) -> None:
        self.hits *= share
        self.expected *= share

    def value(self, towards: float) -> float:
        """Above 0. `prior` expected hits are taken to have been worth `towards` each."""
        return (self.hits + self.prior * towards) / (self.expected + self.prior)


class Acceptance:
    """Turns confidences into probabilities; learns from verdicts."""

    def __init__(self) -> None:
        """Begin by taking confidences for what they are."""
        self._all = _Ratio(_ALL_MEMORY, _ALL_PRIOR)
        middles = (math.sqrt((number + 0.5) / _NUM_BUCKETS) for number in range(_NUM_BUCKETS))
        self._buckets = [_Ratio(_BUCKET_MEMORY, _BUCKET_PRIOR * middle) for middle in middles]
        self._worth: list[float] | None = None  # of a confidence, by bucket; None when it is to be reckoned anew
        self._requests: dict[EngineRequest, _Ratio] = {}

    def probabilities(self, request: EngineRequest, tree: DraftTree) -> list[float]:
        """Of each node: how likely it and all above it are drawn."""
        own = self._requests.get(request)
        factor = 1.0 if own is None else own.value(1.0)
        worth = [factor * value for value in self._bucket_worth()]
        found = [1.0] * (tree.num_nodes + 1)  # the root's stands at the end, where ROOT = -1 points
        for node, (parent, confidence) in enumerate(zip(tree.parents, tree.confidences, strict=True)):
            chance = confidence * worth[int(_NUM_BUCKETS * confidence * confidence)]
            found[node] = found[parent] * (_LEAST if chance < _LEAST else chance if chance < _MOST else _MOST)
        found.pop()
        return found

    @property
    def worth(self) -> float:
        """What a confidence has turned out to be worth, all together: 1 when they are what they say."""
        return self._all.value(1.0)

    def note(self, verdict: DraftVerdict) -> None:
        """Learn from a draft: every node whose parent was drawn was put to the test."""
        own = self._requests.get(verdict.request) or _Ratio(_REQUEST_MEMORY, _REQUEST_PRIOR)
        if verdict.request.status is not Status.FINISHED:
            self._requests[verdict.request] = own
        tested, worth = {ROOT, *verdict.accepted}, self._bucket_worth()
        for node, (parent, confidence) in enumerate(zip(verdict.tree.parents, verdict.tree.confidences, strict=True)):
            if parent not in tested:
                continue
            hit, number = node in tested, int(_NUM_BUCKETS * confidence * confidence)
            confidence = max(confidence, _LEAST)
            own.add(hit, confidence * worth[number])
            self._buckets[min(number, _NUM_BUCKETS - 1)].add(hit, confidence)
            self._all.add(hit, confidence)

    def settle(self) -> None:
        """A step's verdicts are all in: what they say counts from now on."""
        self._worth = None

    def forget(self, request: EngineRequest) -> None:
        """The request has ended."""
        self._requests.pop(request, None)

    def doubt(self, share: float) -> None:
        """Let all that was learnt count for `share` of what it did: things may have changed since."""
        for ratio in (self._all, *self._buckets, *self._requests.values()):
            ratio.fade(share)
        self._worth = None

    def _bucket_worth(self) -> list[float]:
        """What a confidence is worth, by its bucket; one more for a confidence of 1, which is of the last."""
        if self._worth is None:
            overall = self._all.value(1.0)
            self._worth = [bucket.value(overall) for bucket in self._buckets]
            self._worth.append(self._worth[-1])
        return self._worth
