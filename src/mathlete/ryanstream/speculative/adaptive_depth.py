"""Adaptive depth: guess as much as pays, by measured acceptance and measured seconds; nothing where nothing pays.

Knows what guesses were worth (`acceptance.py`), what a step costs (`step_cost.py`) and what the last drafts would have
brought (`draft_history.py`); knows nothing of models or of where guesses come from. Deterministic: it learns from the
steps it is told of and looks at no clock.

What is sought is the most tokens a second of the whole batch: with the nodes S in a step of R requests,

    (R + sum of P(node) over S) / (T(R + |S|) + seconds of the proposer)

P falls along every path, so the best S of a given size are the likeliest nodes, and their ancestors are among them. T
has steps (a product of 5 rows may cost what one of 8 does), so all sizes are looked at and not only up to the first
that does not pay. Before anything is drafted nothing is known of the nodes to come; then the last drafts stand for
them. Where a level of drafting has a price, drafts also end at nodes so unlikely that what follows them is not worth
one. While nothing pays it is tried now and then: after a wait that doubles with each try that fails, and only when an
account allows it, which holds what speculation has gained and lost so far and a small share of all time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.acceptance import Acceptance
from mathlete.ryanstream.speculative.depth_control import DraftLimits, MeasuredStep
from mathlete.ryanstream.speculative.draft_history import DraftHistory, PastDraft
from mathlete.ryanstream.speculative.draft_tree import EMPTY, MAX_DRAFT_NODES, DraftTree
from mathlete.ryanstream.speculative.step_cost import StepCostModel

_FIRST_DEPTH = 1  # of drafts that have a price, as long as nothing is known of them
_NUM_FIRST = 6  # drafts before they are judged
_DECIDE_EVERY = 8  # steps
# Steps of which one is without drafts, so that what such a step costs stays known: at first, and later.
_FIRST_PLAIN_EVERY, _PLAIN_EVERY = 4, 128
_MARGIN = 1.003  # by how much drafting must look better than not
_ENOUGH_STEPS = 40  # with drafts, in plain steps' time, before what they really took decides
_LEAST_REALISED = 0.985  # what may be lost for good; less is noise
_KEPT_A_STEP, _KEPT_A_DECISION = 0.995, 0.995  # of that memory
_CHEAP = 0.003  # of a step: a proposer that takes less is always asked
_TRY_SHARE = 0.004  # of all time, for trying again
_MOST_DEBT, _MOST_CREDIT = 12.0, 10.0  # plain steps
_FIRST_WAIT, _LONGEST_WAIT = 8, 256  # steps without a draft before a try
_NUM_GOOD = 16  # drafts that paid after which a failure is the first one again
_MOST_LEAST = 0.9  # probability of a node at which drafting goes on in any case
_NUM_ASKS = 16  # of the proposer, whose seconds count
_DOUBT_STEPS = 500  # without a draft, after which what is known of acceptance counts half


class AdaptiveDepth:
    """Implements `DepthControl`."""

    def __init__(self, costs: StepCostModel, max_depth: int = 8, max_nodes: int | None = None) -> None:
        """Guess at most a tree of `max_depth` levels and `max_nodes` nodes (a chain's when None) a request.

        Raises:
            ValueError: for a limit out of range.
        """
        nodes = max_depth if max_nodes is None else max_nodes
        if not 1 <= max_depth <= nodes <= MAX_DRAFT_NODES:
            raise ValueError(f"need 1 <= max_depth <= max_nodes <= {MAX_DRAFT_NODES}, not {max_depth} and {nodes}")
        self._max_depth, self._max_nodes = max_depth, nodes
        self._costs = costs
        self._acceptance = Acceptance()
        self._history = DraftHistory(max_depth)
        self._proposer = _ProposerCost()
        self._decided = (0, 0)  # depth, for how many requests
        self._least = 0.0  # probability of a node below which drafting further does not pay
        self._until_decision = 0
        self._asked = 0  # depth, in this step
        self._num_levels = 0  # drafted in this step, >= 1 where the proposer was asked
        self._is_try = False
        self._since_plain, self._plain_every = 0, _FIRST_PLAIN_EVERY
        self._since_draft, self._wait, self._num_good = 0, _FIRST_WAIT, 0
        self._debts_s: dict[int, float] = {}  # by how many requests took part: what pays for one pays for no other
        self._realised: dict[int, _Realised] = {}  # by how many requests took part

    def limits(self, requests: Sequence[EngineRequest], step_cost_s: float) -> list[DraftLimits]:
        """See `DepthControl.limits`."""
        self._proposer.level_s = step_cost_s
        self._asked = self._depth(len(requests))
        if self._asked == 0 and self._may_try(len(requests), 0.0):
            self._begin_try()
            self._asked = self._depth(len(requests))
        self._is_try, self._num_levels = len(self._history) < _NUM_FIRST, 0
        if self._since_plain >= self._plain_every:
            self._asked, self._plain_every = 0, min(2 * self._plain_every, _PLAIN_EVERY)
        nodes = -(-self._max_nodes * self._asked // self._max_depth)
        return [DraftLimits(nodes, self._asked, self._least / self._acceptance.worth)] * len(requests)

    def prune(self, requests: Sequence[EngineRequest], trees: Sequence[DraftTree]) -> list[DraftTree]:
        """See `DepthControl.prune`."""
        found = [
            self._acceptance.probabilities(request, tree) if tree.num_nodes else []
            for request, tree in zip(requests, trees, strict=True)
        ]
        self._num_levels = max(1, max(max(tree.depths(), default=0) for tree in trees))
        for tree, probabilities in zip(trees, found, strict=True):
            self._history.add(PastDraft(tree, probabilities, self._asked))
        flat = np.array([probability for probabilities in found for probability in probabilities])
        order = np.argsort(-flat, kind="stable")  # of equals the ancestor comes first
        num_kept = self._num_worth(len(requests), flat[order])
        if num_kept == len(flat):
            return list(trees)
        is_kept = np.zeros(len(flat), dtype=bool)
        is_kept[order[:num_kept]] = True
        return _kept(trees, is_kept.tolist())

    def note(self, step: MeasuredStep) -> None:
        """See `DepthControl.note`."""
        self._costs.note(step.num_rows, step.seconds)
        if self._num_levels:
            self._proposer.note(self._num_levels, step.propose_s)
        num_accepted = 0
        for verdict in step.verdicts:
            self._acceptance.note(verdict)
            num_accepted += len(verdict.accepted)
        self._acceptance.settle()
        drafted = step.num_rows > step.num_requests
        self._since_plain = self._since_plain + 1 if drafted else 0
        self._since_draft = 0 if drafted else self._since_draft + 1
        self._keep_account(step, num_accepted)
        self._asked = self._num_levels = 0

    def forget(self, request: EngineRequest) -> None:
        """See `DepthControl.forget`."""
        self._acceptance.forget(request)

    def _depth(self, num_requests: int) -> int:
        """How deep to draft; 0 when it does not pay."""
        if len(self._history) < _NUM_FIRST:
            return self._max_depth if self._proposer.level_s == 0 else min(_FIRST_DEPTH, self._max_depth)
        self._until_decision -= 1
        if self._until_decision <= 0 or self._decided[1] != num_requests:
            self._decided = (self._decide(num_requests), num_requests)
            self._until_decision = _DECIDE_EVERY
        return self._decided[0]

    def _decide(self, num_requests: int) -> int:
        most_rows = num_requests * (1 + self._max_nodes + self._max_depth)
        step_s = self._costs.table(most_rows)
        draft_s = [self._proposer.seconds(depth) for depth in range(self._max_depth + 1)]
        plain = num_requests / step_s[num_requests]
        if self._proposer.level_s == 0:
            self._least = 0.0
            if draft_s[0] < _CHEAP * step_s[num_requests]:
                return self._max_depth
            rates = self._history.rates(num_requests, step_s, draft_s)[-1:]
            return self._max_depth if rates[-1] > _MARGIN * plain else 0
        rates = self._history.rates(num_requests, step_s, draft_s, self._least)
        best = int(np.argmax(rates))
        if rates[best] <= _MARGIN * plain or not self._paid(num_requests, float(step_s[num_requests])):
            return 0
        level_s = draft_s[1] + float(step_s[2 * num_requests] - step_s[num_requests])
        self._least = min(_MOST_LEAST, rates[best] * level_s / num_requests)
        return best + 1

    def _paid(self, num_requests: int, plain_s: float) -> bool:
        """Whether drafts for so many requests have paid so far, all that the proposer took included.

        The rates tell of drafts to come; that a proposer has to catch up with each new prompt, and with what was
        written while it was not asked, only shows in the end.
        """
        past = self._realised.get(num_requests)
        if past is None:
            return True
        past.worth_s *= _KEPT_A_DECISION
        past.took_s *= _KEPT_A_DECISION
        return past.took_s < _ENOUGH_STEPS * plain_s or past.worth_s > _LEAST_REALISED * past.took_s

    def _num_worth(self, num_requests: int, probabilities: np.typing.NDArray[np.float64]) -> int:
        """How many of the nodes, likeliest first, to compute."""
        most = len(probabilities)
        if most == 0:
            return 0
        step_s = self._costs.table(num_requests + most)[num_requests : num_requests + most + 1]
        tokens = np.empty(most + 1)
        tokens[0], tokens[1:] = num_requests, num_requests + np.cumsum(probabilities)
        rates = tokens / (step_s + self._proposer.seconds(self._num_levels))
        best = int(np.argmax(rates))
        if best > 0:
            return best
        least_bad = 1 + int(np.argmax(rates[1:]))
        loss_s = step_s[least_bad] - step_s[0] * tokens[least_bad] / num_requests
        if not self._is_try:
            if not self._may_try(num_requests, float(loss_s)):
                return 0
            self._begin_try()
        return least_bad

    def _may_try(self, num_requests: int, loss_s: float) -> bool:
        """Whether to do what does not seem to pay, for a loss that is expected."""
        return self._since_draft >= self._wait and self._debts_s.get(num_requests, 0.0) + loss_s <= 0

    def _begin_try(self) -> None:
        """Draft again, and judge by the new drafts alone."""
        self._history.clear()
        self._acceptance.doubt(0.5 ** (self._since_draft / _DOUBT_STEPS))
        self._wait, self._num_good = min(2 * self._wait, _LONGEST_WAIT), 0

    def _keep_account(self, step: MeasuredStep, num_accepted: int) -> None:
        """What speculation has lost, in expected seconds of its steps, less what may be spent on trying."""
        step_s = self._costs.table(step.num_rows)
        plain_s = float(step_s[step.num_requests])
        took_s = float(step_s[step.num_rows]) + step.propose_s
        worth_s = plain_s * (1 + num_accepted / step.num_requests)
        loss_s = took_s - worth_s
        if self._num_levels:
            past = self._realised.setdefault(step.num_requests, _Realised())
            past.worth_s = _KEPT_A_STEP * past.worth_s + worth_s
            past.took_s = _KEPT_A_STEP * past.took_s + took_s
        if num_accepted and loss_s < 0:
            self._num_good += 1
            if self._num_good >= _NUM_GOOD:
                self._wait = _FIRST_WAIT
        debt_s = self._debts_s.get(step.num_requests, 0.0) + loss_s - _TRY_SHARE * plain_s
        self._debts_s[step.num_requests] = min(max(debt_s, -_MOST_CREDIT * plain_s), _MOST_DEBT * plain_s)


@dataclass(slots=True)
class _Realised:
    """Steps with drafts, the latest count most: seconds they took, and seconds that plain steps would have taken."""

    worth_s: float = 0.0
    took_s: float = 0.0


class _ProposerCost:
    """Seconds of the proposer: in proportion to its own figure for a level, or as measured where it has none.

    Attributes:
        level_s: see `Proposer.step_cost_s`.
    """

    def __init__(self) -> None:
        self.level_s = 0.0
        self._free: deque[_Asked] = deque(maxlen=_NUM_ASKS)
        self._dear: deque[_Asked] = deque(maxlen=_NUM_ASKS)

    def note(self, num_levels: int, seconds: float) -> None:
        """The proposer was asked, and drafted `num_levels`, at least 1."""
        if self.level_s > 0:
            self._dear.append(_Asked(seconds, num_levels * self.level_s))
        else:
            self._free.append(_Asked(seconds, 1.0))

    def seconds(self, depth: int) -> float:
        """For drafts of `depth` levels; without a figure for a level, whatever the depth."""
        if self.level_s > 0:
            return depth * self.level_s * (_without_largest(self._dear) if self._dear else 1.0)
        return _without_largest(self._free) if self._free else 0.0


class _Asked(NamedTuple):
    """One time that the proposer was asked: the seconds it took, and those (or how often) it was expected to."""

    seconds: float
    expected: float


def _without_largest(asked: Collection[_Asked]) -> float:
    """Seconds over expected ones. That a proposer once had to catch up with a request says nothing of later."""
    largest = max(asked) if len(asked) > 1 else _Asked(0.0, 0.0)
    seconds, expected = sum(one.seconds for one in asked), sum(one.expected for one in asked)
    return (seconds - largest.seconds) / (expected - largest.expected)


def _kept(trees: Sequence[DraftTree], is_kept: Sequence[bool]) -> list[DraftTree]:
    """The trees of the nodes that are kept; `is_kept` is over all nodes of all trees."""
    kept, start = [], 0
    for tree in trees:
        end = start + tree.num_nodes
        nodes = [node for node, stays in enumerate(is_kept[start:end]) if stays]
        kept.append(tree if len(nodes) == tree.num_nodes else tree.keep(nodes) if nodes else EMPTY)
        start = end
    return kept
