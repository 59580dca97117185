"""`mathlete runs`: list runs, gather them in one store, export their attempts. Shows; the work is the lab's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mathlete.cli import run_logging, runs_import
from mathlete.cli.sandbox import printable
from mathlete.core.errors import InputError, MathleteError
from mathlete.core.record import ProblemRecord
from mathlete.lab.run_finding import FoundRun, check_replaceable, find_run, find_runs
from mathlete.lab.run_reading import RunFigures, read_figures

app = typer.Typer(help="List runs, gather them in one store, export their attempts.", no_args_is_help=True)

RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder in which runs are looked for by name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

app.command("log")(run_logging.log)
app.command("import")(runs_import.import_recordings)


class Format(StrEnum):
    """Of an export."""

    JSONL = "jsonl"
    PARQUET = "parquet"


@app.command("list")
def list_command(
    path: Annotated[Path, typer.Argument(help="A folder of runs, a run's folder, or a store.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List runs: when, by which command and model, how many problems, and how many answers are right."""
    figures, unreadable = [], []
    for run in find_runs(str(path), path):
        try:
            with run.read() as store:
                figures.append((run, read_figures(store)))
        except MathleteError as error:
            unreadable.append({"id": run.id, "store": str(run.path), "error": str(error)})
    if as_json:
        typer.echo(json.dumps([*(_as_dict(*item) for item in figures), *unreadable], indent=2))
        return
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for item in unreadable:
        errors.print(printable(f"{item['id']} is left out: {item['error']}"), style="yellow")
    console = Console()
    wide = console if console.is_terminal else Console(width=160)  # a file or a pipe has no width of its own
    wide.print(_table([item for _, item in figures]))


@app.command("gather")
def gather_command(
    runs: Annotated[list[str], typer.Argument(help="Names or folders of runs, folders of runs, or stores.")],
    into: Annotated[Path, typer.Option("--into", help="The store; made when it is not there.")],
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Copy runs into one store. What is there already is not copied again, so it can be cut off and repeated."""
    from mathlete.lab.gathering import gather_runs

    found = [run for text in runs for run in find_runs(text, runs_dir)]
    with _progress("events") as progress:
        bars: dict[str, Any] = {}

        def tell(run_id: str, num: int, total: int) -> None:
            if run_id not in bars:
                bars[run_id] = progress.add_task(run_id)
            progress.update(bars[run_id], completed=num, total=total)

        gathered = gather_runs(found, into, tell)
    if as_json:
        typer.echo(json.dumps({"store": str(into), "runs": [asdict(item) for item in gathered]}, indent=2))
        return
    num_new = sum(item.num_copied > 0 for item in gathered)
    num_events = sum(item.num_copied for item in gathered)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{num_events:,} events of {num_new} of {len(gathered)} runs copied; all of them are in {into}")


@app.command("export")
def export_command(
    run: Annotated[str, typer.Argument(help="A run's name, folder or store; STORE::RUN for one of several.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    format: Annotated[Format | None, typer.Option("--format", help="Told by the file's name when left out.")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write a run's finished attempts to a file: the interchange format, or Parquet with one row an attempt."""
    from mathlete.lab.export import write_interchange
    from mathlete.lab.parquet_export import feature_names, write_parquet
    from mathlete.lab.run_reading import read_problems

    chosen = format or _format_of(out)
    check_replaceable(out)
    with find_run(run, runs_dir).read() as store:
        figures = read_figures(store)
        with _progress("problems") as progress:
            bar = progress.add_task(out.name, total=figures.num_problems)

            def told(records: Iterable[ProblemRecord]) -> Iterator[ProblemRecord]:
                for record in records:
                    yield record
                    progress.advance(bar)

            records = told(read_problems(store))
            if chosen is Format.JSONL:
                write_interchange(records, figures.model, out)
            else:
                write_parquet(records, store.run.id, figures.model, feature_names(store), out)
    written = {"file": str(out), "format": chosen.value, "run": figures.id, "problems": figures.num_problems,
               "attempts": figures.num_attempts}  # fmt: skip
    if as_json:
        typer.echo(json.dumps(written, indent=2))
        return
    sentence = f"{figures.num_attempts:,} attempts at {figures.num_problems:,} problems written to {out}"
    Console(soft_wrap=True, highlight=False, markup=False).print(sentence)


def _as_dict(run: FoundRun, figures: RunFigures) -> dict[str, Any]:
    started = datetime.fromtimestamp(figures.started_wall_time, UTC).isoformat(timespec="seconds")
    return {**asdict(figures), "started": started, "accuracy": figures.accuracy, "store": str(run.path)}


def _table(figures: Iterable[RunFigures]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "when (UTC)", "command", "model", "problems", "attempts", "right", "ended"):
        table.add_column(
            name, justify="right" if name in ("problems", "attempts", "right") else "left", no_wrap=name != "model"
        )
    for item in figures:
        when = datetime.fromtimestamp(item.started_wall_time, UTC)
        right = "" if item.accuracy is None else f"{item.num_right} of {item.num_selected} ({item.accuracy:.1%})"
        table.add_row(
            Text(printable(item.id)),
            f"{when:%Y-%m-%d %H:%M}" if item.started_wall_time else "",
            Text(printable(item.command or "")),
            Text(printable(item.model or "")),
            f"{item.num_problems:,}",
            f"{item.num_attempts:,}",
            right,
            Text(item.finished or "not yet", style="" if item.finished else "yellow"),
        )
    return table


def _format_of(out: Path) -> Format:
    for format in Format:
        if out.suffix == f".{format.value}":
            return format
    raise InputError(f"{out}: its name says no format; give --format jsonl or --format parquet")


@contextmanager
def _progress(unit: str) -> Iterator[Progress]:
    """Bars on a terminal's stderr, and nothing in a log."""
    console = Console(stderr=True)
    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress
