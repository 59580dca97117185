"""`mathlete power`: how many runs or problems it takes to tell an effect from luck, on recorded attempts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_EFFECTS = (1.0, 2.0, 5.0)

Traces = Annotated[
    list[Path],
    typer.Argument(
        metavar="TRACES...",
        help="Recorded attempts: interchange files, tables, folders of them, run folders or stores. What several hold "
        "of one problem counts as one pool.",
    ),
]
Effects = Annotated[
    list[float] | None,
    typer.Option("--effect", metavar="N", help="Problems more of a contest; may be repeated. By default 1, 2 and 5."),
]
Problems = Annotated[int, typer.Option("--problems", min=1, help="Problems of a contest.")]
Attempts = Annotated[
    int | None,
    typer.Option(
        "--attempts",
        min=1,
        metavar="K",
        help="Attempts of a run at each problem. By default 8, or half of what most problems have.",
    ),
]
MappingName = Annotated[
    str | None, typer.Option("--mapping", metavar="NAME", help="A preset or a .toml file for files of other programs.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the draws of runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def power(
    traces: Traces,
    effect: Effects = None,
    problems: Problems = 50,
    attempts: Attempts = None,
    mapping: MappingName = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Say what luck does to a score, and how many runs or problems it takes to see more than luck.

    A run answers each problem by a plain vote of K new attempts. Sizes are for a two-sided test at 5 % that finds the
    effect with 80 % power.
    """
    from mathlete.cli.power_running import show_power

    show_power(
        traces,
        effects=tuple(effect or DEFAULT_EFFECTS),
        num_problems=problems,
        attempts=attempts,
        mapping=mapping,
        seed=seed,
        as_json=as_json,
    )
