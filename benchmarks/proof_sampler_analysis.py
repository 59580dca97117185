"""What the arms of `proof_sampler.py` are worth beside each other, at equal tokens. Pure: rows in, figures out.

Words: an *arm* is a way of sampling. A *cell* is one problem under one arm with one seed: its attempts. Arms are
compared on the problems and seeds that both have (pairs), and intervals come from drawing problem groups with
replacement (percentile bootstrap), so that problems, not attempts, are what varies.

**Majority at equal tokens.** For a problem and seed the budget B is the least that any arm spent on it, in sampled
tokens, those thrown away included. An arm's attempts are put in random order and taken as long as they fit; the first
that does not fit is taken with the probability (what is left of B) / (its tokens). So every arm spends B tokens in
expectation. The vote over those taken scores as in `lab.metrics.majority_score` (ties split evenly, nobody voting is
wrong); the mean over 200 orders is the cell's value.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from mathlete.lab.metrics import Estimate, bootstrap_estimates, majority_score

NUM_ORDERS = 200


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt: its answer, whether that is right, what it cost, and what became of its programs."""

    answer: str | None
    correct: bool
    tokens: int
    discarded: int = 0
    unparsable: bool = False
    rewinds: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """The attempts of one problem under one arm with one seed."""

    arm: str
    seed: int
    problem_id: str
    group: str
    tries: tuple[Try, ...]

    @property
    def tokens(self) -> int:
        """Sampled in all."""
        return sum(item.tokens for item in self.tries)


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """One arm, and its paired differences from the first arm (None for the first itself).

    Attributes:
        arm: its name.
        num_problems: with this arm.
        num_attempts: over all of them and all seeds.
        pass_at_1: mean over problems of the share of right attempts.
        majority: at equal tokens, over the problems and seeds that all arms have.
        no_answer: share of attempts without a usable answer.
        unparsable: share of attempts with a program that is no Python.
        tokens: sampled, an attempt.
        discarded: share of sampled tokens that were thrown away.
        rewinds: an attempt.
        differences: of pass_at_1, majority, no_answer and unparsable from the first arm, paired by problem.
    """

    arm: str
    num_problems: int
    num_attempts: int
    pass_at_1: Estimate
    majority: Estimate
    no_answer: Estimate
    unparsable: Estimate
    tokens: float
    discarded: float
    rewinds: float
    differences: Mapping[str, Estimate] | None = None


def num_problems_needed(difference: float, paired_sd: float, power: float = 0.8, level: float = 0.95) -> int:
    """Problems with which a true paired difference is found, two-sided: ((z_a + z_b) sd / difference)^2, rounded up.

    Args:
        difference: of the mean over problems, in the same units as `paired_sd`.
        paired_sd: standard deviation over problems of the difference between two arms.
        power: chance of finding it.
        level: of the interval that must exclude 0.

    Raises:
        ValueError: when the difference or the deviation is not positive.
    """
    if not (difference > 0 and paired_sd > 0):
        raise ValueError("difference and paired_sd must be positive")
    normal = NormalDist()
    reach = normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(power)
    return math.ceil((reach * paired_sd / difference) ** 2)


def detectable_difference(num_problems: int, paired_sd: float, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest true paired difference that `num_problems` find with this power; see `num_problems_needed`."""
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(power)) * paired_sd / math.sqrt(num_problems)


def expected_paired_sd(pass_rates: Sequence[float], attempts: int) -> float:
    """Deviation over problems of a difference of pass@1 when both arms are equally good: sampling noise alone.

    Each arm's share of right attempts on a problem has variance p (1 - p) / attempts, and they are independent given
    the problem. A real effect that differs from problem to problem adds to it.
    """
    return math.sqrt(2 * statistics.fmean(p * (1 - p) / attempts for p in pass_rates))


def majority_within(tries: Sequence[Try], budget: float, noise: random.Random) -> float:
    """The value of a vote that costs `budget` tokens in expectation; see the module. All of them when they fit."""
    if sum(item.tokens for item in tries) <= budget:
        return _vote(tries)
    total = 0.0
    for _ in range(NUM_ORDERS):
        taken, left = [], budget
        for item in noise.sample(tries, len(tries)):
            if item.tokens > left:
                taken += [item] if noise.random() * item.tokens < left else []
                break
            taken.append(item)
            left -= item.tokens
        total += _vote(taken)
    return total / NUM_ORDERS


def analyse(cells: Sequence[Cell], arms: Sequence[str], seed: int = 0) -> list[ArmFigures]:
    """The figures of each arm that has cells, in the order of `arms`; the first with cells is what others differ from.

    Raises:
        ValueError: when no arm has a cell.
    """
    present = [arm for arm in arms if any(cell.arm == arm for cell in cells)]
    if not present:
        raise ValueError("there are no results of any of these arms")
    groups = {cell.problem_id: cell.group for cell in cells}
    table = {arm: _columns(cells, arm, present, seed) for arm in present}
    return [_figures(cells, arm, table, groups, None if arm == present[0] else present[0]) for arm in present]


def _columns(cells: Sequence[Cell], arm: str, arms: Sequence[str], seed: int) -> dict[str, dict[str, float]]:
    """Values of one arm by name and problem: means over its seeds."""
    own = [cell for cell in cells if cell.arm == arm]
    budgets = _budgets(cells, arms)
    shares: dict[str, Callable[[Cell], float]] = {
        "pass_at_1": lambda cell: statistics.fmean(item.correct for item in cell.tries),
        "no_answer": lambda cell: statistics.fmean(item.answer is None for item in cell.tries),
        "unparsable": lambda cell: statistics.fmean(item.unparsable for item in cell.tries),
    }
    columns = {name: _by_problem(own, value) for name, value in shares.items()}
    shared = [cell for cell in own if (cell.problem_id, cell.seed) in budgets]

    def majority(cell: Cell) -> float:
        noise = random.Random(f"{seed}/{cell.problem_id}/{cell.seed}")
        return majority_within(cell.tries, budgets[cell.problem_id, cell.seed], noise)

    columns["majority"] = _by_problem(shared, majority)
    return columns


def _budgets(cells: Sequence[Cell], arms: Sequence[str]) -> dict[tuple[str, int], int]:
    """The least that an arm spent, for the problems and seeds that all arms have."""
    spent: dict[tuple[str, int], dict[str, int]] = {}
    for cell in cells:
        spent.setdefault((cell.problem_id, cell.seed), {})[cell.arm] = cell.tokens
    return {key: min(by_arm.values()) for key, by_arm in spent.items() if set(arms) <= set(by_arm)}


def _by_problem(cells: Sequence[Cell], value: Callable[[Cell], float]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for cell in cells:
        found.setdefault(cell.problem_id, []).append(value(cell))
    return {problem_id: statistics.fmean(values) for problem_id, values in found.items()}


def _figures(
    cells: Sequence[Cell],
    arm: str,
    table: Mapping[str, Mapping[str, Mapping[str, float]]],
    groups: Mapping[str, str],
    baseline: str | None,
) -> ArmFigures:
    own = [cell for cell in cells if cell.arm == arm]
    tries = [item for cell in own for item in cell.tries]
    values = {name: _estimate(column, groups) for name, column in table[arm].items()}
    differences = None
    if baseline is not None:
        differences = {
            name: _estimate({key: column[key] - table[baseline][name][key] for key in column.keys()
                             & table[baseline][name].keys()}, groups)
            for name, column in table[arm].items()
        }  # fmt: skip
    num_tokens = sum(item.tokens for item in tries)
    return ArmFigures(
        arm=arm,
        num_problems=len({cell.problem_id for cell in own}),
        num_attempts=len(tries),
        tokens=num_tokens / len(tries),
        discarded=sum(item.discarded for item in tries) / max(1, num_tokens),
        rewinds=sum(item.rewinds for item in tries) / len(tries),
        differences=differences,
        **values,
    )


def _estimate(column: Mapping[str, float], groups: Mapping[str, str]) -> Estimate:
    if not column:
        return Estimate(math.nan, math.nan, math.nan)
    keys = sorted(column)
    return bootstrap_estimates({"value": [column[key] for key in keys]}, [groups[key] for key in keys])["value"]


def _vote(tries: Sequence[Try]) -> float:
    return majority_score([item.answer for item in tries], [item.correct for item in tries])


def read_cell(data: Mapping[str, Any]) -> Cell:
    """A line of the results file."""
    tries = tuple(
        Try(
            item["answer"],
            item["correct"],
            item["tokens"],
            item["discarded"],
            item["unparsable"],
            sum(item["rewound"].values()),
        )
        for item in data["attempts"]
    )
    return Cell(data["arm"], data["seed"], data["problem_id"], data["group"], tries)


def describe(figures: Sequence[ArmFigures]) -> str:
    """The figures as a Markdown table, with the differences below."""
    lines = [
        "| arm | problems | attempts | pass@1 | majority at equal tokens | no answer | unparsable code "
        "| tokens/attempt | discarded | rewinds/attempt |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for item in figures:
        lines.append(
            f"| {item.arm} | {item.num_problems} | {item.num_attempts} | {item.pass_at_1} | {item.majority} "
            f"| {item.no_answer} | {item.unparsable} | {item.tokens:.0f} | {item.discarded:.1%} | {item.rewinds:.2f} |"
        )
    lines += ["", f"Differences from {figures[0].arm}, paired by problem, 95 % intervals by bootstrap over groups:", ""]
    for item in figures[1:]:
        assert item.differences is not None
        told = ", ".join(f"{name} {value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
                         for name, value in item.differences.items())  # fmt: skip
        lines.append(f"- {item.arm}: {told}")
    return "\n".join(lines)
