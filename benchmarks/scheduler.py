"""Scheduling policies on recorded lengths: the engine's own scheduler and KV pool, without a model.

usage: scheduler.py [TRACE ...] [--slots 32] [--blocks 4096,512] [--scale 1] [--interval 0] [--orders 3] [--json]

TRACE is a file of recorded attempts in the interchange form (.jsonl or .jsonl.gz; attempts need `tokens`); without
one, made-up problems with lengths like recorded ones. `--scale` shortens very long attempts, `--interval` is the time
between two problems' arrivals, `--orders` the number of orders in which the problems arrive. All policies compute the
same output tokens. Seconds are those of the step-cost model (0.5B, one core): only their ratios mean something.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

from mathlete.ryanstream.simulator import (
    PolicyResult,
    SimulationConfig,
    Trace,
    compare_policies,
    fit_length_model,
    synthetic_trace,
    trace_from_attempts,
)

_MIN_ATTEMPTS = 4


def read_problems(path: Path) -> list[dict[str, Any]]:
    """Lines of an interchange file."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def report(title: str, results: list[PolicyResult]) -> None:
    """A table; times relative to first-come-first-served have their 95 % interval over problems."""
    print(f"\n{title}; {results[0].num_runs} orders of arrival, {results[0].num_tokens:.0f} output tokens each")
    print("| policy | settled vote, s | vs fcfs | latency mean / median / p95, s | stalls | for a prefix | waiting "
          "| put aside | computed per token | tokens/s | Jain |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for r in results:
        ratio = f"{r.settled_ratio.mean:.3f} [{r.settled_ratio.low:.3f}, {r.settled_ratio.high:.3f}]"
        latency = f"{r.latency_s.mean:.0f} / {r.latency_median_s:.0f} / {r.latency_p95_s:.0f}"
        print(f"| {r.policy} | {r.settled_s.mean:.0f} | {ratio} | {latency} | {r.stalls:,.0f} "
              f"| {r.stalls_for_prefix:,.0f} | {r.waiting_steps:,.0f} | {r.num_preemptions:,.0f} "
              f"| {r.num_computed / r.num_tokens:.2f} | {r.tokens_per_s:.0f} | {r.jain:.2f} |")  # fmt: skip


def main() -> None:
    """Parse the command line, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--blocks", default="4096,512")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--interval", type=float, default=0.0)
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    traces: dict[str, Trace] = {
        path.name: trace_from_attempts(read_problems(path), args.scale, args.interval, _MIN_ATTEMPTS)
        for path in args.traces
    }
    if not traces:
        traces = {"made-up": synthetic_trace(60, 8, seed=0, interval_s=args.interval)}
    for name, trace in traces.items():
        for num_blocks in (int(blocks) for blocks in args.blocks.split(",")):
            config = SimulationConfig(max_running=args.slots, num_blocks=num_blocks)
            results = compare_policies(trace, config, args.orders)
            if args.json:
                rows = [dataclasses.asdict(result) for result in results]
                print(json.dumps({"trace": name, "slots": args.slots, "blocks": num_blocks, "policies": rows}))
            else:
                title = f"{name}: {len(trace)} requests, {args.slots} slots, {num_blocks} blocks"
                report(f"{title}, {fit_length_model(trace)}", results)


if __name__ == "__main__":
    main()
