"""Published ways to stretch rotary embedding over longer texts, each brought to divisors of the frequencies.

Pure arithmetic in float64, as `transformers.modeling_rope_utils` defines it; knows neither files nor tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mathlete.ryanstream.model.config import RopeScaling

KNOWN_SCALINGS = ("linear", "llama3", "yarn")


def rope_scaling_from(
    parameters: Mapping[str, Any], head_dim: int, theta: float, max_positions: int
) -> RopeScaling | None:
    """What Hugging Face's `rope_scaling` or `rope_parameters` entry of a config.json comes to.

    Args:
        parameters: the entry; may be empty.
        head_dim: width of a head.
        theta: base of the plain frequencies.
        max_positions: the model's longest context, tokens.

    Raises:
        ValueError: for a scheme that is not known or lacks a number.
    """
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("rotary embedding of a part of each head (partial_rotary_factor) is not known")
    if kind == "default":
        return None
    if kind not in KNOWN_SCALINGS:
        raise ValueError(f"rotary scaling {kind!r} is not known (known: {', '.join(KNOWN_SCALINGS)})")
    try:
        if kind == "linear":
            return linear_scaling(head_dim, float(parameters["factor"]))
        original = int(parameters.get("original_max_position_embeddings") or max_positions)
        if kind == "llama3":
            low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
            return llama3_scaling(head_dim, theta, float(parameters["factor"]), low, high, original)
        return yarn_scaling(
            head_dim, theta, float(parameters["factor"]), original,
            attention_factor=_yarn_attention_factor(parameters),
            beta_fast=float(parameters.get("beta_fast") or 32), beta_slow=float(parameters.get("beta_slow") or 1),
            truncate=bool(parameters.get("truncate", True)),
        )  # fmt: skip
    except KeyError as error:
        raise ValueError(f"rotary scaling {kind!r} lacks {error}") from error


def plain_frequencies(head_dim: int, theta: float) -> list[float]:
    """Radians a position of each pair, theta^(-2i / D) (Su et al. 2021)."""
    return [theta ** (-i / head_dim) for i in range(0, head_dim, 2)]


def linear_scaling(head_dim: int, factor: float) -> RopeScaling:
    """Position interpolation (Chen et al. 2023): all frequencies divided by `factor`."""
    return RopeScaling((factor,) * (head_dim // 2))


def llama3_scaling(
    head_dim: int, theta: float, factor: float, low_freq_factor: float, high_freq_factor: float, original: int
) -> RopeScaling:
    """Llama 3.1's scheme: long waves are divided by `factor`, short ones kept, those between interpolated.

    A wave is long above `original / low_freq_factor` positions and short below `original / high_freq_factor`.
    """
    divisors = []
    for frequency in plain_frequencies(head_dim, theta):
        wave = 2 * math.pi / frequency
        smooth = (original / wave - low_freq_factor) / (high_freq_factor - low_freq_factor)
        smooth = min(1.0, max(0.0, smooth))
        divisors.append(1 / ((1 - smooth) / factor + smooth))
    return RopeScaling(tuple(divisors))


def yarn_scaling(
    head_dim: int, theta: float, factor: float, original: int, *,
    attention_factor: float | None = None, beta_fast: float = 32.0, beta_slow: float = 1.0, truncate: bool = True,
) -> RopeScaling:  # fmt: skip
    """YaRN (Peng et al. 2023): pairs that turn more than `beta_fast` times in `original` positions are kept.

    Those that turn less than `beta_slow` times are divided by `factor`, a linear ramp over the pairs lies between.
    """

    def pair_turning(rotations: float) -> float:
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_turning(beta_fast), pair_turning(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low if high != low else 0.001
    divisors = []
    for pair in range(head_dim // 2):
        interpolated = min(1.0, max(0.0, (pair - low) / width))
        divisors.append(1 / (interpolated / factor + 1 - interpolated))
    return RopeScaling(tuple(divisors), yarn_temperature(factor) if attention_factor is None else attention_factor)


def yarn_temperature(factor: float, weight: float = 1.0) -> float:
    """YaRN's factor of cosines and sines, 0.1 `weight` ln(`factor`) + 1."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _yarn_attention_factor(parameters: Mapping[str, Any]) -> float | None:
    """As the entry states it; DeepSeek states it as a quotient of two temperatures."""
    given = parameters.get("attention_factor")
    if given is not None:
        return float(given)
    above, below = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if above and below:
        factor = float(parameters["factor"])
        return yarn_temperature(factor, above) / yarn_temperature(factor, below)
    return None
