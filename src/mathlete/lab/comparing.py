"""Two runs of the same problems, side by side: what changed, whether luck explains it, and what each cost.

Knows what runs came to (`outcomes.py`). Does not know where they are kept or how they are shown. Pure. The *first* is
what one compares with (the old way), the *second* what is compared (the new way); differences are second minus first,
ratios second over first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mathlete.core.problem import AnswerKind
from mathlete.core.record import RunRecord
from mathlete.lab.bootstrap import Estimate, bootstrap_estimates, ratio_estimate, wilson_interval
from mathlete.lab.mcnemar import McNemar, mcnemar_test
from mathlete.lab.outcomes import Outcome, outcomes_of_run
from mathlete.lab.power import LEVEL, detectable_difference
from mathlete.verify.integers import parse_integer

Change = Literal["gained", "lost", "other"]

_ANY_INTEGER = AnswerKind(low=-(10**30), high=10**30)


@dataclass(frozen=True, slots=True)
class Flip:
    """A problem on which the two runs gave different answers.

    Attributes:
        problem_id: of the problem.
        change: "gained" when only the second is right, "lost" when only the first is, else "other".
        gold: the right answer, when known.
        first: the first run's answer, None for none.
        second: the second run's.
    """

    problem_id: str
    change: Change
    gold: str | None
    first: str | None
    second: str | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A problem that could not be compared, and why."""

    problem_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scores:
    """How often each run was right on the problems whose answers are known.

    Attributes:
        num_problems: labelled problems that both runs have.
        num_groups: of them, groups that are resampled.
        first: accuracy of the first run.
        second: accuracy of the second run.
        difference: second minus first, paired, with its interval by group.
        mcnemar: the exact test on the problems that only one got right.
        detectable: the smallest true difference that so many problems would have shown with 80 % power at 5 %, given
            how often these two runs differ; None when they never do.
    """

    num_problems: int
    num_groups: int
    first: Estimate
    second: Estimate
    difference: Estimate
    mcnemar: McNemar
    detectable: float | None

    @property
    def better(self) -> Literal["first", "second"] | None:
        """Which of the two luck does not explain; None for neither.

        The interval knows groups; the test knows that four gained and none lost is what a coin does too. Both must say
        so.
        """
        if self.mcnemar.p_value > LEVEL or self.difference.low <= 0 <= self.difference.high:
            return None
        return "second" if self.difference.value > 0 else "first"


@dataclass(frozen=True, slots=True)
class Cost:
    """What both runs spent on the problems they share.

    Attributes:
        first: total of the first run.
        second: total of the second run.
        ratio: second over first, paired, with its interval by group; None when the first has none on record.
    """

    first: float
    second: float
    ratio: Estimate | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the problems that both have.

    Attributes:
        num_problems: problems that both have, labelled or not.
        scores: how often each was right; None when no shared problem has a known answer.
        tokens: of attempts and checks.
        seconds: of attempts and checks, added up.
        flips: problems with different answers: lost ones first, then gained, then the others.
        left_out: problems of either run that are not compared.
    """

    num_problems: int
    scores: Scores | None
    tokens: Cost
    seconds: Cost
    flips: tuple[Flip, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def verdict(self) -> str:
        """What may be said, in a sentence or two."""
        return _verdict(self)

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able data."""
        return {**asdict(self), "verdict": self.verdict}


def compare_runs(first: RunRecord, second: RunRecord, *, seed: int = 0) -> Comparison:
    """Two runs on the problems that both have under the same id; see `compare_outcomes`."""
    return compare_outcomes(outcomes_of_run(first), outcomes_of_run(second), by_text=False, seed=seed)


def compare_outcomes(
    first: Iterable[Outcome], second: Iterable[Outcome], *, by_text: bool = True, seed: int = 0
) -> Comparison:
    """Two runs, each given as one outcome a problem.

    A problem counts when both have it, under the same id and with the same text. For the scores its answer must be
    known. Nothing is dropped in silence: see `Comparison.left_out`.

    Args:
        first: what one compares with.
        second: what is compared.
        by_text: pair problems with the same text, too, where neither side knows the other's id.
        seed: of the intervals.
    """
    ones, twos = ({item.problem_id: item for item in outcomes} for outcomes in (first, second))
    shared, left_out = _paired(ones, twos, by_text)
    labelled = [pair for pair in shared if pair[0].right is not None and pair[1].right is not None]
    groups = [one.group for one, _ in shared]
    return Comparison(
        num_problems=len(shared),
        scores=_scores(labelled, seed) if labelled else None,
        tokens=_cost([(one.num_tokens, two.num_tokens) for one, two in shared], groups, seed),
        seconds=_cost([(one.seconds, two.seconds) for one, two in shared], groups, seed),
        flips=_flips(shared),
        left_out=tuple(left_out),
    )


_Pair = tuple[Outcome, Outcome]


def _paired(
    ones: Mapping[str, Outcome], twos: Mapping[str, Outcome], by_text: bool
) -> tuple[list[_Pair], list[LeftOut]]:
    shared, left_out = [], []
    texts = _by_text(two for key, two in twos.items() if key not in ones) if by_text else {}
    met = set()
    for key, one in ones.items():
        two = twos.get(key) or texts.pop(_text(one), None)
        if two is None:
            left_out.append(LeftOut(key, "the second does not have it"))
            continue
        met.add(two.problem_id)
        if _text(one) != _text(two):
            left_out.append(LeftOut(key, "its text is another one in the second"))
        elif one.gold is not None and two.gold is not None and not _same_gold(one.gold, two.gold):
            left_out.append(LeftOut(key, f"its right answer is {one.gold} in the first and {two.gold} in the second"))
        else:
            shared.append((one, two))
    left_out += [LeftOut(key, "the first does not have it") for key in twos if key not in met]
    return shared, left_out


def _by_text(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """Problems by their text, without those whose text several have."""
    texts: dict[str, list[Outcome]] = {}
    for item in outcomes:
        texts.setdefault(_text(item), []).append(item)
    return {text: items[0] for text, items in texts.items() if len(items) == 1}


def _text(outcome: Outcome) -> str:
    return " ".join(outcome.statement.split())


def _same_gold(one: str, two: str) -> bool:
    """The same text, or the same integer however it is written: "2,125" is 2125."""
    if one == two:
        return True
    first, second = parse_integer(one, _ANY_INTEGER).value, parse_integer(two, _ANY_INTEGER).value
    return first is not None and first == second


def _scores(pairs: Sequence[_Pair], seed: int) -> Scores:
    first, second = ([bool(pair[side].right) for pair in pairs] for side in (0, 1))
    groups = [one.group for one, _ in pairs]
    differences = [float(two) - float(one) for one, two in zip(first, second, strict=True)]
    columns = {"first": list(map(float, first)), "second": list(map(float, second)), "difference": differences}
    found = bootstrap_estimates(columns, groups, seed=seed)
    num_groups = len(set(groups))
    alone = num_groups == len(pairs)
    return Scores(
        num_problems=len(pairs),
        num_groups=num_groups,
        first=wilson_interval(sum(first), len(pairs)) if alone else found["first"],
        second=wilson_interval(sum(second), len(pairs)) if alone else found["second"],
        difference=found["difference"],
        mcnemar=mcnemar_test(first, second),
        detectable=detectable_difference(differences, groups),
    )


def _cost(pairs: Sequence[tuple[float, float]], groups: Sequence[str], seed: int) -> Cost:
    first, second = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    ratio = ratio_estimate(second, first, groups, seed=seed) if pairs else None
    return Cost(math.fsum(first), math.fsum(second), ratio)


def _flips(pairs: Sequence[_Pair]) -> tuple[Flip, ...]:
    order = ("lost", "gained", "other")
    flips = [
        Flip(one.problem_id, _change(one, two), one.gold or two.gold, one.answer, two.answer)
        for one, two in pairs
        if one.right != two.right or one.answer != two.answer
    ]
    return tuple(sorted(flips, key=lambda flip: order.index(flip.change)))


def _change(one: Outcome, two: Outcome) -> Change:
    if one.right is None or two.right is None or one.right == two.right:
        return "other"
    return "gained" if two.right else "lost"


def _verdict(comparison: Comparison) -> str:
    scores = comparison.scores
    if comparison.num_problems == 0:
        return "The two have no problem in common."
    if scores is None:
        return f"No right answer is known; {len(comparison.flips)} of {comparison.num_problems} answers differ."
    test = scores.mcnemar
    told = f"{test.only_second} gained, {test.only_first} lost of {scores.num_problems}: {scores.difference.value:+.3f}"
    if scores.better is not None:
        return f"The {scores.better} is better ({told}, exact p {test.p_value:.2g})."
    if test.only_first == test.only_second == 0:
        return "Both were right on the same problems."
    luck = f"No difference that luck would not explain ({told}, exact p {test.p_value:.2g})."
    if scores.detectable is None:  # every problem changed in the same way, which leaves no spread to reckon with
        return luck
    return (
        f"{luck} So many problems show a difference of {scores.detectable:.3f} or more in four of five such "
        "comparisons."
    )
