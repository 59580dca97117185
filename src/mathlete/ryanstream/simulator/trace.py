"""What is asked of a simulated engine: recorded attempts, or made-up ones with lengths like theirs."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CHARACTERS_A_TOKEN = 3.5
_CHAT_TOKENS = 40


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace.

    Attributes:
        request_id: unique in the trace.
        group: its problem.
        num_prompt: prompt tokens; siblings share them all. With `follows`, those added after that one's output.
        num_output: output tokens, at least one; known to nobody but the simulator (and an oracle).
        arrival_s: when it comes; with `follows`, that long after that one's end.
        answer: what it votes for, or None.
        follows: the request whose next turn it is, or None.
        priority: lower goes first.
    """

    request_id: str
    group: str
    num_prompt: int
    num_output: int
    arrival_s: float = 0.0
    answer: str | None = None
    follows: str | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("num_prompt", "num_output"):
            if getattr(self, name) < 1:
                raise ValueError(f"TraceRequest.{name} must be >= 1, not {getattr(self, name)}")
        if not 0 <= self.arrival_s < math.inf:
            raise ValueError(f"TraceRequest.arrival_s must be >= 0 and finite, not {self.arrival_s}")


Trace = tuple[TraceRequest, ...]


def trace_from_attempts(
    problems: Iterable[Mapping[str, Any]], length_scale: float = 1.0, interval_s: float = 0.0, min_attempts: int = 2
) -> Trace:
    """Recorded attempts in the interchange form as a trace.

    Args:
        problems: one mapping a problem, with `problem_id`, `problem` and `attempts` (`tokens`, `answer`). Attempts
            without `tokens` are left out.
        length_scale: factor on the lengths, to make very long ones affordable.
        interval_s: between the arrivals of two problems.
        min_attempts: problems with fewer are left out.
    """
    requests: list[TraceRequest] = []
    num_problems = 0
    for problem in problems:
        attempts = [attempt for attempt in problem["attempts"] if attempt.get("tokens")]
        if len(attempts) < min_attempts:
            continue
        group = str(problem["problem_id"])
        num_prompt = _CHAT_TOKENS + round(len(problem["problem"]) / _CHARACTERS_A_TOKEN)
        for number, attempt in enumerate(attempts):
            num_output = max(1, round(attempt["tokens"] * length_scale))
            arrival_s = num_problems * interval_s
            requests.append(
                TraceRequest(f"{group}#{number}", group, num_prompt, num_output, arrival_s, attempt.get("answer"))
            )
        num_problems += 1
    return tuple(requests)


@dataclass(frozen=True, slots=True)
class LengthModel:
    """Output lengths: log-normal, with a part that all attempts of a problem share.

    The defaults were fitted to 480 attempts of Qwen2.5-Coder-1.5B-Instruct at 60 competition problems.

    Attributes:
        mean: of the logarithm of the length.
        between_sd: of the problems' means.
        within_sd: of the attempts of one problem.
    """

    mean: float = 5.94
    between_sd: float = 0.52
    within_sd: float = 0.48


def fit_length_model(trace: Sequence[TraceRequest]) -> LengthModel:
    """Moments of the log-lengths of a trace (analysis of variance of one factor).

    Raises:
        ValueError: unless two groups have at least two requests each.
    """
    groups: dict[str, list[float]] = {}
    for request in trace:
        groups.setdefault(request.group, []).append(math.log(request.num_output))
    several = [logs for logs in groups.values() if len(logs) > 1]
    if len(several) < 2:
        raise ValueError("fit_length_model needs two groups of at least two requests")
    within = statistics.fmean(statistics.variance(logs) for logs in several)
    means = [statistics.fmean(logs) for logs in several]
    noise = within * statistics.fmean(1 / len(logs) for logs in several)
    between = max(0.0, statistics.variance(means) - noise)
    return LengthModel(statistics.fmean(means), math.sqrt(between), math.sqrt(within))


def synthetic_trace(
    num_groups: int,
    num_attempts: int,
    seed: int,
    lengths: LengthModel | None = None,
    num_prompt: int = 200,
    interval_s: float = 0.0,
    max_output: int = 2048,
) -> Trace:
    """Made-up problems. An attempt is right with a chance drawn for its problem, else has one of three answers."""
    rng = random.Random(seed)
    lengths = lengths or LengthModel()
    requests: list[TraceRequest] = []
    for number in range(num_groups):
        group = f"problem-{number}"
        centre = rng.gauss(lengths.mean, lengths.between_sd)
        chance = rng.betavariate(1.0, 1.0)
        for attempt in range(num_attempts):
            num_output = min(max_output, max(1, round(math.exp(rng.gauss(centre, lengths.within_sd)))))
            answer = "right" if rng.random() < chance else f"wrong-{rng.randrange(3)}"
            name = f"{group}#{attempt}"
            requests.append(TraceRequest(name, group, num_prompt, num_output, number * interval_s, answer))
    return tuple(requests)


def reordered(trace: Sequence[TraceRequest], seed: int) -> Trace:
    """The same problems in another order of arrival: their arrival times are dealt out anew (seed 0: as it is)."""
    if seed == 0:
        return tuple(trace)
    groups = list(dict.fromkeys(request.group for request in trace))
    begins = {group: min(r.arrival_s for r in trace if r.group == group and r.follows is None) for group in groups}
    dealt = groups.copy()
    random.Random(seed).shuffle(dealt)
    new_begin = dict(zip(dealt, begins.values(), strict=True))
    place = {group: number for number, group in enumerate(dealt)}
    moved = [
        request
        if request.follows is not None
        else _moved(request, request.arrival_s - begins[request.group] + new_begin[request.group])
        for request in trace
    ]
    return tuple(sorted(moved, key=lambda request: place[request.group]))


def _moved(request: TraceRequest, arrival_s: float) -> TraceRequest:
    return TraceRequest(
        request.request_id,
        request.group,
        request.num_prompt,
        request.num_output,
        arrival_s,
        request.answer,
        request.follows,
        request.priority,
    )
