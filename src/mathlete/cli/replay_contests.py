"""What `mathlete replay --contest` does: contests over recorded attempts, as a table or JSON.

Knows flags and the terminal; how a contest is drawn and held is in `lab`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mathlete.cli.options import parse_duration
from mathlete.cli.replay_running import (
    Asked,
    ending_in_order,
    print_json,
    progress_bar,
    read_problems,
    selector_names,
    wide_console,
)
from mathlete.core.errors import InputError
from mathlete.lab.contest_replay import ContestFigures, ContestReplay, replay_contests
from mathlete.lab.recorded import RecordedProblem

_DEFAULT_BUDGET = "5h"
_DEFAULT_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Contests:
    """The flags that only contests have.

    Attributes:
        num_problems: of each.
        num_runs: 1 or 2.
        num_contests: drawn.
        has_faults: whether anything goes wrong.
    """

    num_problems: int
    num_runs: int
    num_contests: int
    has_faults: bool


def hold_contests(asked: Asked, contests: Contests) -> None:
    """Hold contests over each recording with each selector, and print what came of them.

    Raises:
        InputError: a flag or a recording cannot be used.
    """
    console = Console(stderr=True)
    found: list[dict[str, Any]] = []
    configs = _configs(asked, contests)
    with ending_in_order(console):
        for path in asked.traces:
            problems = read_problems(path, asked, console)
            figures = [_hold(path, problems, config, asked, console) for config in configs]
            found += [item.as_dict() | {"file": path.name} for item in figures]
            if not asked.as_json:
                show_contests(wide_console(), path, figures)
    print_json(found, asked)


def _hold(
    path: Path, problems: Sequence[RecordedProblem], config: ContestReplay, asked: Asked, console: Console
) -> ContestFigures:
    with progress_bar(path, console, config.num_contests, "contests") as tell:
        return replay_contests(
            problems, config, num_processes=asked.num_processes or 1, on_progress=lambda num, _: tell(num, num)
        )


def _configs(asked: Asked, contests: Contests) -> list[ContestReplay]:
    if asked.token_budget is not None:
        raise InputError("a contest is held against a clock: give --budget, not --token-budget")
    if asked.ks != ("all",) and not (len(asked.ks) == 1 and asked.ks[0].isascii() and asked.ks[0].isdigit()):
        raise InputError("with --contest, --k is one number: the attempts that a problem may get")
    try:
        return [
            ContestReplay(
                policy=asked.policy or ("triad" if asked.stop is None else "vote"),  # type: ignore[arg-type]
                selector=name,
                scorer=asked.scorer,
                stop=asked.stop or "settled",
                attempts=_DEFAULT_ATTEMPTS if asked.ks == ("all",) else int(asked.ks[0]),
                num_problems=contests.num_problems,
                limit_s=parse_duration(asked.budget or _DEFAULT_BUDGET),
                num_runs=contests.num_runs,
                num_contests=contests.num_contests,
                slots=asked.slots,
                speed=asked.speed,
                has_faults=contests.has_faults,
                seed=asked.seed,
            )
            for name in selector_names(asked.selectors)
        ]
    except ValueError as error:
        raise InputError(f"cannot replay that: {error}") from error


def show_contests(console: Console, path: Path, figures: Sequence[ContestFigures]) -> None:
    """A table of what each selector came to, in the order given."""
    first = figures[0]
    replay = first.replay
    title = (
        f"[bold]{escape(path.name)}[/]: {replay.num_contests} contests of {first.num_problems} problems in "
        f"{replay.limit_s:.0f} s, policy {replay.policy}"
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("selector", no_wrap=True)
    for name in ("right", "sd", "range", "two runs", "time used", "tokens", "no answer", "longest", "overruns"):
        table.add_column(name, justify="right")
    for item in figures:
        right, score = item.right, item.two_run_score
        table.add_row(
            item.replay.settings().rule,
            f"{right.value:.2f} [{right.low:.2f}, {right.high:.2f}]",
            f"{item.sd:.2f}",
            f"{item.worst}-{item.best}",
            "-" if score is None else f"{score.value:.2f}",
            f"{item.time_share:.0%}",
            "-" if item.tokens is None else f"{item.tokens / 1e6:.2f} M",
            f"{item.fallbacks:.2f}",
            f"{item.longest_s:.0f} s",
            str(item.num_overruns),
        )
    console.print(table)
    notes = ["intervals are over contests drawn from this recording, not over new problems; sd is of single runs"]
    if first.num_problems < replay.num_problems:
        notes.append(f"the recording has only {first.num_problems} problems")
    for note in notes:
        console.print(Text(note, "dim"))
    console.print()
