"""What selectors choose from recorded attempts: all of a problem's, or k drawn from them.

Knows the very selectors that choose in a live run, and which recorded answers are right. Does not know files, processes
or intervals. Pure: the same problem and plan give the same scores.

Glossary: an *order* is one arrangement of a problem's attempts; k of N attempts are the first k of an order, so the
pools of one order are nested. A *score* is the share of the orders in which what was chosen is right.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mathlete.cic.answer_values import answer_value
from mathlete.cic.majority import Majority
from mathlete.cic.registry import make_selector
from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.core.protocols import Selector
from mathlete.core.seeds import derive_seed
from mathlete.core.selection import FALLBACK, Selection
from mathlete.lab.metrics import majority_score, pass_at_k
from mathlete.lab.recorded import RecordedProblem
from mathlete.verify.integers import answers_equal

ORDERS_OF_DRAWS = 8
"""Orders over which a figure of k attempts is a mean, unless the plan says otherwise."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What is to be replayed.

    Attributes:
        selectors: names, each once: of the registry, unless whoever replays has selectors of its own.
        ks: attempts drawn, each once; None for all that there are.
        num_orders: random orders of each problem's attempts. None: all attempts come once, in the order in which they
            were recorded, as a live run hands them in; k of them are drawn from `ORDERS_OF_DRAWS` orders.
        seed: of the orders.
        min_attempts: a problem with fewer attempts is left out, and so is one with fewer than k.
    """

    selectors: tuple[str, ...]
    ks: tuple[int | None, ...] = (None,)
    num_orders: int | None = None
    seed: int = 0
    min_attempts: int = 4

    def __post_init__(self) -> None:
        """Raise `InputError` naming the first field that cannot be used."""
        if not self.selectors or len(set(self.selectors)) != len(self.selectors):
            raise InputError("name at least one selector, and each only once")
        if not self.ks or len(set(self.ks)) != len(self.ks) or any(k is not None and k < 1 for k in self.ks):
            raise InputError("k must be 1 or more, and each k given only once")
        if self.num_orders is not None and self.num_orders < 1:
            raise InputError(f"there must be at least one order, not {self.num_orders}")
        if self.min_attempts < 1:
            raise InputError(f"min_attempts must be at least 1, not {self.min_attempts}")


@dataclass(frozen=True, slots=True)
class Scores:
    """What became of one problem with k of its attempts.

    Attributes:
        majority: of the plain vote: no answer is no vote, ties count by their split.
        majority_null: the same with "no answer" as a party.
        majority_nonzero: the same without the votes for 0, which is what many programs return that found nothing.
        oracle: chance that k attempts have a right answer among them, over all ways to draw them.
        selectors: of each selector of the plan. That of `majority` is the plain vote's.
    """

    majority: float
    majority_null: float
    majority_nonzero: float
    oracle: float
    selectors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ScoredProblem:
    """One problem, replayed.

    Attributes:
        id: of the problem.
        group: unit of resampling.
        num_attempts: that it has, checks not counted.
        scores: for each k of the plan; None where it has too few attempts.
    """

    id: str
    group: str
    num_attempts: int
    scores: tuple[Scores | None, ...]


def make_selectors(plan: ReplayPlan) -> dict[str, Selector]:
    """The selectors of a plan, with the settings that a live run gives them.

    Raises:
        InputError: there is no selector of one of the names.
    """
    return {name: make_selector(name) for name in plan.selectors}


def replay_problem(item: RecordedProblem, plan: ReplayPlan, selectors: Mapping[str, Selector]) -> ScoredProblem:
    """The scores of one problem.

    Args:
        item: the problem; its checks are shown to every selector, beside the attempts that are drawn.
        plan: what to draw.
        selectors: of the plan, by name, in its order.
    """
    voters = [place for place, attempt in enumerate(item.attempts) if not attempt.is_check]
    judge = _Judge(item)
    scores = tuple(
        _scores(item, voters, k, plan, selectors, judge) if len(voters) >= max(plan.min_attempts, k or 0) else None
        for k in plan.ks
    )
    return ScoredProblem(item.problem.id, item.group, len(voters), scores)


class _Judge:
    """Which answers to one problem are right."""

    def __init__(self, item: RecordedProblem) -> None:
        self._gold = item.gold
        self._given = {attempt.answer for attempt in item.attempts}
        self._right = {a.answer for a, right in zip(item.attempts, item.correct, strict=True) if right}

    def is_right(self, selection: Selection) -> bool:
        """Whether a choice is right.

        An answer that an attempt gave is what the recording says of it; one that nobody gave (a refined one) is
        compared with the gold. The fallback is no answer, even where it happens to be the gold.
        """
        if selection.rule == FALLBACK:
            return False
        if selection.answer in self._given:
            return selection.answer in self._right
        return selection.answer == self._gold or answers_equal(selection.answer, self._gold)


def _scores(
    item: RecordedProblem,
    voters: Sequence[int],
    k: int | None,
    plan: ReplayPlan,
    selectors: Mapping[str, Selector],
    judge: _Judge,
) -> Scores:
    pools = pools_of(item, voters, k, plan)
    majority = majority_null = majority_nonzero = 0.0
    right = dict.fromkeys(selectors, 0)
    for drawn in pools:
        answers, correct = [item.attempts[i].answer for i in drawn], [item.correct[i] for i in drawn]
        majority += majority_score(answers, correct)
        majority_null += majority_score(answers, correct, count_null=True)
        nonzero = [None if answer is not None and answer_value(answer) == 0 else answer for answer in answers]
        majority_nonzero += majority_score(nonzero, correct)
        pool = _with_checks(item, drawn)
        for name, selector in selectors.items():
            if name != Majority.name:
                right[name] += judge.is_right(selector.select(item.problem, pool))
    num, num_right = len(pools), sum(item.correct[i] for i in voters)
    return Scores(
        majority=majority / num,
        majority_null=majority_null / num,
        majority_nonzero=majority_nonzero / num,
        oracle=pass_at_k(len(voters), num_right, k or len(voters)),
        selectors=tuple(majority / num if name == Majority.name else count / num for name, count in right.items()),
    )


def pools_of(item: RecordedProblem, voters: Sequence[int], k: int | None, plan: ReplayPlan) -> list[Sequence[int]]:
    """Places of the attempts of each pool that is drawn from `voters`, the places of all that could be."""
    if k is None and plan.num_orders is None:
        return [voters]
    pools: list[Sequence[int]] = []
    for order in range(plan.num_orders or ORDERS_OF_DRAWS):
        places = list(voters)
        random.Random(derive_seed(plan.seed, "replay", item.problem.id, order)).shuffle(places)
        pools.append(places[:k])
    return pools


def _with_checks(item: RecordedProblem, drawn: Sequence[int]) -> tuple[Attempt, ...]:
    """The pool that a selector is given; a tuple, so that what is reckoned of it is remembered (`cic.remembering`)."""
    return (*(item.attempts[i] for i in drawn), *(a for a in item.attempts if a.is_check), *item.checks)
