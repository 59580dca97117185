"""What `mathlete replay --selector` does: files in, tables or JSON out. Knows files, the terminal and their errors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mathlete.cic.registry import SELECTORS
from mathlete.cli.options import parse_names
from mathlete.cli.replay_table import show_figures
from mathlete.cli.run_options import INTERRUPTED_EXIT_CODE
from mathlete.core.errors import InputError
from mathlete.lab.file_replay import Replayed, replay_file, unpacked_size
from mathlete.lab.in_sample import Trained, trained_on
from mathlete.lab.replay_figures import SelectorFigures, selector_figures
from mathlete.lab.selector_replay import ReplayPlan
from mathlete.session.interrupts import Interrupts

_CURVE = tuple(2**power for power in range(11))
_MAX_PROCESSES = 8
_WORTH_PROCESSES_BYTES = 4 << 20  # below, they take longer to start than to work


def replay_selectors(
    traces: Sequence[Path],
    *,
    selectors: Sequence[str],
    ks: Sequence[str],
    num_orders: int | None,
    seed: int,
    min_attempts: int,
    num_processes: int | None,
    as_json: bool,
) -> None:
    """Replay files under selectors and print what came of it; the arguments are the flags, as they were typed.

    Raises:
        InputError: a flag or a file cannot be used.
    """
    plan = ReplayPlan(_names(selectors), _ks(ks), num_orders, seed, min_attempts)
    console = Console(stderr=True)
    found: list[dict[str, Any]] = []
    try:
        for path in traces:
            replayed = _replay_file(path, plan, num_processes, console)
            figures = _judged(replayed)
            trained = trained_on(path, plan.selectors)
            found += [_as_dict(item, replayed, trained) for item in figures]
            if not as_json:
                show_figures(Console(), path.name, figures, trained)
    except KeyboardInterrupt as error:
        console.print("interrupted; a replay writes nothing, so nothing is left behind")
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error
    if as_json:
        typer.echo(json.dumps(found[0] if len(found) == 1 else found, indent=2))


def _names(told: Sequence[str]) -> tuple[str, ...]:
    names = [name for item in told for name in parse_names(item)]
    return tuple(dict.fromkeys(each for name in names for each in (SELECTORS if name == "all" else (name,))))


def _ks(told: Sequence[str]) -> tuple[int | None, ...]:
    ks: list[int | None] = []
    for text in (name for item in told for name in parse_names(item)):
        if text == "all":
            ks.append(None)
        elif text == "curve":
            ks += [*_CURVE, None]
        elif text.isascii() and text.isdigit() and 1 <= int(text[:9]) and len(text) < 9:
            ks.append(int(text))
        else:
            raise InputError(f"--k takes a number of attempts from 1 up, 'all' or 'curve', not {text[:40]!r}")
    return tuple(dict.fromkeys(ks))


def _replay_file(path: Path, plan: ReplayPlan, processes: int | None, console: Console) -> Replayed:
    num_bytes = unpacked_size(path)
    if processes is None:
        cores = len(os.sched_getaffinity(0))
        processes = min(_MAX_PROCESSES, cores) if num_bytes >= _WORTH_PROCESSES_BYTES else 1
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[problems]} problems"))
    progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    with Interrupts(), progress:
        task = progress.add_task(escape(path.name), total=num_bytes or None, problems=0)
        replayed = replay_file(
            path,
            plan,
            num_processes=processes,
            tell=lambda now: progress.update(task, completed=now.num_bytes, problems=now.num_problems),
        )
    if replayed.bad.num:
        console.print(
            f"not used: {replayed.bad.message}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )
    return replayed


def _judged(replayed: Replayed) -> list[SelectorFigures]:
    """The figures, or an error that says why there are none."""
    if not replayed.scored:
        raise InputError(f"{replayed.file}: no row can be used; see the messages above")
    figures = selector_figures(replayed.scored, replayed.plan, seed=replayed.plan.seed)
    if not figures:
        most, plan = max(item.num_attempts for item in replayed.scored), replayed.plan
        needed = max(plan.min_attempts, min(k or 1 for k in plan.ks))
        raise InputError(
            f"{replayed.file}: no problem has {needed} attempts, the most is {most}; see --min-attempts and --k"
        )
    return figures


def _as_dict(item: SelectorFigures, replayed: Replayed, trained: Mapping[str, Trained]) -> dict[str, Any]:
    told = item.as_dict(replayed.file.name) | {"num_bad_rows": replayed.bad.num, "in_sample": item.selector in trained}
    if item.selector in trained and item.k in trained[item.selector].held_out:
        told["held_out_accuracy"] = trained[item.selector].held_out[item.k]
    return told
