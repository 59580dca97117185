"""What a set of attempts is worth: accuracy, pass@1, majority, pass@k, each with an interval.

Checks of answers are no attempts here, and their tokens are not counted.

Knows which attempts were right, and counts. Does not know models, files or how answers were chosen. Pure:
the same rows give the same figures, intervals included. Glossary: a *row* is one problem; a *group* is the
set of problems that belong together (variants of one problem), the unit of resampling. The intervals are of
`lab.bootstrap`, the figures at k of `lab.at_k`; what most callers need of both can be had here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mathlete.core.attempt import CUT_OFF, Attempt
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.lab.at_k import majority_score, pass_at_k
from mathlete.lab.bootstrap import (
    LEVEL,
    NUM_RESAMPLES,
    Estimate,
    bootstrap_estimates,
    ratio_estimate,
    wilson_interval,
)
from mathlete.lab.rightness import attempt_is_right, choice_is_right

__all__ = [
    "LEVEL",
    "NUM_RESAMPLES",
    "AttemptRow",
    "Estimate",
    "Metrics",
    "PassAtK",
    "bootstrap_estimates",
    "evaluate_metrics",
    "evaluate_run",
    "majority_score",
    "pass_at_k",
    "ratio_estimate",
    "wilson_interval",
]


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
    rows = attempt_rows(run)
    return evaluate_metrics(rows, elapsed_s=run.elapsed_s) if rows else None


def attempt_rows(run: RunRecord) -> list[AttemptRow]:
    """The problems with golds, each with its independent attempts that had a chance."""
    return [_row(record) for record in run.problems.values() if record.gold is not None]


def _row(record: ProblemRecord) -> AttemptRow:
    attempts = _with_a_chance(record.attempts)
    return AttemptRow(
        problem_id=record.problem.id,
        group=record.group or record.problem.id,
        answers=tuple(attempt.answer for attempt in attempts),
        correct=tuple(attempt_is_right(record, attempt) is True for attempt in attempts),
        selected_correct=choice_is_right(record) is True,
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
