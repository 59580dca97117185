"""Finds two runs or recordings, has the lab compare them, and shows it: the work of `mathlete compare`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mathlete.cli.sandbox import printable
from mathlete.lab.bootstrap import Estimate
from mathlete.lab.comparing import Comparison, Cost, compare_outcomes
from mathlete.lab.outcomes import Outcome, outcomes_of_recorded, outcomes_of_run
from mathlete.lab.recordings import read_recordings
from mathlete.lab.run_finding import find_run
from mathlete.lab.run_reading import read_outline

_STORE_SUFFIXES = (".sqlite", ".db")
_MAX_LEFT_OUT = 5
_COLOURS = {"gained": "green", "lost": "red", "other": ""}


def show_comparison(
    first: str, second: str, *, runs_dir: Path, mapping: str | None, num_flips: int, seed: int, as_json: bool
) -> None:
    """Read, compare, print."""
    compared = compare_outcomes(
        read_outcomes(first, runs_dir, mapping), read_outcomes(second, runs_dir, mapping), seed=seed
    )
    if as_json:
        print(json.dumps({"first": first, "second": second, **compared.as_dict()}, indent=2))
        return
    console = Console()
    _show(compared, num_flips, console)


def read_outcomes(name: str, runs_dir: Path, mapping: str | None = None) -> list[Outcome]:
    """What a run, or a plain vote over recorded attempts, came to on each problem.

    Raises:
        InputError: there is no such run, or the file cannot be read.
        StorageError: the store cannot be read.
    """
    path = Path(name)
    is_store = path.suffix in _STORE_SUFFIXES or (path / "run.sqlite").is_file()
    if path.exists() and not is_store:
        return outcomes_of_recorded(read_recordings(path, mapping))
    with find_run(name, runs_dir).read() as store:
        return outcomes_of_run(read_outline(store))


def _show(compared: Comparison, num_flips: int, console: Console) -> None:
    num = compared.num_problems
    console.print(f"{num} problem{'' if num == 1 else 's'} that both have", highlight=False)
    console.print(_figures(compared))
    scores = compared.scores
    if scores is not None:
        test = scores.mcnemar
        console.print(
            f"\nboth right {test.both}, only first {test.only_first}, only second {test.only_second}, neither "
            f"{test.neither}; exact McNemar p {test.p_value:.3g}, mid-p {test.mid_p:.3g}",
            highlight=False,
        )
    console.print(compared.verdict, highlight=False, style="bold")
    if compared.flips and num_flips:
        console.print()
        console.print(_flips(compared, num_flips))
        if len(compared.flips) > num_flips:
            console.print(f"... and {len(compared.flips) - num_flips} more; --json has them all", highlight=False)
    for item in compared.left_out[:_MAX_LEFT_OUT]:
        console.print(printable(f"not compared: {item.problem_id}: {item.reason}"), highlight=False, markup=False)
    if len(compared.left_out) > _MAX_LEFT_OUT:
        console.print(f"... and {len(compared.left_out) - _MAX_LEFT_OUT} more are not compared", highlight=False)


def _figures(compared: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in ("first", "second", "second to first"):
        table.add_column(name, justify="right", no_wrap=True)
    scores = compared.scores
    if scores is not None:
        table.add_row("accuracy", str(scores.first), str(scores.second), _signed(scores.difference))
    for name, cost in (("tokens", compared.tokens), ("seconds", compared.seconds)):
        if cost.first or cost.second:  # recordings may not tell
            table.add_row(name, f"{cost.first:,.0f}", f"{cost.second:,.0f}", _times(cost))
    return table


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _times(cost: Cost) -> str:
    ratio = cost.ratio
    return "-" if ratio is None else f"x {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _flips(compared: Comparison, num_flips: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("problem", "change", "label", "first", "second"):
        table.add_column(name, justify="left" if name in ("problem", "change") else "right", no_wrap=True)
    for flip in compared.flips[:num_flips]:
        cells = (flip.problem_id[:32], flip.change, flip.gold or "-", flip.first or "-", flip.second or "-")
        table.add_row(*(Text(printable(cell[:32]), style=_COLOURS[flip.change]) for cell in cells))
    return table
