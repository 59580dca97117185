"""A rehearsal from its first run to its page: shown while it goes on, kept after each run, taken up again.

Knows a person who waits and the files of a rehearsal. How a run is played is `rehearsal`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from mathlete.core.errors import InputError, StorageError
from mathlete.kaggle.faults import DoneFault, PlannedFault, tell_faults
from mathlete.kaggle.gateway import Call, GatewayRun
from mathlete.kaggle.rehearsal import Rehearsal, Rehearsed, RehearsedRun, play_run
from mathlete.kaggle.rehearsal_report import render_rehearsal
from mathlete.kaggle.rehearsal_times import ProblemTime, times_of
from mathlete.lab.run_folder import RunFolder, replace_file
from mathlete.lab.run_reading import read_outline
from mathlete.lab.run_store import RunStore
from mathlete.report.page import write_document

JSON_NAME, HTML_NAME = "rehearsal.json", "rehearsal.html"


def rehearse(rehearsal: Rehearsal, console: Console, played: tuple[RehearsedRun, ...] = ()) -> Rehearsed:
    """Play all runs, one after the other; JSON and page are written after each.

    Args:
        rehearsal: what is rehearsed.
        console: for progress.
        played: runs that were played before, when it is taken up again.

    Raises:
        MathleteError: a run cannot be begun or read.
        StorageError: something cannot be written.
    """
    try:
        rehearsal.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {rehearsal.folder}: {error.strerror}") from error
    rehearsed = Rehearsed(rehearsal.name, rehearsal.clock_s, len(rehearsal.table), rehearsal.table.golds, played)
    for number in range(len(played) + 1, rehearsal.num_runs + 1):
        with _showing(rehearsal, number, console) as on_call:
            run = play_run(rehearsal, number, on_call)
        rehearsed = replace(rehearsed, runs=(*rehearsed.runs, run))
        write_rehearsal(rehearsed, rehearsal)
        console.print(_told(run, rehearsed), highlight=False, markup=False, soft_wrap=True)
    return rehearsed


@contextmanager
def _showing(rehearsal: Rehearsal, number: int, console: Console) -> Iterator[Any]:
    """A bar of the problems of a run, with what is left of its clock; gives the function that is told of answers."""
    columns = (
        TextColumn("run {task.fields[number]}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _ClockLeft(rehearsal.clock_s),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task("waiting for the server", total=len(rehearsal.table), number=number)

        def on_call(run: GatewayRun) -> None:
            last = run.calls[-1]
            said = f"{last.id[:40]}: {last.answer}"
            bars.update(task, completed=len(run.calls), description=said)
            if not console.is_terminal:
                left = clock_words(rehearsal.clock_s - last.answered_s)
                line = f"run {number}: {len(run.calls)}/{run.num_problems} {said}, {left} left"
                console.print(line, highlight=False, markup=False, soft_wrap=True)

        yield on_call


class _ClockLeft(ProgressColumn):
    """What is left of a run's clock."""

    def __init__(self, clock_s: float) -> None:
        super().__init__()
        self._clock_s = clock_s

    def render(self, task: Task) -> Text:
        return Text(f"{clock_words(self._clock_s - (task.elapsed or 0.0))} left")


def clock_words(seconds: float) -> str:
    """As "1:05:09" or "4:09"; with a minus when the time is over."""
    sign, whole = ("-" if seconds < 0 else ""), int(abs(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{sign}{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{sign}{minutes}:{whole % 60:02}"


def _told(run: RehearsedRun, rehearsed: Rehearsed) -> str:
    right = f"{len(run.right)} of {len(rehearsed.golds)} right" if rehearsed.golds else f"{len(run.calls)} answers"
    parts = [right, f"{clock_words(run.elapsed_s)} of {clock_words(rehearsed.clock_s)}"]
    parts += [f"faults: {tell_faults(run.faults)}"] if run.faults else []
    parts += [f"ended early: {run.error}"] if run.error else []
    parts.append("; ".join(run.losses) if run.losses else "nothing lost")
    return f"run {run.number}: {', '.join(parts)}"


def times(rehearsed: Rehearsed, runs_dir: Path) -> list[tuple[ProblemTime, ...]]:
    """The time line of each run, from its store. Raises `InputError` and `StorageError` where one cannot be read."""
    found = []
    for run in rehearsed.runs:
        with RunStore.read(RunFolder(runs_dir / run.run_id).store_path) as store:
            record = read_outline(store)
        found.append(times_of(run, record, rehearsed.golds, rehearsed.num_problems, rehearsed.clock_s))
    return found


def write_rehearsal(rehearsed: Rehearsed, rehearsal: Rehearsal) -> None:
    """JSON and page. Raises `StorageError`."""
    timed = times(rehearsed, rehearsal.contest.runs_dir)
    data = json.dumps(summary(rehearsed, timed), indent=2).encode()
    replace_file(rehearsal.folder / JSON_NAME, data)
    write_document(render_rehearsal(rehearsed, timed), rehearsal.folder / HTML_NAME)


def summary(rehearsed: Rehearsed, timed: list[tuple[ProblemTime, ...]]) -> dict[str, Any]:
    """A rehearsal as plain data, for `--json` and for being taken up again."""
    return {
        **asdict(rehearsed),
        "two_run_score": rehearsed.two_run_score,
        "runs": [
            {
                **asdict(run),
                "num_right": len(run.right),
                "times": [{**asdict(row), "seconds": row.seconds} for row in rows],
            }
            for run, rows in zip(rehearsed.runs, timed, strict=True)
        ],
    }


def played_before(folder: Path) -> tuple[RehearsedRun, ...]:
    """The runs of a rehearsal that was left. Raises `InputError` where its file cannot be read."""
    try:
        data = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
        return tuple(map(_decode_run, data["runs"]))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / JSON_NAME} cannot be read: {error!r:.200}; begin a new rehearsal") from error


def _decode_run(data: dict[str, Any]) -> RehearsedRun:
    known = {name: data[name] for name in RehearsedRun.__dataclass_fields__}
    return RehearsedRun(
        **{
            **known,
            "calls": tuple(Call(**call) for call in data["calls"]),
            "faults": tuple(DoneFault(**fault) for fault in data["faults"]),
            "not_done": tuple(PlannedFault(**fault) for fault in data["not_done"]),
            **{name: tuple(data[name]) for name in ("right", "losses", "warnings")},
        }
    )


def show_rehearsal(rehearsed: Rehearsed, timed: list[tuple[ProblemTime, ...]], folder: Path, console: Console) -> None:
    """The time line of each run as a table, then the score."""
    for run, rows in zip(rehearsed.runs, timed, strict=True):
        table = Table(title=f"run {run.number}", title_justify="left", box=None, pad_edge=False, header_style="bold")
        for name in ("problem", "answer", "label", "seconds", "share", "banked", "attempts", "why it ended"):
            table.add_column(name, justify="left" if name in ("problem", "why it ended") else "right")
        for row in rows:
            style = {True: "green", False: "red", None: ""}[row.is_right]
            table.add_row(
                Text(row.id[:32]), Text(str(row.answer), style=style), Text(row.gold or ""), f"{row.seconds:.1f}",
                "" if row.share_s is None else f"{row.share_s:.1f}", f"{row.banked_s:+.0f}", str(len(row.attempts)),
                Text(row.reason[:60]),
            )  # fmt: skip
        console.print(table)
        console.print()
    for run in rehearsed.runs:
        console.print(_told(run, rehearsed), highlight=False, markup=False, soft_wrap=True)
    if rehearsed.two_run_score is not None:
        score = f"score: {rehearsed.two_run_score:g} of {rehearsed.num_problems} (1 for two right runs, 0.5 for one)"
        console.print(score, style="bold", highlight=False)
    console.print(f"rehearsal: {folder / HTML_NAME}", highlight=False, markup=False, soft_wrap=True)
