"""Where the weights of the rule `triad` come from, and how well they do on problems they were not fitted on.

usage: train_selector.py FILE... [--ranking-only FILE...] --out src/mathlete/cic/triad_weights.json
       train_selector.py ENSEMBLE.jsonl --members --out members.json

FILE is recorded attempts in the interchange format, plain or gzipped. `--ranking-only` names files whose golds were
inferred from their own attempts: from them only the order of answers is learned, never the chance that none is right.
`--members` gives each model of an ensemble a weight of its own (`cic.triad_selector.MemberVote`).

Every figure that is written is of ten-fold cross-validation: a problem is judged by weights that were fitted without
it and without the same text in another file. Then the weights are fitted on everything. No problem, answer or text is
written. Takes about a minute; run it with OPENBLAS_NUM_THREADS=1 where other programs need the processors.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from choice_training import (
    FILE_WEIGHT,
    L2,
    NUM_FOLDS,
    TrainingPool,
    cross_fitted,
    drawn,
    fit,
    fold_of,
    read_file,
    right_classes,
    training_pools,
    unit_of,
    whole_pools,
)

from mathlete.cic.choice_model import ChoiceModel
from mathlete.cic.pool_features import member_name, pool_features
from mathlete.lab.calibration import calibration
from mathlete.lab.metrics import majority_score
from mathlete.lab.recorded import RecordedProblem

MIN_TRAINED = 2  # attempts of a problem to learn from
MIN_JUDGED = 4  # attempts of a problem to judge on
SMALL_POOL = 8  # attempts of a live pool; figures are also given for so many drawn from each problem


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model that did not see the problem says of a pool.

    Attributes:
        chance: that it gives the answer it chooses.
        right: whether that is right; a share where equally likely answers share the choice.
        log_loss: minus the log of the chance that it gave to the truth, nats.
        majority: chance that a plain vote is right.
    """

    chance: float
    right: float
    log_loss: float
    majority: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, judge, write."""
    options = _parser().parse_args(arguments)
    ranking_only = set(options.ranking_only)
    files = list(dict.fromkeys([*options.files, *options.ranking_only]))
    problems = {path: read_file(path, MIN_TRAINED) for path in files}
    pools = [
        pool
        for path in files
        for pool in (
            whole_pools(problems[path])
            if options.members
            else training_pools(problems[path], ranking_only=path in ranking_only)
        )
    ]
    names = _members(pools) if options.members else ()
    models = cross_fitted(pools, members=names)
    judged: dict[str, Any] = {}
    small: list[Prediction] = []
    for path in files:
        whole, part = predictions(problems[path], models), predictions(problems[path], models, SMALL_POOL)
        judged[path.name] = {"all attempts": _figures(whole), f"{SMALL_POOL} attempts": _figures(part)}
        small += [] if path in ranking_only else part
    curve = calibration([item.chance for item in small], [item.right for item in small]) if small else None
    training = {
        "method": f"conditional logit, outside option, L2 {L2:g}"
        + ("" if options.members else f", a file counts as {FILE_WEIGHT} problems at most"),
        "judged": f"{NUM_FOLDS}-fold cross-validation by problem text over all files",
        "files": [_provenance(path, problems[path], path in ranking_only) for path in files],
        "num_pools": len(pools),
    }
    held_out = {"files": judged, "calibration": None if curve is None else asdict(curve)}
    model = replace(fit(pools, members=names), training=training, held_out=_rounded(held_out))
    options.out.write_text(model.to_json(), encoding="utf-8")
    _show(model)


def predictions(
    problems: Sequence[RecordedProblem], models: Mapping[int, ChoiceModel], size: int | None = None
) -> list[Prediction]:
    """What is said of each problem with answers, of all its attempts or of `size` drawn ones."""
    told = []
    for item in problems:
        if sum(not attempt.is_check for attempt in item.attempts) < MIN_JUDGED:
            continue
        pool = item if size is None else drawn(item, size)
        features = pool_features(pool.problem, pool.attempts)
        majority = majority_score([attempt.answer for attempt in pool.attempts], pool.correct)
        if not features.classes:
            told.append(Prediction(0.0, 0.0, 0.0, majority))
            continue
        chances = models[fold_of(unit_of(pool.problem.statement))].probabilities(features)
        right = right_classes(pool, features)
        highest = max(chances)
        chosen = [is_right for chance, is_right in zip(chances, right, strict=True) if chance >= highest - 1e-12]
        of_truth = math.fsum(chance for chance, is_right in zip(chances, right, strict=True) if is_right)
        truth = of_truth if any(right) else 1 - math.fsum(chances)
        told.append(Prediction(highest, sum(chosen) / len(chosen), -math.log(max(truth, 1e-12)), majority))
    return told


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--ranking-only", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--members", action="store_true", help="a weight for each model of the ensemble")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def _members(pools: Sequence[TrainingPool]) -> tuple[str, ...]:
    return tuple(sorted({member_name(attempt) for pool in pools for attempt in pool.recorded.attempts}))


def _figures(told: Sequence[Prediction]) -> dict[str, float | int] | None:
    if not told:
        return None
    result = calibration([item.chance for item in told], [item.right for item in told])
    means = {
        name: math.fsum(getattr(item, field) for item in told) / len(told)
        for name, field in (("accuracy", "right"), ("majority", "majority"), ("log_loss", "log_loss"))
    }
    return {"problems": len(told), **means, "ece": result.ece, "brier": result.brier}


def _provenance(path: Path, problems: Sequence[RecordedProblem], ranking_only: bool) -> dict[str, Any]:
    return {
        "name": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "problems": len(problems),
        "attempts": sum(len(item.attempts) for item in problems),
        "ranking_only": ranking_only,
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def _show(model: ChoiceModel) -> None:
    print(f"{'feature':<24}{'weight':>9}{'x scale':>9}")
    for name, item in {**model.classes, **model.outside}.items():
        print(f"{name:<24}{item.weight:>9.3f}{item.weight * item.scale:>9.3f}{'' if item.fitted else '  prior'}")
    for name, sizes in model.held_out["files"].items():
        for size, figures in sizes.items():
            told = ", ".join(f"{key} {value}" for key, value in figures.items()) if figures else "too few attempts"
            print(f"{name}, {size}: {told}")
    if curve := model.held_out["calibration"]:
        print(f"calibration of pools of {SMALL_POOL}: ECE {curve['ece']}, Brier {curve['brier']}, n {curve['count']}")


if __name__ == "__main__":
    sys.exit(main())
