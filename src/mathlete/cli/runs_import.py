"""`mathlete runs import`: recorded attempts of others, into a store or a file. Shows; `lab.recordings` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mathlete.cli.sandbox import printable
from mathlete.core.errors import InputError
from mathlete.lab.gathering import add_recording
from mathlete.lab.import_report import ImportReport
from mathlete.lab.mapping import load_mapping, preset_names
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.recorded_writing import write_recorded
from mathlete.lab.recordings import read_recordings


def import_recordings(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...",
            help=".jsonl, .csv and .parquet files, other programs' logs, folders of those, runs and stores.",
        ),
    ],
    mapping: Annotated[
        str | None,
        typer.Option(help=f"Which columns or keys hold what: {', '.join(preset_names())}, or a .toml file."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(metavar="STORE", help="Add it as a run to this store, which is made if need be.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to this .jsonl or .jsonl.gz file, one problem a line.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the run in the store; else made from the first file's name.")
    ] = None,
    min_attempts: Annotated[int, typer.Option(min=0, help="Leave out problems with fewer attempts.")] = 1,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out rows that cannot be used; without it, nothing is written then."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Read recorded attempts from files of other programs, judge the answers, and keep them in Mathlete's own form.

    Rows that cannot be used are named with the reason. Answers whose file does not say whether they are right are
    compared with the gold; docs/importing.md.
    """
    if (into is None) == (out is None):
        raise InputError("give either --into STORE or --out FILE.jsonl")
    if name is not None and into is None:
        raise InputError("--name is of the run in a store; give --into STORE too")
    known = None if mapping is None else load_mapping(mapping)
    report = ImportReport()
    console = Console(stderr=True)
    problems = read_recordings(paths, known, min_attempts=min_attempts, skip_bad=skip_bad, report=report)
    shown = _shown(problems, report, console)
    if out is not None:
        write_recorded(_some(shown, paths), out)
        target = str(out)
    else:
        assert into is not None
        run_id = name or _run_name(paths[0])
        added = add_recording(into, run_id, " ".join(map(str, paths)), _some(shown, paths))
        target = f"{into}::{added.id}"
    _tell(report, target, as_json, console)


def _some(problems: Iterable[RecordedProblem], paths: list[Path]) -> Iterator[RecordedProblem]:
    """The same; an error when there are none, so that nothing is written."""
    num = 0
    for problem in problems:
        num += 1
        yield problem
    if num == 0:
        raise InputError(f"{', '.join(map(str, paths))}: no problems with attempts to import")


def _shown(problems: Iterable[RecordedProblem], report: ImportReport, console: Console) -> Iterator[RecordedProblem]:
    """The same, with what has been read so far on the console. How much is to come is not known before the end."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading")
        for problem in problems:
            progress.update(task, description=f"{report.num_problems} problems, {report.num_attempts} attempts")
            yield problem


def _run_name(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name.split(".jsonl")[0]).strip("-._")
    return name or "import"


def _tell(report: ImportReport, target: str, as_json: bool, console: Console) -> None:
    for note in report.notes:
        console.print(printable(note), highlight=False, markup=False, soft_wrap=True)
    if report.bad.num:
        console.print(printable(report.bad.message), highlight=False, markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(_facts(report, target), indent=2))
    else:
        typer.echo(f"{report.num_problems} problems with {report.num_attempts} attempts: {printable(target)}")


def _facts(report: ImportReport, target: str) -> dict[str, Any]:
    return {
        "target": target,
        "num_problems": report.num_problems,
        "num_attempts": report.num_attempts,
        "num_judged_unknown": report.num_judged_unknown,
        "num_too_few": report.num_too_few,
        "num_without_gold": report.num_without_gold,
        "num_other_views": report.num_other_views,
        "num_unwanted": report.num_unwanted,
        "num_bad": report.bad.num,
        "bad": [{"where": row.where, "reason": row.reason} for row in report.bad.shown],
    }
