"""`mathlete models`: list, pull, inspect and verify model files. Shows; the work is the model store's."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mathlete.core.errors import ModelError
from mathlete.model_store.store import DEFAULT_MODEL, ModelStatus, ModelStore
from mathlete.session.fetching import showing_progress

app = typer.Typer(help="List, fetch, inspect and verify the models Mathlete knows.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A model's name or alias; see `mathlete models list`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Force = Annotated[bool, typer.Option("--force", help="Fetch it again although it is there.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """The known models and what the cache holds of them."""
    store = ModelStore()
    statuses = [store.status(spec) for spec in store.models]
    if as_json:
        _print_json([_facts(status) for status in statuses])
        return
    table = Table("name", "size", "state", "licence", "short", box=None, pad_edge=False)
    for status in statuses:
        spec = status.spec
        table.add_row(spec.name, _gigabytes(spec.num_bytes), _state(status), spec.licence, spec.aliases[0])
    for column in table.columns:
        column.no_wrap = True
    Console().print(table)


@app.command()
def pull(name: Name = DEFAULT_MODEL, force: Force = False, as_json: AsJson = False) -> None:
    """Fetch a model into the cache; goes on where an interrupted pull stopped."""
    store = ModelStore()
    spec = store.find(name)
    with showing_progress(Console(stderr=True)) as report:
        store.ensure(spec.name, report, force=force)
    status = store.status(spec)
    if as_json:
        _print_json(_facts(status))
        return
    _print(f"{spec.name} is ready ({_gigabytes(spec.num_bytes)}, {spec.licence}): {status.path}")


@app.command()
def info(name: Name = DEFAULT_MODEL, as_json: AsJson = False) -> None:
    """Size, checksum, licence, origin and place of a model."""
    store = ModelStore()
    status = store.status(store.find(name))
    if as_json:
        _print_json(_facts(status))
        return
    spec, origin = status.spec, status.origin
    rows = {
        "name": spec.name,
        "model": spec.title,
        "also called": ", ".join(spec.aliases),
        "state": _state(status),
        "path": str(status.path),
        "size": f"{spec.num_bytes:,} bytes",
        "sha256": spec.sha256,
        "licence": f"{spec.licence}, see {spec.model_card}",
        "origin": "not fetched yet" if origin is None else f"{origin.detail} {origin.pulled_at}".strip(),
    }
    for key, value in rows.items():
        _print(f"{key:<12} {value}")


@app.command()
def verify(name: Name = DEFAULT_MODEL, as_json: AsJson = False) -> None:
    """Hash a cached model again; exits with an error when it is absent or damaged."""
    store = ModelStore()
    spec = store.find(name)
    try:
        with showing_progress(Console(stderr=True)) as report:
            path = store.verify(spec, report)
    except ModelError as error:
        if as_json:
            _print_json({"name": spec.name, "ok": False, "path": str(store.path_of(spec)), "error": str(error)})
        raise
    if as_json:
        _print_json({"name": spec.name, "ok": True, "path": str(path), "sha256": spec.sha256})
        return
    _print(f"{spec.name} is whole: sha256 {spec.sha256}")


def _facts(status: ModelStatus) -> dict[str, Any]:
    """All that is known of a model, for `--json`."""
    spec, origin = status.spec, status.origin
    return {
        "name": spec.name,
        "aliases": list(spec.aliases),
        "title": spec.title,
        "state": status.state,
        "path": str(status.path),
        "num_bytes": spec.num_bytes,
        "num_bytes_here": status.num_bytes,
        "sha256": spec.sha256,
        "licence": spec.licence,
        "model_card": spec.model_card,
        "origin": None
        if origin is None
        else {"source": origin.source, "detail": origin.detail, "pulled_at": origin.pulled_at},
    }


def _state(status: ModelStatus) -> str:
    if status.state == "partial":
        return f"partial ({status.num_bytes / status.spec.num_bytes:.0%})"
    return status.state


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"


def _print(line: str) -> None:
    """One line as it is: paths and checksums must not be wrapped or coloured."""
    typer.echo(line)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
