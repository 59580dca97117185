"""`mathlete recipes`: which recipes there are, and what one asks for. Shows; `recipes.loading` reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from mathlete.cli.sandbox import printable
from mathlete.core.errors import InputError, StorageError
from mathlete.recipes.loading import load_recipe, recipe_names
from mathlete.recipes.recipe import Recipe

app = typer.Typer(help="Recipes: engines and options of a run in a file; docs/recipes.md.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A name of `mathlete recipes list`, or a .toml file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Shipped = Annotated[str, typer.Argument(metavar="NAME", help="A name of `mathlete recipes list`.")]
Target = Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, such as mine.toml; it must be new.")]


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """The recipes that come with Mathlete; each is checked as it is read."""
    recipes = [load_recipe(name) for name in recipe_names()]
    if as_json:
        typer.echo(json.dumps([_facts(recipe) for recipe in recipes], indent=2))
        return
    console = Console(soft_wrap=True, highlight=False)
    for recipe in recipes:
        engines = ", ".join(sorted({engine.type for engine in recipe.engines}))
        machine = "" if recipe.hardware is None else f", {machine_of(recipe)}"
        console.print(Text.assemble((recipe.name, "bold"), f"  {engines}{machine}"))
        console.print(f"    {recipe.description}", style="dim", markup=False)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """What a run by this recipe would do: its engines with their settings, and all options that differ from defaults.

    The recipe is checked, but no model needs to be there.
    """
    recipe = load_recipe(name)
    if as_json:
        typer.echo(json.dumps(_facts(recipe), indent=2))
        return
    _show(recipe, Console(soft_wrap=True, highlight=False))


@app.command()
def copy(name: Shipped, file: Target) -> None:
    """Write a recipe that comes with Mathlete into a file of one's own, to change it there."""
    if name not in recipe_names():
        raise InputError(f"there is no recipe {name!r} to copy; there are {', '.join(recipe_names())}")
    text = load_recipe(name).path.read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError as error:
        raise InputError(f"{file} is there already: name another file") from error
    except OSError as error:
        raise StorageError(f"{file}: cannot be written ({error.strerror or error})") from error
    typer.echo(f"{file}: now change it, and look at it with: mathlete recipes show {file}")


def machine_of(recipe: Recipe) -> str:
    """The machines that a recipe names, in a few words."""
    hardware = recipe.hardware
    if hardware is None:
        return "-"
    hosts = f", {hardware.hosts} hosts" if hardware.hosts > 1 else ""
    return f"{hardware.count}x {hardware.accelerator.name}{hosts}"


def _facts(recipe: Recipe) -> dict[str, Any]:
    facts = {**asdict(recipe), "path": str(recipe.path)}
    if recipe.hardware is not None:
        facts["hardware"]["accelerator"] = recipe.hardware.accelerator.name
    return {**facts, "run_config": asdict(recipe.run_config("solve", check_models=False))}


def _show(recipe: Recipe, console: Console) -> None:
    def line(name: str, value: object, indent: str = "") -> None:
        console.print(Text.assemble((f"{indent}{name:<{24 - len(indent)}} ", "bold"), printable(str(value))))

    line("recipe", recipe.name)
    line("file", recipe.path)
    if recipe.description:
        line("description", recipe.description)
    line("machine", machine_of(recipe))
    if recipe.contest is not None:
        line("contest", f"{recipe.contest.problems} problems, {recipe.contest.budget_s:,.0f} s for solving")
    for engine in recipe.engines:
        line("engine", f"{engine.name} ({engine.type})")
        line("model", engine.model, "  ")
        line("writes for", ", ".join(engine.pillars) or "all that no other engine names", "  ")
        if engine.own_process:
            line("own_process", "yes", "  ")
        for name, value in engine.settings.items():
            line(name, _told(value), "  ")
    line("run", "")
    config = asdict(recipe.run_config("solve", check_models=False))
    for name in ("policy", "selector", "stop", "attempts", "budget_s", *recipe.run):
        if name in config:
            line(name, _told(config.pop(name)), "  ")


def _told(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
