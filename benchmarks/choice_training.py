"""Fitting the conditional logit of `mathlete.cic.choice_model`, and predictions for problems that a fit did not see.

The fit is L2-regularised maximum likelihood by projected Newton steps: the weights of more votes and of support are
kept from speaking against an answer. It is deterministic. Regularisation pulls towards `PRIOR`: a judgement for the
features that no recorded pool has (checks, later rounds, several pillars), 0 for the others.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mathlete.cic.choice_model import NON_NEGATIVE, NON_POSITIVE, ChoiceModel, Weight
from mathlete.cic.pool_features import CLASS_FEATURES, OUTSIDE_FEATURES, PoolFeatures, pool_features
from mathlete.lab.recorded import RecordedProblem, read_recorded

Array = NDArray[np.float64]

NUM_FOLDS = 10
L2 = 2.0
FILE_WEIGHT = 300  # a file counts as this many problems at most, so that the largest does not speak for all
POOL_SIZES = (2, 4, 8)  # pools of these sizes are drawn from each problem, beside the whole one
# Judged, not fitted, until pools with checks are recorded. A program that a small model wrote to check an answer is
# often wrong itself; a proof that Lean accepts is not, but it may prove another statement.
PRIOR = {
    "supported_by_program": 0.7, "refuted_by_program": -0.7, "supported_by_resolution": 0.4,
    "refuted_by_resolution": -0.2, "supported_by_model": 0.7, "refuted_by_model": -0.5,
    "supported_by_proof": 1.0, "refuted_by_proof": -1.5, "proved": 4.0, "dependent_share": -0.7, "more_pillars": 0.3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingPool:
    """A pool with what is right in it.

    Attributes:
        recorded: its problem, with the attempts of this pool only.
        unit: problems of one unit are never on both sides of a split.
        features: of the pool.
        right: of each class, whether it is right.
        weight: of its likelihood.
        ranking_only: the golds come from the attempts themselves, so pools without a right answer teach nothing.
    """

    recorded: RecordedProblem
    unit: str
    features: PoolFeatures
    right: tuple[bool, ...]
    weight: float
    ranking_only: bool


def read_file(path: Path, min_attempts: int) -> list[RecordedProblem]:
    """The problems of a file with at least so many attempts that are no checks."""
    problems = (item.pooled() for item in read_recorded(path))
    return [item for item in problems if sum(not attempt.is_check for attempt in item.attempts) >= min_attempts]


def unit_of(statement: str) -> str:
    """One text for all files that hold a problem: its words, whatever the typesetting."""
    words = " ".join(re.findall(r"\w+", statement.lower()))
    return hashlib.sha256(words.encode()).hexdigest()


def fold_of(unit: str) -> int:
    """The part of the cross-validation that a unit is tested in; the same in every file and run."""
    return int(unit[:8], 16) % NUM_FOLDS


def drawn(item: RecordedProblem, size: int, seed: int = 0) -> RecordedProblem:
    """A pool of `size` of its attempts, in random order; checks of others' answers stay."""
    places = [i for i, attempt in enumerate(item.attempts) if not attempt.is_check]
    chosen = random.Random(f"{seed} {item.problem.id} {size}").sample(places, min(size, len(places)))
    chosen += [i for i, attempt in enumerate(item.attempts) if attempt.is_check]
    return replace(
        item, attempts=tuple(item.attempts[i] for i in chosen), correct=tuple(item.correct[i] for i in chosen)
    )


def right_classes(item: RecordedProblem, features: PoolFeatures) -> tuple[bool, ...]:
    """Of each class whether it is right."""
    right = {attempt.answer for attempt, is_right in zip(item.attempts, item.correct, strict=True) if is_right}
    return tuple(group.answer in right for group in features.classes)


def training_pools(
    problems: Sequence[RecordedProblem],
    *,
    ranking_only: bool = False,
    sizes: Sequence[int] = POOL_SIZES,
    file_weight: float = FILE_WEIGHT,
) -> list[TrainingPool]:
    """The pools of one file: of each problem the whole one and drawn ones; those without an answer say nothing."""
    pools = []
    share = min(1.0, file_weight / max(1, len(problems)))
    for item in problems:
        parts = [item, *(drawn(item, size) for size in sizes if size < len(item.attempts))]
        for part in parts:
            features = pool_features(part.problem, part.attempts)
            right = right_classes(part, features)
            if features.classes and (any(right) or not ranking_only):
                unit = unit_of(part.problem.statement)
                pools.append(TrainingPool(part, unit, features, right, share / len(parts), ranking_only))
    return pools


def whole_pools(problems: Sequence[RecordedProblem]) -> list[TrainingPool]:
    """The pools to fit the members of one ensemble on: every problem once, with all its attempts."""
    return training_pools(problems, sizes=(), file_weight=len(problems))


@dataclass(frozen=True, slots=True)
class _Design:
    """All alternatives of all pools, pool by pool: a pool's classes, then its outside option.

    Attributes:
        values: [num_alternatives, num_features], outside features last.
        right: [num_alternatives], 1 where the truth lies.
        starts: [num_pools], of each pool's alternatives.
        pool: [num_alternatives], which pool.
        weight: [num_pools].
        hidden: [num_alternatives], outside options that are none.
    """

    values: Array
    right: Array
    starts: NDArray[np.int64]
    pool: NDArray[np.int64]
    weight: Array
    hidden: NDArray[np.bool_]

    def chances(self, weights: Array) -> Array:
        """P of each alternative, [num_alternatives]."""
        utility = np.where(self.hidden, -np.inf, self.values @ weights)
        highest = np.maximum.reduceat(utility, self.starts)[self.pool]
        odds = np.exp(utility - highest)
        return odds / np.add.reduceat(odds, self.starts)[self.pool]

    def loss(self, chances: Array) -> float:
        """Minus the weighted log likelihood."""
        of_truth = np.add.reduceat(chances * self.right, self.starts)
        return float(-(self.weight * np.log(np.maximum(of_truth, 1e-300))).sum())


def _design(pools: Sequence[TrainingPool], class_names: Sequence[str]) -> _Design:
    width = len(class_names) + len(OUTSIDE_FEATURES)
    rows, right, sizes, hidden = [], [], [], []
    for pool in pools:
        block = np.zeros((len(pool.right) + 1, width))
        for index, group in enumerate(pool.features.classes):
            block[index, : len(class_names)] = [group.features.get(name, 0.0) for name in class_names]
        block[-1, len(class_names) :] = [pool.features.outside[name] for name in OUTSIDE_FEATURES]
        rows.append(block)
        right += [*map(float, pool.right), float(not any(pool.right))]
        hidden += [*(False for _ in pool.right), pool.ranking_only]
        sizes.append(len(block))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    weight = np.array([pool.weight for pool in pools])
    index = np.repeat(np.arange(len(pools)), sizes)
    return _Design(np.concatenate(rows), np.array(right), starts, index, weight, np.array(hidden))


def fit(
    pools: Sequence[TrainingPool],
    *,
    l2: float = L2,
    leave_out: Iterable[str] = (),
    members: Sequence[str] = (),
) -> ChoiceModel:
    """The weights that fit best.

    Args:
        pools: to learn from.
        l2: weight of the regularisation, of features scaled to a root mean square of 1.
        leave_out: class features that are not to be used.
        members: names of the members of an ensemble, which get a weight each.
    """
    left_out = set(leave_out)
    names = [*(name for name in CLASS_FEATURES if name not in left_out), *(f"member:{name}" for name in members)]
    design = _design(pools, names)
    outside = np.arange(len(design.values)) == np.append(design.starts[1:], len(design.values))[design.pool] - 1
    of_outside = np.arange(design.values.shape[1]) >= len(names)
    counted = np.where(of_outside[None, :], outside[:, None], ~outside[:, None])
    mean = (design.values * counted).sum(0) / counted.sum(0)
    scale = np.sqrt((design.values**2 * counted).sum(0) / counted.sum(0))
    unit = np.where(scale > 0, scale, 1.0)
    prior = np.array([PRIOR.get(name, 0.0) for name in names] + [0.0] * len(OUTSIDE_FEATURES)) * unit
    signs = np.array(
        [(name in NON_NEGATIVE or name.startswith("member:")) - (name in NON_POSITIVE) for name in names]
        + [0] * len(OUTSIDE_FEATURES)
    )
    scaled = replace(design, values=design.values / unit)
    weights = _newton(scaled, prior, signs, l2) / unit
    told = [Weight(float(w), float(m), float(s), bool(s > 0)) for w, m, s in zip(weights, mean, scale, strict=True)]
    return ChoiceModel(
        classes=dict(zip(names, told[: len(names)], strict=True)),
        outside=dict(zip(OUTSIDE_FEATURES, told[len(names) :], strict=True)),
    )


def _newton(design: _Design, prior: Array, signs: NDArray[np.int64], l2: float) -> Array:
    """Minimise the loss + l2/2 |weights - prior|^2 with weights[i] * signs[i] >= 0, by projected Newton steps."""
    weights = np.where(prior * signs >= 0, prior, 0.0)
    each = design.weight[design.pool]
    for _ in range(100):
        chances = design.chances(weights)
        before = design.loss(chances) + l2 / 2 * ((weights - prior) ** 2).sum()
        truth = chances * design.right
        truth = truth / np.maximum(np.add.reduceat(truth, design.starts)[design.pool], 1e-300)
        gradient = design.values.T @ (each * (chances - truth)) + l2 * (weights - prior)
        means = np.add.reduceat(design.values * chances[:, None], design.starts)  # [num_pools, num_features]
        curvature = (design.values * (each * chances)[:, None]).T @ design.values
        curvature += l2 * np.eye(len(weights)) - (means * design.weight[:, None]).T @ means
        free = ~((signs != 0) & (weights * signs <= 0) & (gradient * signs > 0))
        step = np.zeros_like(weights)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        length = 1.0
        while length > 1e-6:
            moved = weights - length * step
            moved = np.where(moved * signs < 0, 0.0, moved)
            after = design.loss(design.chances(moved)) + l2 / 2 * ((moved - prior) ** 2).sum()
            if after <= before:
                break
            length /= 2
        if before - after < 1e-8:
            break
        weights = moved
    return weights


def cross_fitted(
    pools: Sequence[TrainingPool], *, leave_out: Iterable[str] = (), members: Sequence[str] = (), l2: float = L2
) -> Mapping[int, ChoiceModel]:
    """For each fold a model that saw nothing of its problems."""
    left_out = tuple(leave_out)
    return {
        fold: fit([pool for pool in pools if fold_of(pool.unit) != fold], leave_out=left_out, members=members, l2=l2)
        for fold in range(NUM_FOLDS)
    }
