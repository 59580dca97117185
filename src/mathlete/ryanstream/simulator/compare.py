"""The same trace under several policies, with intervals. Every policy computes the same output tokens.

First-come-first-served here is the scheduler as it is, without lookahead: a baseline that was run, not made up.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mathlete.ryanstream.lookahead import Lookahead
from mathlete.ryanstream.policy import FairShare, FirstComeFirstServed, SchedulingPolicy, ShortestFirst
from mathlete.ryanstream.simulator.foresight import SimulatedLookahead
from mathlete.ryanstream.simulator.run import SimulationConfig, SimulationResult, simulate
from mathlete.ryanstream.simulator.trace import Trace, TraceRequest, reordered

_NUM_RESAMPLES = 1000
_LEVEL = 0.95


class Scheduling(NamedTuple):
    """A policy and the lookahead it works with."""

    policy: SchedulingPolicy
    lookahead: Lookahead | None


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval; the problem is the unit of resampling."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """A policy over all orders of arrival. Counts and rates are means over the orders.

    Attributes:
        policy: its name.
        num_runs: orders of arrival.
        settled_s: mean time to a problem's first settled vote.
        settled_ratio: of those times to first-come-first-served's, paired by problem.
        latency_s: mean time from a request's arrival to its end.
        latency_median_s: median of that.
        latency_p95_s: 95th percentile of that.
        stalls: request-steps spent waiting though they could have been served.
        stalls_for_prefix: those of them spent waiting for a sibling to compute the prompt.
        waiting_steps: request-steps spent waiting.
        num_preemptions: requests put aside.
        num_tokens: output tokens.
        num_computed: tokens computed, recomputed ones included.
        tokens_per_s: output tokens a second.
        jain: fairness over problems at half of the work; see `SimulationResult`.
    """

    policy: str
    num_runs: int
    settled_s: Interval
    settled_ratio: Interval
    latency_s: Interval
    latency_median_s: float
    latency_p95_s: float
    stalls: float
    stalls_for_prefix: float
    waiting_steps: float
    num_preemptions: float
    num_tokens: float
    num_computed: float
    tokens_per_s: float
    jain: float


def _by_arrival(lengths: Mapping[str, int], seed: int) -> Scheduling:
    return Scheduling(FirstComeFirstServed(), None)


def _by_arrival_with_lookahead(lengths: Mapping[str, int], seed: int) -> Scheduling:
    return Scheduling(FirstComeFirstServed(), SimulatedLookahead(lengths, seed))


def _shortest_known(lengths: Mapping[str, int], seed: int) -> Scheduling:
    return Scheduling(ShortestFirst(lambda r: lengths[r.request_id] - len(r.output_ids), fixed=True), None)


def _shortest_predicted(lengths: Mapping[str, int], seed: int) -> Scheduling:
    lookahead = SimulatedLookahead(lengths, seed)
    return Scheduling(ShortestFirst(lookahead.expected_remaining), lookahead)


def _fair(lengths: Mapping[str, int], seed: int) -> Scheduling:
    return Scheduling(FairShare(), SimulatedLookahead(lengths, seed))


def _even(lengths: Mapping[str, int], seed: int) -> Scheduling:
    return Scheduling(FairShare(quantum=256), SimulatedLookahead(lengths, seed))


POLICIES: Mapping[str, Callable[[Mapping[str, int], int], Scheduling]] = {
    "fcfs": _by_arrival,
    "fcfs+lookahead": _by_arrival_with_lookahead,
    "sjf, known lengths": _shortest_known,
    "sjf, predicted lengths": _shortest_predicted,
    "fair+lookahead": _fair,
    "fair+lookahead, small quantum": _even,
}


def compare_policies(
    trace: Sequence[TraceRequest], config: SimulationConfig | None = None, num_orders: int = 5
) -> list[PolicyResult]:
    """Run every policy of `POLICIES` over the trace, its problems arriving in `num_orders` different orders.

    Raises:
        EngineError: when a request could not be held by the whole KV pool.
        ValueError: when the trace is empty or `num_orders` is less than one.
    """
    if not trace or num_orders < 1:
        raise ValueError("compare_policies needs a trace and at least one order of arrival")
    config = config or SimulationConfig()
    orders = [reordered(trace, seed) for seed in range(num_orders)]
    lengths = {request.request_id: request.num_output for request in trace}
    runs = {
        name: [simulate(order, config, *make(lengths, seed)) for seed, order in enumerate(orders)]
        for name, make in POLICIES.items()
    }
    return [_summary(name, results, runs["fcfs"], orders[0]) for name, results in runs.items()]


def _summary(
    name: str, results: Sequence[SimulationResult], baseline: Sequence[SimulationResult], trace: Trace
) -> PolicyResult:
    groups = list(dict.fromkeys(request.group for request in trace))
    settled = {group: statistics.fmean(r.settled_s[group] for r in results) for group in groups}
    settled_before = {group: statistics.fmean(r.settled_s[group] for r in baseline) for group in groups}
    latencies: dict[str, list[float]] = {group: [] for group in groups}
    for request in trace:
        latencies[request.group] += [
            r.latency_s[request.request_id] for r in results if request.request_id in r.latency_s
        ]
    every = sorted(value for values in latencies.values() for value in values)

    def mean(read: Callable[[SimulationResult], float]) -> float:
        return statistics.fmean(read(result) for result in results)

    return PolicyResult(
        policy=name,
        num_runs=len(results),
        settled_s=_interval(groups, lambda some: statistics.fmean(settled[g] for g in some)),
        settled_ratio=_interval(
            groups, lambda some: sum(settled[g] for g in some) / sum(settled_before[g] for g in some)
        ),
        latency_s=_interval(groups, lambda some: statistics.fmean(v for g in some for v in latencies[g])),
        latency_median_s=every[len(every) // 2],
        latency_p95_s=every[min(len(every) - 1, int(0.95 * len(every)))],
        stalls=mean(lambda r: r.stalls),
        stalls_for_prefix=mean(lambda r: r.stalls_for_prefix),
        waiting_steps=mean(lambda r: r.waiting_steps),
        num_preemptions=mean(lambda r: r.num_preemptions),
        num_tokens=mean(lambda r: r.num_tokens),
        num_computed=mean(lambda r: r.num_computed),
        tokens_per_s=mean(lambda r: r.num_tokens / r.seconds),
        jain=mean(lambda r: r.jain),
    )


def _interval(groups: Sequence[str], statistic: Callable[[Sequence[str]], float]) -> Interval:
    """Percentile bootstrap over problems."""
    rng = random.Random(0)
    drawn = sorted(statistic(rng.choices(groups, k=len(groups))) for _ in range(_NUM_RESAMPLES))
    tail = (1 - _LEVEL) / 2
    return Interval(
        statistic(groups),
        drawn[int(tail * _NUM_RESAMPLES)],
        drawn[min(_NUM_RESAMPLES - 1, int((1 - tail) * _NUM_RESAMPLES))],
    )
