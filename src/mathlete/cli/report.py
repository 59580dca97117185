"""`mathlete report`: the report of a run again, or of several runs side by side."""

from __future__ import annotations

import os
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import track

from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.core.record import RunRecord
from mathlete.lab.run_finding import FoundRun, check_replaceable, find_runs
from mathlete.lab.run_folder import STORE_NAME
from mathlete.lab.run_reading import read_outline, read_problems
from mathlete.report.comparison import render_comparison
from mathlete.report.page import write_document, write_report

REPORT_NAME = "report.html"
COMPARISON_NAME = "comparison.html"
MAX_ATTEMPTS = 20_000  # of a run in one page


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A run's id or the start of it, a run's folder, a folder of runs, a store, one run of a store as "
            "STORE::RUN, or 'latest'. Several runs are compared with the first.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help=f"The file; else {REPORT_NAME} in the run's folder, or {COMPARISON_NAME} here for several."),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = False,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
) -> None:
    """Write the report of a run from its store, or compare several runs of the same problems, as one HTML file."""
    if out is not None:
        check_replaceable(out)
    found = [run for name in runs for run in find_runs(name, runs_dir)]
    if len(found) == 1:
        target = out or _folder(found[0]) / REPORT_NAME
        write_report(_read_for_report(found[0]), target)
    else:
        target = out or Path(COMPARISON_NAME)
        write_document(_comparison(found, target), target)
    typer.echo(target)
    if open_browser:
        webbrowser.open(target.absolute().as_uri())


def _read_for_report(run: FoundRun) -> RunRecord:
    """All of a run that its report shows, read problem by problem: numbers along the tokens are most of a store."""
    with run.read() as store:
        outline = read_outline(store)
        _check_begun(run, outline)
        num_attempts = sum(len(record.attempts) for record in outline.problems.values())
        if num_attempts > MAX_ATTEMPTS:
            raise InputError(
                f"the run {run.id} has {num_attempts:,} attempts, more than fit on one page ({MAX_ATTEMPTS:,}); "
                f"`mathlete view {run.path}` shows them problem by problem"
            )
        problems = {}
        reading = track(
            read_problems(store), "reading", len(outline.problems), console=Console(stderr=True), transient=True
        )
        for record in reading:
            problems[record.problem.id] = replace(record, attempts=tuple(map(_as_shown, record.attempts)))
    return replace(outline, problems=problems)


def _as_shown(attempt: Attempt) -> Attempt:
    """Without the numbers that no report draws."""
    turns = tuple(replace(turn, logprobs=(), top_means=(), top5_bits=()) for turn in attempt.turns)
    return replace(attempt, turns=turns)


def _comparison(runs: list[FoundRun], target: Path) -> str:
    outlines = []
    for run in runs:
        with run.read() as store:
            outlines.append(read_outline(store))
        _check_begun(run, outlines[-1])
    reports = [_report_from(target, run) for run in runs]

    def link(index: int, number: int | None) -> str | None:
        base = reports[index]
        return base if base is None or number is None else f"{base}#problem-{number}"

    return render_comparison(list(zip(_labels(runs), outlines, strict=True)), link)


def _check_begun(run: FoundRun, record: RunRecord) -> None:
    if not record.problems:
        raise InputError(f"the run {run.id} of {run.path} ended before it began: there is nothing to report")


def _labels(runs: list[FoundRun]) -> list[str]:
    """What the runs are called; one name in two places is told apart by the place."""
    ids = [run.id for run in runs]
    return [run.id if ids.count(run.id) == 1 else f"{run.path.parent}/{run.id}" for run in runs]


def _folder(run: FoundRun) -> Path:
    """The run's own folder, or this one for a run of a store with many."""
    return run.path.parent if run.path.name == STORE_NAME and run.path.parent.name == run.id else Path()


def _report_from(target: Path, run: FoundRun) -> str | None:
    """Where the run's own report is, as seen from `target`; None when it has none."""
    own = _folder(run) / REPORT_NAME
    if _folder(run) == Path() or not own.is_file():
        return None
    return quote(Path(os.path.relpath(own, target.absolute().parent)).as_posix())
