"""`mathlete runs log`, and what `--log-to` does at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mathlete.core.errors import MathleteError
from mathlete.lab.run_finding import find_run

if TYPE_CHECKING:
    from mathlete.adapters.tracking import Tracker
    from mathlete.lab.run_folder import RunFolder

LogTo = Annotated[
    str | None,
    typer.Option(
        "--log-to",
        metavar="TRACKER",
        help="Log the run when it ends: mlflow or tensorboard, or both with a comma; mlflow=http://HOST:PORT or "
        "tensorboard=FOLDER says where.",
    ),
]


def log(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's name, folder or store; STORE::RUN for one of several.")
    ],
    to: Annotated[str, typer.Option(metavar="TRACKER", help="mlflow or tensorboard, as --log-to of `mathlete solve`.")],
    runs_dir: Annotated[Path, typer.Option("--runs", help="Folder in which runs are looked for by name.")] = Path(
        "runs"
    ),
) -> None:
    """Log a finished run to a tracker: settings, figures at the end and over time, a row a problem, the report."""
    from mathlete.adapters.tracking import parse_trackers

    trackers = parse_trackers(to)
    found = find_run(run, runs_dir)
    console = Console(stderr=True)
    for tracker in trackers:
        with console.status(f"logging to {tracker.name}"):
            where = tracker.log(found)
        typer.echo(where)


def log_quietly(folder: RunFolder, trackers: Sequence[Tracker], console: Console) -> None:
    """Log a run that has just ended; a tracker that fails, or takes too long for a person, is a warning."""
    if not trackers:
        return
    from mathlete.adapters.tracking import command_for

    found = find_run(str(folder.path), folder.path.parent)
    for tracker in trackers:
        try:
            with console.status(f"logging to {tracker.name}"):
                told = f"logged: {tracker.log(found)}"
        except MathleteError as error:
            told = f"warning: {error}"
        except KeyboardInterrupt:  # of a server that does not answer, say
            told = f"warning: not logged to {tracker.name}; to log it: {command_for(found, tracker.name)}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
