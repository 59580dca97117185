"""What a sweep came to: one row a configuration, over all its seeds, each compared with the first. Pure.

The runs of a configuration with several seeds are pooled: one outcome a problem and seed, and what is resampled for
intervals is the problem's group with all its seeds, since seeds of one problem are no new problems.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mathlete.lab.comparing import Comparison, compare_outcomes
from mathlete.lab.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class SweepRow:
    """What one configuration came to.

    Attributes:
        name: of the configuration.
        num_seeds: runs.
        num_problems: in each.
        accuracies: of each run; None for one without labels.
        tokens_per_problem: mean over problems and seeds.
        comparison: with the first configuration, paired by problem and seed; None for the first itself.
    """

    name: str
    num_seeds: int
    num_problems: int
    accuracies: tuple[float | None, ...]
    tokens_per_problem: float
    comparison: Comparison | None

    @property
    def mean_accuracy(self) -> float | None:
        """Over its seeds; None without labels."""
        known = [accuracy for accuracy in self.accuracies if accuracy is not None]
        return statistics.fmean(known) if known else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the accuracy over seeds: what luck does to one run; None for fewer than two."""
        known = [accuracy for accuracy in self.accuracies if accuracy is not None]
        return statistics.stdev(known) if len(known) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        told = {**asdict(self), "mean_accuracy": self.mean_accuracy, "spread": self.spread}
        told["comparison"] = None if self.comparison is None else self.comparison.as_dict()
        return told


def sweep_rows(outcomes: Mapping[str, Mapping[int, Sequence[Outcome]]], *, seed: int = 0) -> list[SweepRow]:
    """One row a configuration, in order; the first is what the others are compared with.

    Args:
        outcomes: of each run, by name of the configuration and seed.
        seed: of the intervals.
    """
    rows: list[SweepRow] = []
    first: list[Outcome] | None = None
    for name, by_seed in outcomes.items():
        pooled = [_of_seed(item, number) for number, items in by_seed.items() for item in items]
        rows.append(
            SweepRow(
                name=name,
                num_seeds=len(by_seed),
                num_problems=max(map(len, by_seed.values()), default=0),
                accuracies=tuple(map(_accuracy, by_seed.values())),
                tokens_per_problem=math.fsum(item.num_tokens for item in pooled) / max(1, len(pooled)),
                comparison=None if first is None else compare_outcomes(first, pooled, by_text=False, seed=seed),
            )
        )
        first = first or pooled
    return rows


def _of_seed(outcome: Outcome, seed: int) -> Outcome:
    return replace(outcome, problem_id=f"{outcome.problem_id} (seed {seed})")


def _accuracy(outcomes: Sequence[Outcome]) -> float | None:
    judged = [outcome.right for outcome in outcomes if outcome.right is not None]
    return judged.count(True) / len(judged) if judged else None
