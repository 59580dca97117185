"""What speculation is worth: the same requests with it and without it, back to back, on one engine.

Knows engines, clocks and counts; knows nothing of problems, tables or the command line.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.core.seeds import derive_seed
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.request import EngineRequest

_NUM_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class SpeculationRun:
    """One problem's attempts, from the moment they arrive; their prompt is in the cache.

    Attributes:
        seconds: until the last token.
        steps: passes of the model that gave tokens.
        draws: requests that took part, over all these steps.
        drafted: guessed tokens that were computed.
        accepted: of these, what the model drew too.
        token_ids: of each attempt.
    """

    seconds: float
    steps: int
    draws: int
    drafted: int
    accepted: int
    token_ids: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> int:
        """Of all attempts."""
        return sum(map(len, self.token_ids))

    @property
    def token_s(self) -> float:
        """Seconds a token."""
        return self.seconds / self.num_tokens


@dataclass(frozen=True, slots=True)
class SpeculationPair:
    """The same attempts with speculation and without."""

    on: SpeculationRun
    off: SpeculationRun

    @property
    def speedup(self) -> float:
        """Tokens a second with speculation over those without. Lengths differ where rounding does."""
        return self.off.token_s / self.on.token_s

    @property
    def is_identical(self) -> bool:
        """Whether all attempts have the same tokens both times."""
        return self.on.token_ids == self.off.token_ids


@dataclass(frozen=True, slots=True)
class SpeculationFigures:
    """What pairs, one a problem, say together.

    Attributes:
        pairs: how many.
        tokens_per_s: with speculation, of all pairs.
        off_tokens_per_s: without.
        speedup: of all pairs: `tokens_per_s` over `off_tokens_per_s`.
        low: lower end of its 95 % interval, by resampling problems.
        high: upper end.
        median_speedup: of the pairs' own.
        worst_speedup: of the pairs' own.
        worst_pair: which one that is.
        steps_saved: share of the model's steps, a token, that speculation saved.
        tokens_per_draw: tokens that a request got in a step with speculation.
        acceptance: accepted of the drafted tokens; 0 when there were none.
        drafted_share: drafted of all tokens computed.
        identical: pairs with the same tokens.
    """

    pairs: int
    tokens_per_s: float
    off_tokens_per_s: float
    speedup: float
    low: float
    high: float
    median_speedup: float
    worst_speedup: float
    worst_pair: int
    steps_saved: float
    tokens_per_draw: float
    acceptance: float
    drafted_share: float
    identical: int


def run_pair(
    engine: Engine, prompt: Sequence[int], sampling: SamplingParams, attempts: int, name: str, *, off_first: bool
) -> SpeculationPair:
    """Run attempts at one prompt twice on an idle engine that speculates. Both runs find the prompt in the cache.

    Args:
        engine: with a `speculation`, which is taken away for one of the runs.
        prompt: token ids.
        sampling: of all attempts; each gets a seed derived from its own.
        attempts: at once.
        name: of the group; new to the engine, so that nothing is known of it.
        off_first: which run comes first.

    Raises:
        EngineError: when an attempt ends with an error, or the engine does not speculate.
    """
    speculation = engine.speculation
    if speculation is None:
        raise EngineError("this engine does not speculate: there is nothing to compare")
    found: dict[bool, SpeculationRun] = {}
    try:
        engine.speculation = None
        _run(engine, prompt, replace(sampling, max_tokens=1), 1, f"{name}/prompt")
        for is_on in (False, True) if off_first else (True, False):
            engine.speculation = speculation if is_on else None
            found[is_on] = _run(engine, prompt, sampling, attempts, f"{name}/{'on' if is_on else 'off'}")
    finally:
        engine.speculation = speculation
    return SpeculationPair(found[True], found[False])


def summarise_pairs(pairs: Sequence[SpeculationPair], seed: int = 0) -> SpeculationFigures:
    """Figures of pairs, at least one."""
    on, off = [pair.on for pair in pairs], [pair.off for pair in pairs]
    speedups = [pair.speedup for pair in pairs]
    low, high = _interval(pairs, seed)
    tokens, drafted = sum(run.num_tokens for run in on), sum(run.drafted for run in on)
    draws = sum(run.draws for run in on)
    steps, off_steps = (sum(run.steps for run in runs) / sum(run.num_tokens for run in runs) for runs in (on, off))
    return SpeculationFigures(
        pairs=len(pairs),
        tokens_per_s=1 / _token_s(on),
        off_tokens_per_s=1 / _token_s(off),
        speedup=_token_s(off) / _token_s(on),
        low=low,
        high=high,
        median_speedup=statistics.median(speedups),
        worst_speedup=min(speedups),
        worst_pair=speedups.index(min(speedups)),
        steps_saved=1 - steps / off_steps,
        tokens_per_draw=tokens / draws,
        acceptance=sum(run.accepted for run in on) / drafted if drafted else 0.0,
        drafted_share=drafted / (draws + drafted),
        identical=sum(pair.is_identical for pair in pairs),
    )


def _token_s(runs: Sequence[SpeculationRun]) -> float:
    return sum(run.seconds for run in runs) / sum(run.num_tokens for run in runs)


def _interval(pairs: Sequence[SpeculationPair], seed: int) -> tuple[float, float]:
    """95 % percentile interval of the speed-up over all pairs; pairs are drawn with replacement."""
    noise = random.Random(seed)
    found = []
    for _ in range(_NUM_RESAMPLES):
        drawn = noise.choices(pairs, k=len(pairs))
        found.append(_token_s([pair.off for pair in drawn]) / _token_s([pair.on for pair in drawn]))
    found.sort()
    tail = round(0.025 * len(found))
    return found[tail], found[len(found) - 1 - tail]


def _run(engine: Engine, prompt: Sequence[int], sampling: SamplingParams, attempts: int, group: str) -> SpeculationRun:
    start_s = time.perf_counter()
    for attempt in range(attempts):
        own = replace(sampling, seed=derive_seed(sampling.seed, attempt))
        engine.add(f"{group}/{attempt}", prompt, own, group)
    requests: dict[str, EngineRequest] = {}
    steps = draws = 0
    try:
        while engine.has_work:
            taken = set()
            for output in engine.step():
                if output.end is not None and output.end.reason == "error":
                    raise EngineError(f"attempt {output.request.request_id} ended: {output.end.message}")
                taken.add(output.request.request_id)
                requests[output.request.request_id] = output.request
            steps += bool(taken)
            draws += len(taken)
    finally:
        engine.abort(group=group)  # what an interrupt or an error has left
        while engine.has_work:
            engine.step()
    seconds = time.perf_counter() - start_s
    ordered = [requests[f"{group}/{attempt}"] for attempt in range(attempts)]
    return SpeculationRun(
        seconds,
        steps,
        draws,
        sum(request.num_drafted for request in ordered),
        sum(request.num_accepted for request in ordered),
        tuple(tuple(request.output_ids) for request in ordered),
    )
