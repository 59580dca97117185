"""Where an early exit pays: how often each layer's own argmax is the model's, against what it costs. Measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mathlete.ryanstream.kv_cache import blocks_for
from mathlete.ryanstream.model.layer_cache import LayerCache, allocate_cache
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.remembered import remembered
from mathlete.ryanstream.speculative.draft_forward import draft_batch, known_rows

# What the layers are measured on when nothing else is given: a page as the models write it.
MEASURED_TEXT = (
    "Let $n$ be the number of ways to choose two distinct integers from 1 to 20 whose sum is even. The sum is even "
    "when both are even or both are odd. There are 10 even numbers and 10 odd numbers, so we have "
    "$\\binom{10}{2} + \\binom{10}{2} = 45 + 45 = 90$ ways. We can check this with a short program:\n```python\n"
    "count = 0\nfor a in range(1, 21):\n    for b in range(a + 1, 21):\n        if (a + b) % 2 == 0:\n"
    "            count += 1\nprint(count)\n```\nThe program prints 90. Therefore, the answer is $\\boxed{90}$.\n"
)
_NUM_PLACES = 64
_REPEATS = 3
_MANY_ROWS = 9


class StepTimes(NamedTuple):
    """Seconds of one row: of a layer, of the head; and what each further row of a whole pass adds."""

    layer_s: float
    head_s: float
    further_row_s: float


class ExitLayer(NamedTuple):
    """One place to leave at.

    Attributes:
        num_layers: layers below it.
        agreement: how often its argmax was the model's.
        cost: seconds of one of its passes, in those of the whole model.
        depth: the chain that is expected to pay most.
        speed_up: what that is expected to give; below 1 it costs more than it saves.
    """

    num_layers: int
    agreement: float
    cost: float
    depth: int
    speed_up: float


@dataclass(frozen=True, slots=True)
class ExitChoice:
    """What was measured.

    Attributes:
        layers: every place to leave at, the lowest first; at least one.
    """

    layers: tuple[ExitLayer, ...]

    def __post_init__(self) -> None:
        """Raise `ValueError` where there is no layer to leave at."""
        if not self.layers:
            raise ValueError("a model of one layer cannot be left early")

    @property
    def best(self) -> ExitLayer:
        """The place with the greatest expected speed-up."""
        return max(self.layers, key=lambda layer: layer.speed_up)

    @property
    def exit_layer(self) -> int | None:
        """Where to leave, or None when none pays."""
        return self.best.num_layers if self.best.speed_up > 1 else None

    def describe(self) -> str:
        """One line for a person."""
        best = self.best
        told = f"layer {best.num_layers} agrees in {best.agreement:.0%} of places at {best.cost:.0%} of the cost"
        if self.exit_layer is None:
            return f"no exit pays; the best, {told}, would give {best.speed_up:.2f}x"
        return f"{told}: {best.speed_up:.2f}x expected with {best.depth} guesses"


def choose_exit_layer(
    model: Transformer, token_ids: Sequence[int], kv_dtype: torch.dtype, max_depth: int, times: StepTimes | None = None
) -> ExitChoice:
    """Measure every layer on a text.

    Args:
        model: the target, with the weights that decode.
        token_ids: the text.
        kv_dtype: of the target's cache.
        max_depth: guesses in a row at most.
        times: what a pass costs; measured when None.
    """
    cache = allocate_cache(model.config, blocks_for(len(token_ids)), kv_dtype, model.weights.embedding.device)
    batch = _text_batch(model, token_ids)
    agreements = _agreements(model, batch, cache)
    times = times or measure_times(model, token_ids, cache)
    return ExitChoice(
        tuple(_judged(i, a, model.config.num_layers, times, max_depth) for i, a in enumerate(agreements, 1))
    )


def remembered_choice(path: Path, measure: Callable[[], ExitChoice]) -> ExitChoice:
    """The choice kept at `path`, or, when there is none, one measured and kept there."""

    def read(kept: Any) -> ExitChoice:
        return ExitChoice(tuple(ExitLayer(int(a), float(b), float(c), int(d), float(e)) for a, b, c, d, e in kept))

    return remembered(path, read, measure, lambda choice: choice.layers)


def expected_speed_up(agreement: float, cost: float, further_row: float, depth: int) -> float:
    """Tokens a second with chains of `depth`, in those of none (Leviathan et al. 2023, theorem 3.8).

    `cost` is that of one guess and `further_row` that of verifying it, both in passes of the whole model. Guesses are
    taken to be right independently of each other.
    """
    tokens = sum(agreement**right for right in range(depth + 1))
    return tokens / (1 + depth * (cost + further_row))


def measure_times(
    model: Transformer,
    token_ids: Sequence[int],
    cache: Sequence[LayerCache],
    clock: Callable[[], float] = time.perf_counter,
) -> StepTimes:
    """The least of a few repeats, for each kind of pass."""
    one, many = (_text_batch(model, token_ids[:num]) for num in (1, min(_MANY_ROWS, len(token_ids))))

    def least(batch: ForwardBatch, num_layers: int) -> float:
        seconds = []
        for _ in range(_REPEATS + 1):  # the first reads the weights from disk
            start = clock()
            model.logits(model.layers(model.embed(batch.token_ids), batch, cache, stop=num_layers))
            seconds.append(clock() - start)
        return min(seconds[1:])

    num_layers, num_rows = model.config.num_layers, len(many.token_ids)
    head_s, whole_s = least(one, 0), least(one, num_layers)
    further_s = max(0.0, least(many, num_layers) - whole_s) / max(1, num_rows - 1)
    return StepTimes(max(0.0, whole_s - head_s) / num_layers, head_s, further_s)


def _judged(num_layers: int, agreement: float, num_all: int, times: StepTimes, max_depth: int) -> ExitLayer:
    whole_s = num_all * times.layer_s + times.head_s
    cost = (num_layers * times.layer_s + times.head_s) / whole_s
    gains = [
        expected_speed_up(agreement, cost, times.further_row_s / whole_s, depth) for depth in range(1, max_depth + 1)
    ]
    best = max(range(max_depth), key=lambda i: gains[i])
    return ExitLayer(num_layers, agreement, cost, best + 1, gains[best])


def _agreements(model: Transformer, batch: ForwardBatch, cache: Sequence[LayerCache]) -> list[float]:
    """Of layers 1 .. all but the last."""
    num_rows = len(batch.token_ids)
    rows = torch.linspace(0, num_rows - 1, min(_NUM_PLACES, num_rows), device=batch.token_ids.device).long()
    x = model.embed(batch.token_ids)
    argmaxes = []
    for layer in range(model.config.num_layers):
        x = model.layers(x, batch, cache, layer, layer + 1)
        argmaxes.append(model.logits(x[rows]).argmax(-1))
    return [float((argmax == argmaxes[-1]).float().mean()) for argmax in argmaxes[:-1]]


def _text_batch(model: Transformer, token_ids: Sequence[int]) -> ForwardBatch:
    blocks = list(range(blocks_for(len(token_ids))))
    batch = draft_batch(known_rows(token_ids, 0, blocks, 0, samples=True), [blocks])
    return batch.to(model.weights.embedding.device)
