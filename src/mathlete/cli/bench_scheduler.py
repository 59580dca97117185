"""`mathlete bench scheduler`: scheduling policies over the same requests, without a model. Shows; others simulate."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mathlete.cli.bench_tables import print_json, print_policies
from mathlete.cli.run_options import AsJson
from mathlete.compose import engine_is_missing
from mathlete.core.errors import InputError

if TYPE_CHECKING:
    from mathlete.ryanstream.simulator.compare import PolicyResult
    from mathlete.ryanstream.simulator.trace import Trace

Recorded = Annotated[
    Path | None,
    typer.Argument(metavar="ATTEMPTS", help="Recorded attempts, as a run writes them (attempts.jsonl); .gz too."),
]
Groups = Annotated[int, typer.Option(min=1, help="Problems, made up or the first of the file.")]
Attempts = Annotated[int, typer.Option(min=1, help="Attempts of a made-up problem.")]
Slots = Annotated[int, typer.Option(min=1, help="Requests computed at once.")]
Blocks = Annotated[int, typer.Option(min=1, help="KV blocks of 16 tokens.")]
Interval = Annotated[float, typer.Option(min=0.0, help="Seconds between the arrivals of two problems.")]
Scale = Annotated[float, typer.Option(min=0.001, help="Factor on recorded lengths.")]
Orders = Annotated[int, typer.Option(min=1, help="Orders of arrival behind each mean.")]


def scheduler(
    attempts_file: Recorded = None,
    problems: Groups = 24,
    attempts: Attempts = 8,
    slots: Slots = 32,
    kv_blocks: Blocks = 2048,
    interval: Interval = 0.0,
    scale: Scale = 1.0,
    orders: Orders = 3,
    as_json: AsJson = False,
) -> None:
    """Stalls, time to the first settled vote and fairness of each scheduling policy, in a simulation.

    The scheduler and the KV cache are the engine's own; a step takes the time that a fitted cost model says. Lengths
    are recorded ones, or drawn from a distribution fitted to recorded ones.
    """
    try:
        from mathlete.ryanstream.simulator.compare import compare_policies
        from mathlete.ryanstream.simulator.run import SimulationConfig
        from mathlete.ryanstream.simulator.trace import synthetic_trace, trace_from_attempts
    except ModuleNotFoundError as error:
        raise engine_is_missing(error) from error
    trace: Trace
    if attempts_file is None:
        trace = synthetic_trace(problems, attempts, seed=0, interval_s=interval)
    else:
        try:
            trace = trace_from_attempts(_first(_read(attempts_file), problems), scale, interval)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{attempts_file} is no file of recorded attempts: {error!r} in one of its rows"
            ) from error
        if not trace:
            raise InputError(f"{attempts_file} has no problem with two attempts whose `tokens` are recorded")
    config = SimulationConfig(max_running=slots, num_blocks=kv_blocks)
    rows = [_row(result) for result in compare_policies(trace, config, orders)]
    if as_json:
        print_json(rows)
    else:
        print_policies(rows, Console())


def _row(result: PolicyResult) -> dict[str, Any]:
    """An interval as an object, not as a list whose order one has to know."""
    return {
        name: {"mean": value[0], "low": value[1], "high": value[2]} if isinstance(value, tuple) else value
        for name, value in asdict(result).items()
    }


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file. Raises `InputError` naming the line that is none."""
    num_read = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for line in file:
                num_read += 1
                yield json.loads(line)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}, line {max(1, num_read)}, is not JSON: {error}") from error


def _first(rows: Iterator[dict[str, Any]], number: int) -> Sequence[dict[str, Any]]:
    """The first problems that have several attempts with lengths."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if len(found) < number and sum(bool(attempt.get("tokens")) for attempt in row["attempts"]) > 1:
            found.append(row)
    return found
