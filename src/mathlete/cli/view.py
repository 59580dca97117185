"""`mathlete view`: a run's pages in the browser, while it goes on or afterwards."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mathlete.cli.extras import check_installed
from mathlete.core.errors import InputError
from mathlete.lab.run_finding import SEPARATOR, FoundRun, find_runs
from mathlete.lab.run_folder import LATEST, STORE_NAME

_NEEDED = {"starlette": "starlette", "uvicorn": "uvicorn"}


def view(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="A run's id or the start of it, a run's folder, a store, a folder of runs, or 'latest'; "
            "all runs of --runs-dir when left out. A run that is yet to begin is waited for if it is named by a path.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of this machine; 0 for any that is free.")] = 7717,
    host: Annotated[str, typer.Option(help="A loopback address: nobody else may look.")] = "127.0.0.1",
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
) -> None:
    """Show runs in the browser, and follow those that go on. Ends with Ctrl-C; changes nothing."""
    check_installed("the viewer", _NEEDED, "view")
    from mathlete.local_server import Server, address_of
    from mathlete.viewer.app import Viewer
    from mathlete.viewer.index import Catalogue
    from mathlete.viewer.server import GRACE_S, open_port

    named, folders = find_served(runs or [], runs_dir)
    viewer = Viewer(Catalogue(named, folders))
    server = Server(viewer.app(), viewer.close, GRACE_S)
    listening = open_port(host, port)
    address = address_of(listening)
    Console(stderr=True).print(f"looking at {_what(named, folders)} on [bold]{address}[/bold] (Ctrl-C ends)")
    if open_browser:
        webbrowser.open(address)
    server.serve_until_interrupted(listening)


def find_served(names: list[str], runs_dir: Path) -> tuple[list[FoundRun], list[Path]]:
    """The runs that names stand for, and the folders of runs.

    Raises:
        InputError: a name stands for nothing, now or later.
        StorageError: a store cannot be opened.
    """
    if not names:
        if not runs_dir.is_dir():
            raise InputError(f"there is no folder of runs at {runs_dir}; name a run, or the folder with --runs-dir")
        return [], [runs_dir]
    runs: list[FoundRun] = []
    folders = []
    for name in names:
        path = Path(name)
        is_known = name == LATEST or (runs_dir / name / STORE_NAME).is_file()
        if path.is_dir() and not is_known and not (path / STORE_NAME).is_file():
            folders.append(path)
        elif not path.exists() and path.parent.is_dir() and path.parent != Path() and SEPARATOR not in name:
            runs.append(_run_to_come(path))
        else:
            runs += find_runs(name, runs_dir)
    return runs, folders


def _run_to_come(path: Path) -> FoundRun:
    return FoundRun(path, path.stem) if path.suffix == ".sqlite" else FoundRun(path / STORE_NAME, path.name)


def _what(runs: list[FoundRun], folders: list[Path]) -> str:
    told = [run.id for run in runs] + [f"the runs in {path}" for path in folders]
    return ", ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else "")
