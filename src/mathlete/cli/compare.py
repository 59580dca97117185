"""`mathlete compare`: two runs of the same problems side by side, and whether luck explains the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_WHAT = (
    "a run's id or the start of it, its folder or store, 'latest', or recorded attempts, which a plain vote answers."
)
First = Annotated[str, typer.Argument(metavar="FIRST", help=f"What to compare with: {_WHAT}")]
Second = Annotated[str, typer.Argument(metavar="SECOND", help="What is compared, likewise.")]
RunsDir = Annotated[Path, typer.Option(help="Where runs are kept.")]
MappingName = Annotated[
    str | None, typer.Option("--mapping", metavar="NAME", help="A preset or a .toml file for files of other programs.")
]
NumFlips = Annotated[int, typer.Option("--flips", min=0, help="Problems with another answer to list; --json has all.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the intervals.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def compare(
    first: First,
    second: Second,
    runs_dir: RunsDir = Path("runs"),
    mapping: MappingName = None,
    flips: NumFlips = 20,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two runs of the same problems, paired: accuracy, an exact test, tokens, seconds, and what changed.

    Differences are second minus first, ratios second over first; intervals are 95 % bootstraps over groups of problems.
    """
    from mathlete.cli.compare_running import show_comparison

    show_comparison(first, second, runs_dir=runs_dir, mapping=mapping, num_flips=flips, seed=seed, as_json=as_json)
