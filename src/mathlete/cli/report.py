"""`mathlete report`: the report of a run again, or of several runs side by side."""

from __future__ import annotations

import os
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from mathlete.core.errors import InputError

DEFAULT_COMPARISON = "comparison.html"


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run that was named on the command line.

    Attributes:
        label: what it is called in a comparison.
        store: where it is recorded.
        run_id: of it in the store.
        folder: of the run, when it has one of its own.
    """

    label: str
    store: Path
    run_id: str
    folder: Path | None


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A run's id or the start of it, a run's folder, a store (of one run or of many), or 'latest'. With "
            "several runs, they are compared with the first.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help=f"The file; else report.html in the run's folder, or {DEFAULT_COMPARISON} here for several."),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = False,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
) -> None:
    """Write the report of a run from its store, or compare several runs of the same problems, as one HTML file."""
    named = [run for name in runs for run in find_runs(name, runs_dir)]
    if len(named) == 1:
        target = out or (named[0].folder or Path()) / "report.html"
        _write_single(named[0], target)
    else:
        target = out or Path(DEFAULT_COMPARISON)
        _write_comparison(named, target)
    typer.echo(target)
    if open_browser:
        webbrowser.open(target.absolute().as_uri())


def find_runs(name: str, runs_dir: Path) -> list[NamedRun]:
    """The runs that a name on the command line stands for: one, or all of a store.

    Raises:
        InputError: there is no such run.
        StorageError: the store cannot be read.
    """
    from mathlete.lab.run_folder import RunFolder
    from mathlete.lab.run_store import list_runs

    path = Path(name)
    store = path if path.is_file() else RunFolder.open(name, runs_dir).store_path
    found = list_runs(store)
    if not found:
        raise InputError(f"the store {store} holds no run yet")
    folder = store.parent if len(found) == 1 and store.name == "run.sqlite" else None
    return [NamedRun(run.id, store, run.id, folder) for run in found]


def _write_single(run: NamedRun, target: Path) -> None:
    from mathlete.core.record import fold_run
    from mathlete.lab.run_store import RunStore
    from mathlete.report.page import write_report

    with RunStore.read(run.store, run.run_id) as store:
        record = fold_run(store.events())
    write_report(record, target)


def _write_comparison(runs: list[NamedRun], target: Path) -> None:
    from mathlete.report.comparison import render_comparison
    from mathlete.report.page import write_document

    outlines: list[tuple[str, Any]] = []
    labels: dict[str, int] = {}
    for run in runs:
        labels[run.label] = labels.get(run.label, 0) + 1
        again = f" ({labels[run.label]})" if labels[run.label] > 1 else ""
        outlines.append((run.label + again, _outline(run)))
    reports = [_report_from(target, run) for run in runs]

    def link(index: int, number: int | None) -> str | None:
        base = reports[index]
        return base if base is None or number is None else f"{base}#problem-{number}"

    write_document(render_comparison(outlines, link), target)


def _outline(run: NamedRun) -> Any:
    from mathlete.viewer.watching import WatchedRun

    snapshot = WatchedRun(run.store, run.run_id).look()
    if snapshot.run is None:
        raise InputError(f"nothing can be read of run {run.label}: {snapshot.message or 'it has not begun'}")
    return snapshot.run


def _report_from(target: Path, run: NamedRun) -> str | None:
    """The address of a run's own report as seen from `target`, when there is one."""
    if run.folder is None or not (run.folder / "report.html").is_file():
        return None
    relative = os.path.relpath(run.folder / "report.html", target.absolute().parent)
    return quote(Path(relative).as_posix())
