"""AutoPrecisionManager: which precision computes the next step, by measurement and by memory (SPEC A5).

Few rows are bound by memory, where 4-bit weights win; many rows are bound by arithmetic, where int8 wins. Where the
crossing lies is measured on the machine (`calibrate`) and remembered. Under memory pressure only the smallest
precision is kept; the others are loaded again when the pressure is gone and would not come back with them. Knows
weights and seconds; knows nothing of requests.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.ops import Ops
from mathlete.ryanstream.model.weights import ModelWeights, Precision
from mathlete.ryanstream.remembered import remembered

CALIBRATION_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 64)
_REPEATS = 5
_CALIBRATION_LAYERS = 6  # enough that a layer's weights have left the processor's cache when its turn comes again


@dataclass(frozen=True, slots=True)
class PressureLimits:
    """When memory decides: above `high` only the smallest precision is kept, below `low` all are back.

    Attributes:
        high: share of memory in use.
        low: share of memory in use; below `high`, so that the choice does not flutter.
        check_s: seconds between two looks.
    """

    high: float = 0.8
    low: float = 0.6
    check_s: float = 1.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming what is out of range."""
        if not 0 < self.low < self.high <= 1:
            raise ValueError(f"low and high must be 0 < low < high <= 1, not {self.low} and {self.high}")


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Measured seconds of one layer's products: `seconds[precision][i]` for `CALIBRATION_ROWS[i]` rows."""

    seconds: Mapping[Precision, tuple[float, ...]]

    def fastest(self, num_rows: int, among: Sequence[Precision]) -> Precision:
        """The precision with the least interpolated time; ties go to the one named first."""
        return min(among, key=lambda precision: self._at(precision, num_rows))

    def _at(self, precision: Precision, num_rows: int) -> float:
        rows, seconds = CALIBRATION_ROWS, self.seconds[precision]
        above = bisect.bisect_left(rows, num_rows)
        if above == 0:
            return seconds[0]
        if above == len(rows):  # bound by arithmetic from here on
            return seconds[-1] * num_rows / rows[-1]
        share = (num_rows - rows[above - 1]) / (rows[above] - rows[above - 1])
        return seconds[above - 1] + share * (seconds[above] - seconds[above - 1])


@dataclass(frozen=True, slots=True)
class PrecisionReport:
    """What the manager did.

    Attributes:
        steps: steps computed in each precision.
        rows: rows (tokens) computed in each precision.
        switched_under_pressure: how often memory took the others away.
        restored: how often they came back.
    """

    steps: Mapping[Precision, int]
    rows: Mapping[Precision, int]
    switched_under_pressure: int
    restored: int


class AutoPrecisionManager:
    """Hands out the weights for each step."""

    def __init__(
        self,
        precisions: Sequence[Precision],
        load: Callable[[Precision], ModelWeights],
        costs: StepCosts,
        memory_in_use: Callable[[], float],
        limits: PressureLimits | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load all precisions, unless memory is short already.

        Args:
            precisions: from the smallest in memory to the largest.
            load: makes the weights of one; called again after they were dropped.
            costs: measured times.
            memory_in_use: share of memory in use, in [0, 1].
            limits: when memory decides.
            now: the clock, seconds.
        """
        self._order = tuple(precisions)
        self._load = load
        self._costs = costs
        self._memory_in_use = memory_in_use
        self._limits = limits or PressureLimits()
        self._now = now
        self._checked_s = now()
        self._kept: dict[Precision, ModelWeights] = {self._order[0]: load(self._order[0])}
        self._steps: Counter[Precision] = Counter()
        self._rows: Counter[Precision] = Counter()
        self._switched = self._restored = 0
        self._in_use_before: float | None = None  # when the others were dropped, until it was seen what that freed
        self._freed = 0.0
        if self._memory_in_use() <= self._limits.high:
            self._keep_all()

    @property
    def kept(self) -> tuple[Precision, ...]:
        """Precisions whose weights are in memory."""
        return tuple(self._kept)

    @property
    def smallest(self) -> ModelWeights:
        """The weights that are always there."""
        return self._kept[self._order[0]]

    def weights(self, num_rows: int) -> ModelWeights:
        """The weights to compute a step of `num_rows` rows with."""
        self._look_at_memory()
        chosen = self._costs.fastest(num_rows, self.kept)
        self._steps[chosen] += 1
        self._rows[chosen] += num_rows
        return self._kept[chosen]

    def report(self) -> PrecisionReport:
        """What was done so far."""
        return PrecisionReport(dict(self._steps), dict(self._rows), self._switched, self._restored)

    def _look_at_memory(self) -> None:
        if self._now() - self._checked_s < self._limits.check_s:
            return
        self._checked_s = self._now()
        in_use = self._memory_in_use()
        if self._in_use_before is not None:
            self._freed = max(0.0, self._in_use_before - in_use)
            self._in_use_before = None
        complete = len(self._kept) == len(self._order)
        if in_use > self._limits.high and len(self._kept) > 1:
            self._kept = {self._order[0]: self.smallest}  # the last reference to the others: their memory is free
            self._switched += 1
            self._in_use_before = in_use
        elif not complete and in_use < self._limits.low and in_use + self._freed <= self._limits.high:
            self._keep_all()
            self._restored += 1

    def _keep_all(self) -> None:
        for precision in self._order:
            if precision not in self._kept:
                self._kept[precision] = self._load(precision)


def calibrate(config: ModelConfig, weights: Mapping[Precision, ModelWeights], ops: Ops) -> StepCosts:
    """Time the products of a layer in each precision, for each of `CALIBRATION_ROWS`; takes about a second.

    The precisions take turns and the least time counts, so that other work on the machine disturbs the comparison
    little: what is measured here is remembered for good.
    """
    least: dict[Precision, list[float]] = {precision: [] for precision in weights}
    for num_rows in CALIBRATION_ROWS:
        turns = [
            {precision: _layer_seconds(config, model, ops, num_rows) for precision, model in weights.items()}
            for _ in range(_REPEATS + 1)  # the first reads the weights from disk
        ]
        for precision in weights:
            least[precision].append(min(turn[precision] for turn in turns[1:]))
    return StepCosts({precision: tuple(seconds) for precision, seconds in least.items()})


@torch.inference_mode()
def _layer_seconds(config: ModelConfig, model: ModelWeights, ops: Ops, num_rows: int) -> float:
    generator = torch.Generator().manual_seed(num_rows)
    x = torch.randn((num_rows, config.hidden_size), generator=generator)
    attended = torch.randn((num_rows, config.num_heads * config.head_dim), generator=generator)
    layers = model.layers[:_CALIBRATION_LAYERS]
    start = time.perf_counter()
    for layer in layers:
        ops.norm_linear(x, layer.input_norm, layer.qkv)
        ops.linear_add(attended, layer.out, x.clone())
        ops.swiglu_linear_add(ops.norm_linear(x, layer.post_norm, layer.gate_up), layer.down, x.clone())
    return (time.perf_counter() - start) / len(layers)


def remembered_costs(path: Path, precisions: Sequence[Precision], measure: Callable[[], StepCosts]) -> StepCosts:
    """The costs kept at `path`, or, when there are none of these precisions and rows, measured and kept there."""

    def read(kept: Any) -> StepCosts | None:
        costs = StepCosts({precision: tuple(map(float, kept["seconds"][precision])) for precision in precisions})
        whole = all(len(seconds) == len(CALIBRATION_ROWS) for seconds in costs.seconds.values())
        return costs if whole and kept["rows"] == list(CALIBRATION_ROWS) else None

    return remembered(path, read, measure, lambda costs: {"rows": CALIBRATION_ROWS, "seconds": costs.seconds})
