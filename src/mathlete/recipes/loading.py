"""Recipes from TOML files, read strictly: what cannot be meant is refused, with file, line, section and key.

Knows the sections and their keys. The types of keys are those of the dataclasses that they fill.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mathlete.core.durations import parse_duration
from mathlete.core.errors import InputError
from mathlete.planning.hardware import Hardware, find_accelerator
from mathlete.recipes.gpus import what_does_not_fit
from mathlete.recipes.models import located
from mathlete.recipes.recipe import ContestSpec, Recipe
from mathlete.recipes.source import RecipeSource, read_source
from mathlete.recipes.values import fits, words_for
from mathlete.run_config import EMBEDDED_SETTINGS, EngineSpec, EngineType, RunConfig, settings_of_engine, settings_type

SECTIONS = ("description", "engines", "run", "hardware", "contest")
# Written as durations; the fields that they fill are seconds.
_DURATIONS: Mapping[str, str] = {"budget": "budget_s", "code_timeout": "code_timeout_s", "reserve": "reserve_s"}
_NOT_OPTIONS = {"command", "source", "budget_s", "code_timeout_s", "engines", "recipe"}


def run_keys() -> dict[str, Any]:
    """Keys of [run] and their types: the options of `mathlete solve` that are recorded, by their names there."""
    hints = get_type_hints(RunConfig)
    return {"budget": str, **{name: hints[name] for name in hints if name not in _NOT_OPTIONS}, "code_timeout": str}


def engine_keys(engine_type: str) -> dict[str, Any]:
    """Keys of an [engines.NAME] of a type, and their types: of any engine, and then the settings of its own."""
    hints = get_type_hints(EngineSpec)
    own = get_type_hints(settings_type(engine_type))
    return {
        **{name: hints[name] for name in hints if name not in ("name", "settings")},
        **{name: own[name] for name in settings_of_engine(engine_type)},
    }


def hardware_keys() -> dict[str, Any]:
    """Keys of [hardware] and their types."""
    return {**get_type_hints(Hardware), "accelerator": str}


def contest_keys() -> dict[str, Any]:
    """Keys of [contest] and their types."""
    return {**{name: hint for name, hint in get_type_hints(ContestSpec).items() if name != "reserve_s"}, "reserve": str}


def recipe_names() -> list[str]:
    """The recipes that come with Mathlete, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in _folder().iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe that comes with Mathlete by its name, or one from a TOML file. No model needs to be there.

    Raises:
        InputError: there is none, or it cannot be used; the message says where and why.
    """
    text = str(name_or_path)
    names = recipe_names()
    if text in names:
        path = Path(str(_folder() / f"{text}.toml"))
        return recipe_of(read_source(path, f"recipes/{text}.toml"), path)
    path = Path(os.path.expanduser(text))  # which leaves ~nobody as it is
    if not path.exists() and path.suffix.lower() != ".toml":
        near = difflib.get_close_matches(text, names, n=1)
        meant = f"; did you mean {near[0]}?" if near else ";"
        raise InputError(f"there is no recipe {text!r}{meant} there are {', '.join(names)}, and files, NAME.toml")
    return recipe_of(read_source(path), path.absolute())


def recipe_of(source: RecipeSource, path: Path) -> Recipe:
    """The recipe that a text says. `path` is where it is from: paths in it are relative to its folder.

    Raises:
        InputError: it cannot be used.
    """
    given = source.parse()
    source.check_names("", given, SECTIONS, "section of a recipe")
    if not given.keys() & {"engines", "run"}:
        raise InputError(f"{source.where}: it says nothing: a recipe has [engines.NAME] or [run]; see docs/recipes.md")
    description = given.get("description", "")
    if not isinstance(description, str):
        raise source.error("", "description", f"description must be text in quotes, not {description!r:.40}")
    engines = tuple(_engines(source, given, path.parent))
    recipe = Recipe(
        name=path.stem,
        path=path,
        description=description,
        engines=engines,
        run=_run(source, given, engines, path.parent),
        hardware=_hardware(source, given),
        contest=_contest(source, given),
    )
    _check_whole(source, recipe)
    return recipe


def _engines(source: RecipeSource, given: Mapping[str, Any], folder: Path) -> Iterator[EngineSpec]:
    for name, table in _table(source, given, "engines").items():
        section = f"engines.{name}"
        if not isinstance(table, dict):
            raise source.error("engines", name, f"{name} must be a table: each engine has a name, as in [engines.main]")
        kind = _type_of(source, section, table)
        values = _values(source, section, table, engine_keys(kind), f"setting of {kind}")
        if "model" not in values:
            raise source.error(section, None, "model is missing: the name or path of what the engine loads")
        settings = {key: table[key] for key in settings_of_engine(kind) if key in table}
        values = {key: value for key, value in values.items() if key not in settings}
        values["model"] = _model(source, section, kind, values["model"], folder)
        _locate_drafts(kind, settings, folder)
        try:
            spec = EngineSpec(name=name, **values, settings=settings)
            if kind == "ryanstream":
                RunConfig("solve", None, spec.model, 1.0, **settings)
        except ValueError as error:
            raise source.error(section, _key_of(error, table), str(error)) from error
        yield spec


def _type_of(source: RecipeSource, section: str, table: Mapping[str, Any]) -> EngineType:
    kinds: tuple[EngineType, ...] = get_args(EngineType)
    given = table.get("type")
    for kind in kinds:
        if given == kind:
            return kind
    said = "type is missing" if given is None else f"type cannot be {given!r:.40}"
    near = difflib.get_close_matches(str(given), kinds, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise source.error(section, "type" if "type" in table else None, f"{said}: one of {', '.join(kinds)}{hint}")


def _run(
    source: RecipeSource, given: Mapping[str, Any], engines: tuple[EngineSpec, ...], folder: Path
) -> dict[str, Any]:
    table = _table(source, given, "run")
    of_engines = [name for name in ("model", *EMBEDDED_SETTINGS) if name in table and engines]
    if of_engines:
        raise source.error(
            "run", of_engines[0], f"{of_engines[0]} belongs to an engine: put it into [engines.{engines[0].name}]"
        )
    values = _values(source, "run", table, run_keys(), "option of a run")
    if "model" in values:
        values["model"] = _model(source, "run", "ryanstream", values["model"], folder)
    _locate_drafts("ryanstream", values, folder)
    if "mapping" in values and (folder / values["mapping"]).is_file():
        values["mapping"] = str((folder / values["mapping"]).absolute())
    return values


def _model(source: RecipeSource, section: str, kind: str, model: str, folder: Path) -> str:
    if not model.strip():  # which would be the recipe's own folder
        raise source.error(section, "model", "model is empty: it is the name or path of what the engine loads")
    return located(kind, model, folder)


def _locate_drafts(kind: str, settings: dict[str, Any], folder: Path) -> None:
    if settings.get("draft_model") is not None:
        settings["draft_model"] = located(kind, settings["draft_model"], folder)
    speculative = settings.get("speculative_config")
    if isinstance(speculative, dict) and isinstance(speculative.get("model"), str):
        settings["speculative_config"] = {**speculative, "model": located(kind, speculative["model"], folder)}


def _hardware(source: RecipeSource, given: Mapping[str, Any]) -> Hardware | None:
    if "hardware" not in given:
        return None
    table = _table(source, given, "hardware")
    values = _values(source, "hardware", table, hardware_keys(), "key of [hardware]")
    if "accelerator" not in values:
        raise source.error("hardware", None, 'accelerator is missing: the GPU, such as "h100-sxm-80gb"')
    try:
        accelerator = find_accelerator(values.pop("accelerator"))
    except InputError as error:
        raise source.error("hardware", "accelerator", str(error)) from error
    try:
        return Hardware(accelerator, **values)
    except ValueError as error:
        raise source.error("hardware", _key_of(error, table), str(error)) from error


def _contest(source: RecipeSource, given: Mapping[str, Any]) -> ContestSpec | None:
    if "contest" not in given:
        return None
    table = _table(source, given, "contest")
    values = _values(source, "contest", table, contest_keys(), "key of [contest]")
    try:
        return ContestSpec(**values)
    except ValueError as error:
        raise source.error("contest", _key_of(error, table), str(error)) from error


def _table(source: RecipeSource, given: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    table = given.get(section, {})
    if not isinstance(table, dict):
        raise source.error("", section, f"{section} must be a section, [{section}], not {table!r:.40}")
    return table


def _values(
    source: RecipeSource, section: str, table: Mapping[str, Any], keys: Mapping[str, Any], what: str
) -> dict[str, Any]:
    """The values of a section as its dataclass takes them, by the names of its fields."""
    source.check_names(section, table, keys, what)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in _DURATIONS:
            values[_DURATIONS[key]] = _seconds(source, section, key, value)
        elif not fits(value, keys[key]):
            raise source.error(section, key, f"{key} must be {words_for(keys[key])}, not {value!r:.60}")
        else:
            values[key] = tuple(value) if isinstance(value, list) else float(value) if keys[key] is float else value
    return values


def _seconds(source: RecipeSource, section: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise source.error(section, key, f'{key} must be a time, such as "10m" or "4h50m", not {value!r:.60}')
    try:
        return parse_duration(value if isinstance(value, str) else format(value, "f"))
    except (InputError, OverflowError) as error:
        raise source.error(section, key, f"{key}: {error}") from error


def _check_whole(source: RecipeSource, recipe: Recipe) -> None:
    """What only shows when all sections are there: engines against each other, the run, and the GPUs."""
    try:
        RunConfig("solve", None, "-", 1.0, engines=recipe.engines)
    except ValueError as error:
        raise source.error("engines", None, str(error)) from error
    try:
        recipe.run_config("solve", check_models=False)
    except ValueError as error:
        raise source.error("run", _key_of(error, recipe.run), str(error)) from error
    if recipe.hardware is not None and (found := what_does_not_fit(recipe.engines, recipe.hardware)) is not None:
        raise source.error(f"engines.{found[0]}", None, found[1])


def _key_of(error: ValueError, table: Mapping[str, Any]) -> str | None:
    """The key that a dataclass's message begins with, where it stands in the file."""
    name = str(error).partition(" ")[0]
    return name if name in table else None


def _folder() -> Any:
    return resources.files("mathlete.recipes")
