"""What a set of attempts is worth: accuracy, pass@1, majority, pass@k, each with an interval.

Checks of answers are no attempts here, and their tokens are not counted.

Knows which attempts were right, and counts. Does not know models, files or how answers were chosen. Pure:
the same rows give the same figures, intervals included. Glossary: a *row* is one problem; a *group* is the
set of problems that belong together (variants of one problem), the unit of resampling.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mathlete.core.attempt import CUT_OFF, Attempt
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.verify.integers import answers_equal

NUM_RESAMPLES = 2_000
LEVEL = 0.95
_Z_95 = 1.959963984540054  # standard normal quantile of 0.975


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems and its 95 % interval.

    Attributes:
        value: the mean.
        low: lower end.
        high: upper end.
        method: "bootstrap" (by group, percentile) or "wilson" (a proportion of independent problems).
    """

    value: float
    low: float
    high: float
    method: str = "bootstrap"

    def __str__(self) -> str:
        """As in ".723 [.690, .756]"."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One problem and its attempts.

    Attributes:
        problem_id: of the problem.
        group: unit of resampling.
        answers: of each attempt; None for none.
        correct: of each attempt, whether its answer is right.
        selected_correct: whether the answer that was handed in is right.
        tokens: of each attempt; may be empty when unknown.
        seconds: of each attempt; may be empty when unknown.
    """

    problem_id: str
    group: str
    answers: tuple[str | None, ...]
    correct: tuple[bool, ...]
    selected_correct: bool = False
    tokens: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` when `correct` does not fit `answers`."""
        if len(self.answers) != len(self.correct):
            raise ValueError(f"AttemptRow.correct has {len(self.correct)} entries for {len(self.answers)} answers")


@dataclass(frozen=True, slots=True)
class PassAtK:
    """Chance that at least one of `k` attempts is right.

    Attributes:
        k: number of attempts.
        estimate: mean over problems.
        num_short: problems with fewer than `k` attempts; each counts with all it has, a lower bound.
    """

    k: int
    estimate: Estimate
    num_short: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures of one run or one recorded pool.

    Attributes:
        num_problems: rows.
        num_attempts: over all rows.
        accuracy: share of problems whose chosen answer is right.
        pass_at_1: mean over problems of the share of right attempts.
        majority: share of problems that a plain vote gets right; ties count fractionally, no answer is no vote.
        pass_at: pass@k for k = 1, 2, 4, ... up to the largest number of attempts.
        no_answer: share of attempts without an answer.
        tokens_per_attempt: mean completion tokens, None when unknown.
        seconds_per_attempt: mean seconds, None when unknown.
        elapsed_s: wall clock of the whole run, None when unknown.
        tokens_per_s: completion tokens of all attempts over `elapsed_s`, None when unknown.
    """

    num_problems: int
    num_attempts: int
    accuracy: Estimate
    pass_at_1: Estimate
    majority: Estimate
    pass_at: tuple[PassAtK, ...]
    no_answer: float
    tokens_per_attempt: float | None
    seconds_per_attempt: float | None
    elapsed_s: float | None
    tokens_per_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able data."""
        return asdict(self)

    def lines(self) -> tuple[str, ...]:
        """The figures for a person, one a line."""
        figures = [("accuracy", str(self.accuracy)), ("pass@1", str(self.pass_at_1)), ("majority", str(self.majority))]
        for item in self.pass_at[1:]:
            short = f"  (lower bound: {item.num_short} problems have fewer attempts)" if item.num_short else ""
            figures.append((f"pass@{item.k}", f"{item.estimate}{short}"))
        figures.append(("attempts", f"{self.num_attempts} over {self.num_problems} problems"))
        figures.append(("without answer", f"{self.no_answer:.1%} of attempts"))
        if self.tokens_per_attempt is not None:
            figures.append(("tokens/attempt", f"{self.tokens_per_attempt:.0f}"))
        if self.seconds_per_attempt is not None:
            figures.append(("seconds/attempt", f"{self.seconds_per_attempt:.1f}"))
        if self.tokens_per_s is not None:
            figures.append(("tokens/s", f"{self.tokens_per_s:.1f} over {self.elapsed_s:.0f} s"))
        return tuple(f"{name:<16} {figure}" for name, figure in figures)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased chance that one of `k` attempts drawn from `num_samples` is right (Chen et al. 2021, eq. 1).

    Raises:
        ValueError: unless 0 <= num_correct <= num_samples and 1 <= k <= num_samples.
    """
    if not (0 <= num_correct <= num_samples and 1 <= k <= num_samples):
        raise ValueError(f"pass@{k} of {num_correct} right among {num_samples} is not defined")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def majority_score(answers: Sequence[str | None], correct: Sequence[bool], *, count_null: bool = False) -> float:
    """Chance that a plain vote is right when ties are broken at random; 0 when nobody votes.

    Args:
        answers: of each attempt.
        correct: of each attempt, whether its answer is right.
        count_null: let attempts without an answer vote for "no answer".
    """
    votes = Counter(answer for answer in answers if answer is not None or count_null)
    if not votes:
        return 0.0
    most = max(votes.values())
    leading = [
        right for answer, right in zip(answers, correct, strict=True) if votes[answer] == most
    ]  # each leader has `most` entries, so the mean over entries is the mean over leaders
    return sum(leading) / len(leading)


def wilson_interval(num_right: int, num_total: int) -> Estimate:
    """A proportion with its 95 % score interval (Wilson 1927), sound at 0, at 1 and for few problems."""
    if not 0 <= num_right <= num_total or num_total == 0:
        raise ValueError(f"{num_right} of {num_total} is no proportion")
    share, z2 = num_right / num_total, _Z_95**2
    centre = (share + z2 / (2 * num_total)) / (1 + z2 / num_total)
    half = _Z_95 * math.sqrt(share * (1 - share) / num_total + z2 / (4 * num_total**2)) / (1 + z2 / num_total)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), method="wilson")


def bootstrap_estimates(
    columns: Mapping[str, Sequence[float]], groups: Sequence[str], *, seed: int = 0, resamples: int = NUM_RESAMPLES
) -> dict[str, Estimate]:
    """The mean of each column with a percentile interval; whole groups are drawn with replacement.

    Args:
        columns: by name, one value a problem.
        groups: of each problem.
        seed: of the resampling; all columns see the same draws, so their differences are paired.
        resamples: number of draws.

    Raises:
        ValueError: no problems, or a column of another length than `groups`.
    """
    if not groups or any(len(values) != len(groups) for values in columns.values()):
        raise ValueError("bootstrap_estimates needs at least one problem and a value of each column for each")
    index = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    sizes = [0] * len(index)
    totals = {name: [0.0] * len(index) for name in columns}
    for position, group in enumerate(groups):
        sizes[index[group]] += 1
        for name, values in columns.items():
            totals[name][index[group]] += values[position]
    rng = random.Random(seed)
    means: dict[str, list[float]] = {name: [] for name in columns}
    for _ in range(resamples):
        drawn = rng.choices(range(len(index)), k=len(index))
        size = sum(map(sizes.__getitem__, drawn))
        for name, total in totals.items():
            means[name].append(sum(map(total.__getitem__, drawn)) / size)
    return {
        name: Estimate(math.fsum(values) / len(values), *_percentiles(means[name])) for name, values in columns.items()
    }


def _percentiles(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    tail = round(len(ordered) * (1 - LEVEL) / 2)
    return ordered[tail], ordered[len(ordered) - 1 - tail]


def evaluate_metrics(rows: Sequence[AttemptRow], *, elapsed_s: float | None = None, seed: int = 0) -> Metrics:
    """The figures of `rows`. An attempt without an answer is a wrong one; so is a problem without attempts.

    Raises:
        ValueError: there are no rows.
    """
    largest = max((len(row.answers) for row in rows), default=0)
    ks = [2**power for power in range(max(1, largest).bit_length())]
    columns = {
        "accuracy": [float(row.selected_correct) for row in rows],
        "pass@1": [_pass(row, 1) for row in rows],
        "majority": [majority_score(row.answers, row.correct) for row in rows],
        **{f"k={k}": [_pass(row, k) for row in rows] for k in ks},
    }
    estimates = bootstrap_estimates(columns, [row.group for row in rows], seed=seed)
    if len({row.group for row in rows}) == len(rows):
        estimates["accuracy"] = wilson_interval(sum(row.selected_correct for row in rows), len(rows))
    tokens = [count for row in rows for count in row.tokens]
    num_attempts = sum(len(row.answers) for row in rows)
    return Metrics(
        num_problems=len(rows),
        num_attempts=num_attempts,
        accuracy=estimates["accuracy"],
        pass_at_1=estimates["pass@1"],
        majority=estimates["majority"],
        pass_at=tuple(PassAtK(k, estimates[f"k={k}"], sum(len(row.answers) < k for row in rows)) for k in ks),
        no_answer=sum(row.answers.count(None) for row in rows) / max(1, num_attempts),
        tokens_per_attempt=_mean(tokens),
        seconds_per_attempt=_mean([seconds for row in rows for seconds in row.seconds]),
        elapsed_s=elapsed_s,
        tokens_per_s=sum(tokens) / elapsed_s if tokens and elapsed_s else None,
    )


def evaluate_run(run: RunRecord) -> Metrics | None:
    """The figures of a run over its problems with golds, or None when there are none."""
    rows = [_row(record) for record in run.problems.values() if record.gold is not None]
    return evaluate_metrics(rows, elapsed_s=run.elapsed_s) if rows else None


def _row(record: ProblemRecord) -> AttemptRow:
    gold = record.gold or ""
    attempts = _with_a_chance(record.attempts)
    return AttemptRow(
        problem_id=record.problem.id,
        group=record.group or record.problem.id,
        answers=tuple(attempt.answer for attempt in attempts),
        correct=tuple(attempt.answer is not None and answers_equal(attempt.answer, gold) for attempt in attempts),
        selected_correct=record.selection is not None and answers_equal(record.selection.answer, gold),
        tokens=tuple(attempt.num_tokens for attempt in attempts),
        seconds=tuple(attempt.elapsed_s for attempt in attempts),
    )


def _with_a_chance(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Independent ones, without those that a settled vote or a person ended, or that were cut and made again later."""
    solutions = [attempt for attempt in attempts if attempt.is_independent]
    last_whole = max((i for i, attempt in enumerate(solutions) if attempt.failure not in CUT_OFF), default=-1)
    return [
        attempt
        for i, attempt in enumerate(solutions)
        if attempt.failure not in CUT_OFF or (attempt.failure == "out_of_time" and i > last_whole)
    ]


def _pass(row: AttemptRow, k: int) -> float:
    num_samples = len(row.answers)
    return pass_at_k(num_samples, sum(row.correct), min(k, num_samples)) if num_samples else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
