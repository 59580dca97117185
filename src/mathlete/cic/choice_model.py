"""A conditional logit over the answers of a pool, with the outside option that none of them is right. Pure.

P(class) = exp(u) / (exp(u_0) + sum of exp(u)), each u a weighted sum of features (McFadden 1974, "Conditional logit
analysis of qualitative choice behavior"). Knows its weights and where they come from. Does not know how features are
made (`pool_features.py` does) nor how weights are fitted (benchmarks/train_selector.py does).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from mathlete.cic.pool_features import CLASS_FEATURES, OUTSIDE_FEATURES, PoolFeatures
from mathlete.core.errors import InputError

FORMAT = 1
SHIPPED_WEIGHTS = "triad_weights.json"
# More of these never speaks against a class, less of them never for it; the trainer keeps to it, `load` insists.
NON_NEGATIVE = frozenset(("log_votes", "vote_share", "supported_by_program", "supported_by_model",
                          "supported_by_proof", "proved"))  # fmt: skip
NON_POSITIVE = frozenset(("refuted_by_program", "refuted_by_model", "refuted_by_proof"))


@dataclass(frozen=True, slots=True)
class Weight:
    """What one feature counts.

    Attributes:
        weight: added to the utility for each unit of the feature, nats.
        mean: of the feature over the training data, for the reader.
        scale: its root mean square there, for the reader: weight * scale compares features.
        fitted: False for a prior that no training data spoke about.
    """

    weight: float
    mean: float = 0.0
    scale: float = 0.0
    fitted: bool = True


@dataclass(frozen=True, slots=True)
class ChoiceModel:
    """The fitted model.

    Attributes:
        classes: weights of features of classes, by name.
        outside: weights of features of the outside option, by name.
        training: what it was fitted on: files with their counts and hashes, and how.
        held_out: figures on problems that the fit did not see.
    """

    classes: Mapping[str, Weight]
    outside: Mapping[str, Weight]
    training: Mapping[str, Any] = field(default_factory=dict)
    held_out: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, pool: PoolFeatures) -> tuple[float, ...]:
        """P(right) of each class of the pool, in its order; what is missing to 1 is P(none of them is right)."""
        utilities = [_utility(self.classes, item.features) for item in pool.classes]
        nothing = _utility(self.outside, pool.outside)
        highest = max([nothing, *utilities])
        weights = [math.exp(utility - highest) for utility in utilities]
        total = math.fsum(weights) + math.exp(nothing - highest)
        return tuple(weight / total for weight in weights)

    def contributions(self, pool: PoolFeatures, index: int) -> dict[str, float]:
        """What each feature adds to the utility of a class, nats; those that add nothing are left out."""
        features = pool.classes[index].features
        added = {name: item.weight * features.get(name, 0.0) for name, item in self.classes.items()}
        return {name: value for name, value in added.items() if value}

    def to_json(self) -> str:
        """The model as a file for people and `load_model`."""
        data = {"format": FORMAT, **asdict(self)}
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def load_model(text: str, where: str) -> ChoiceModel:
    """The model that `to_json` wrote.

    Args:
        text: of the file.
        where: the file's name, for messages.

    Raises:
        InputError: it is no such file, of another format, or names a feature that does not exist.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: the weights are not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{where}: not a file of weights of format {FORMAT}; train it again")
    model = ChoiceModel(
        classes=_weights(data, "classes", where),
        outside=_weights(data, "outside", where),
        training=data.get("training", {}),
        held_out=data.get("held_out", {}),
    )
    _check_names(model, where)
    return model


@lru_cache(maxsize=1)
def shipped_model() -> ChoiceModel:
    """The weights that come with the package."""
    resource = files("mathlete.cic").joinpath(SHIPPED_WEIGHTS)
    return load_model(resource.read_text(encoding="utf-8"), SHIPPED_WEIGHTS)


def _utility(weights: Mapping[str, Weight], features: Mapping[str, float]) -> float:
    return math.fsum(item.weight * features[name] for name, item in weights.items() if name in features)


def _weights(data: Mapping[str, Any], name: str, where: str) -> dict[str, Weight]:
    try:
        weights = {key: Weight(**value) for key, value in data[name].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{where}: {name!r} must map features to their weights ({error})") from error
    wrong = [key for key, value in weights.items() if not _is_finite(value.weight)]
    if wrong:
        raise InputError(f"{where}: the weight of {wrong[0]!r} is not a finite number")
    return weights


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _check_names(model: ChoiceModel, where: str) -> None:
    unknown = [name for name in model.classes if name not in CLASS_FEATURES and not name.startswith("member:")]
    unknown += [name for name in model.outside if name not in OUTSIDE_FEATURES]
    if unknown:
        raise InputError(f"{where}: there is no feature {unknown[0]!r}; train the weights again")
    for name, item in model.classes.items():
        if (name in NON_NEGATIVE and item.weight < 0) or (name in NON_POSITIVE and item.weight > 0):
            raise InputError(f"{where}: the weight of {name!r} has the wrong sign: {item.weight:g}")
