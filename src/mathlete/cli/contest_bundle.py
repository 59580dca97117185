"""`mathlete contest bundle`: what a Kaggle notebook without internet needs, written, and compared with its hashes."""

from __future__ import annotations

import importlib.util
import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from mathlete.core.errors import InputError
from mathlete.model_store.disk import describe_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mathlete.kaggle.bundle import BundleRequest
    from mathlete.kaggle.bundle_check import BundleCheck
    from mathlete.kaggle.bundle_manifest import Manifest
    from mathlete.kaggle.bundle_weights import OnBytes
    from mathlete.recipes.recipe import Recipe

_NUM_PROBLEMS, _BUDGET_S = 50, 17_400.0  # what teams plan of the five hours

RecipeName = Annotated[
    str | None, typer.Argument(metavar="RECIPE", help="A name of `mathlete recipes list`, or a .toml file.")
]
Out = Annotated[Path, typer.Option(help="Folder to write, which is not there yet.")]
Platform = Annotated[str, typer.Option(help="Platform tag of the notebook's machine, as pip has them.")]
Python = Annotated[str, typer.Option(help="Python version of the notebook's machine.")]
NotebookOnly = Annotated[bool, typer.Option("--notebook-only", help="No packages: for where Mathlete is installed.")]
Download = Annotated[
    bool, typer.Option("--download/--list-only", help="Fetch the wheels themselves, or only list them with hashes.")
]
WeightsAt = Annotated[
    list[str] | None,
    typer.Option(metavar="ENGINE=PATH", help="Where an engine's model is; ENGINE/draft and harmony too. Repeatable."),
]
OwnWheel = Annotated[Path | None, typer.Option(help="Mathlete's own wheel; built from the checkout by default.")]
ProblemsCsv = Annotated[
    Path | None, typer.Option("--problems", metavar="CSV", help="Problems to try where the competition's are not.")
]
IndexUrl = Annotated[str | None, typer.Option(help="pip's: the package index, in place of PyPI.")]
ExtraIndexUrl = Annotated[list[str] | None, typer.Option(help="pip's: an index besides. Repeatable.")]
FindLinks = Annotated[list[str] | None, typer.Option(help="pip's: a folder or page with wheels. Repeatable.")]
NoIndex = Annotated[bool, typer.Option("--no-index", help="pip's: take wheels from --find-links only.")]
Check = Annotated[
    Path | None, typer.Option("--check", metavar="DIR", help="Compare a bundle with its hashes, and write nothing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def bundle(
    recipe: RecipeName = None,
    out: Out = Path("bundle"),
    platform: Platform = "manylinux_2_28_x86_64",
    python: Python = "3.12",
    notebook_only: NotebookOnly = False,
    download: Download = True,
    weights: WeightsAt = None,
    own_wheel: OwnWheel = None,
    problems: ProblemsCsv = None,
    index_url: IndexUrl = None,
    extra_index_url: ExtraIndexUrl = None,
    find_links: FindLinks = None,
    no_index: NoIndex = False,
    check: Check = None,
    as_json: AsJson = False,
) -> None:
    """Write what a notebook without internet needs: pinned wheels, a list of weights with hashes, and the notebook.

    The folder has two parts to upload, dataset/ and notebook/, and a README.md with the steps. Weights are hashed where
    they are and not copied. pip chooses the packages for the notebook's machine, so it needs an index or --find-links.
    """
    if importlib.util.find_spec("nbformat") is None:
        raise InputError("the notebook is written with nbformat: pip install 'mathlete[contest]'")
    from mathlete.kaggle.bundle import BundleRequest, write_bundle
    from mathlete.kaggle.bundle_wheels import PackageSources, Target
    from mathlete.model_store.store import ModelStore
    from mathlete.recipes.loading import load_recipe

    if (recipe is None) == (check is None):
        raise InputError("give either a RECIPE to make a bundle of, or --check DIR")
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if check is not None:
        _compare(check, console, as_json)
        return
    assert recipe is not None
    loaded = load_recipe(recipe)
    try:
        request = BundleRequest(
            name=loaded.name,
            recipe_toml=loaded.path.read_text(encoding="utf-8-sig"),
            config=loaded.run_config("solve", check_models=False, overrides=_default_budget(loaded)),
            num_problems=_NUM_PROBLEMS if loaded.contest is None else loaded.contest.problems,
            target=Target(python, platform),
            sources=PackageSources(index_url, tuple(extra_index_url or ()), tuple(find_links or ()), no_index),
            own_wheel=_file(own_wheel, "--own-wheel"),
            weights=_places(weights or []),
            notebook_only=notebook_only,
            download=download,
            problems=_file(problems, "--problems"),
        )
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise InputError(f"--{name} {rest}") from error
    _check_folders(request)
    with _hashing(console) as on_bytes:
        manifest = write_bundle(request, out, ModelStore(), on_bytes)
    _tell_written(manifest, request, out, as_json)


def _compare(folder: Path, console: Console, as_json: bool) -> None:
    from mathlete.kaggle.bundle_check import check_bundle, require_whole

    with _hashing(console) as on_bytes:
        found = check_bundle(folder, on_bytes)
    _tell_check(found, as_json)
    require_whole(found)


def _default_budget(recipe: Recipe) -> dict[str, float]:
    """A contest's, where the recipe says nothing of time."""
    return {} if recipe.contest is not None or "budget_s" in recipe.run else {"budget_s": _BUDGET_S}


def _check_folders(request: BundleRequest) -> None:
    """Refuse a model's folder that lacks a part of one here, and not after hours of uploading."""
    from mathlete.kaggle.bundle_weights import engines_of
    from mathlete.recipes.models import check_model

    for engine in engines_of(request.config):
        place = request.weights.get(engine.name) or Path(engine.model)
        if place.is_dir() and not any(place.glob("*.gguf")):
            check_model(engine.type, str(place.absolute()), f"the model of {engine.name!r}")


def _places(given: list[str]) -> dict[str, Path]:
    places = {}
    for item in given:
        role, sign, path = item.partition("=")
        if not sign or not role or not path:
            raise InputError(f"--weights {item}: write ENGINE=PATH, such as main=/models/qwen")
        places[role] = Path(path).expanduser()
    return places


def _file(path: Path | None, flag: str) -> Path | None:
    if path is not None and not path.is_file():
        raise InputError(f"{flag} {path}: there is no such file")
    return path


@contextmanager
def _hashing(console: Console) -> Iterator[OnBytes]:
    """A bar for each file that is hashed, with the time left."""
    columns = (TextColumn("hashing {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, visible=False)
        shown_s = 0.0

        def on_bytes(name: str, done: int, size: int) -> None:
            nonlocal shown_s
            if done == size or time.monotonic() - shown_s > 0.1:
                shown_s = time.monotonic()
                progress.update(task, description=name[-40:], completed=done, total=size, visible=done < size)

        yield on_bytes


def _tell_written(manifest: Manifest, request: BundleRequest, out: Path, as_json: bool) -> None:
    unknown = [weights.role for weights in manifest.weights if not weights.files]
    told = {
        "bundle": str(out),
        "wheels": len(manifest.wheels),
        "wheels_here": sum(wheel.num_bytes is not None for wheel in manifest.wheels),
        "weights": [weights.role for weights in manifest.weights],
        "weights_without_hashes": unknown,
        "known_bytes": manifest.num_known_bytes,
    }
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    packages = (
        "no packages" if request.notebook_only else f"{told['wheels']} wheels ({told['wheels_here']} of them here)"
    )
    models = f"{len(manifest.weights)} model{'' if len(manifest.weights) == 1 else 's'}"
    typer.echo(f"{out}: {packages}, {models}, {describe_bytes(manifest.num_known_bytes)}")
    for role in unknown:
        typer.echo(f"no hashes of {role!r} yet: its model is not on this machine (--weights {role}=FOLDER)")
    typer.echo(f"how to upload it: {out / 'README.md'}")


def _tell_check(found: BundleCheck, as_json: bool) -> None:
    if as_json:
        told = {"compared": found.num_compared, "damaged": found.damaged, "absent": found.absent}
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo(f"{found.num_compared} files are as the manifest says, {len(found.damaged)} are not")
    for line in found.absent:
        typer.echo(f"not compared: {line}")
