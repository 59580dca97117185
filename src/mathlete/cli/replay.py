"""`mathlete replay`: what other selectors would have made of recorded attempts, in seconds and without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Traces = Annotated[
    list[Path], typer.Argument(metavar="TRACES...", help="Recorded attempts: .jsonl or .jsonl.gz files.")
]
SelectorNames = Annotated[
    list[str], typer.Option("--selector", metavar="NAME", help="A rule that chooses, or 'all'; may be repeated.")
]
Ks = Annotated[
    list[str],
    typer.Option(
        "--k",
        metavar="K",
        help="Attempts drawn of each problem; 'all', or 'curve' for 1, 2, 4, ... and all. Repeatable.",
    ),
]
Orders = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Random orders that a figure is the mean over. By default all attempts come once, as recorded, and k of "
        "them are drawn from 8 orders.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of the orders and of the intervals.")]
MinAttempts = Annotated[int, typer.Option(min=1, help="Problems with fewer attempts are left out.")]
Processes = Annotated[int | None, typer.Option("--processes", "-j", min=1, help="By default one a core, 8 at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: an object, or a list when there are several.")]


def replay(
    traces: Traces,
    selector: SelectorNames,
    k: Ks = ["all"],  # noqa: B006 - typer wants a list, and nobody changes it
    orders: Orders = None,
    seed: Seed = 0,
    min_attempts: MinAttempts = 4,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Replay recorded attempts under other rules.

    The rules are the very objects that choose in a live run. Intervals are 95 % bootstraps over groups of problems;
    every rule is compared with the plain vote on the same attempts.
    """
    from mathlete.cli.replay_running import replay_selectors

    replay_selectors(
        traces,
        selectors=selector,
        ks=k,
        num_orders=orders,
        seed=seed,
        min_attempts=min_attempts,
        num_processes=processes,
        as_json=as_json,
    )
