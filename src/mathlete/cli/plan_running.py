"""Makes a plan of a recipe and shows it: as tables for a person, or as JSON. Computes nothing itself."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console

from mathlete.cli.plan_inputs import attempt_shape, contest_shape, machines, planned_engines
from mathlete.cli.plan_tables import print_plan
from mathlete.core.errors import InputError
from mathlete.planning.plan import Plan, make_plan
from mathlete.recipes.loading import load_recipe


def show_plan(
    recipe_name: str,
    *,
    attempts: int | None,
    length: int | None,
    mean_new: int | None,
    accelerator: str | None,
    count: int | None,
    as_json: bool,
) -> bool:
    """Print the plan of a recipe; returns whether it fits.

    Raises:
        InputError: the recipe, a model, an accelerator or a number cannot be used.
        ModelError: a model's files do not describe one.
    """
    recipe = load_recipe(recipe_name)
    try:
        config = recipe.run_config("solve", check_models=False)
    except ValueError as error:
        raise InputError(f"the recipe {recipe.name} cannot be run: {error}") from error
    hardware = machines(recipe, accelerator, count)
    engines, elsewhere = planned_engines(recipe, config, hardware, length)
    shape = attempt_shape(recipe, config, attempts, length, mean_new)
    plan = make_plan(engines, hardware, shape, contest_shape(recipe), elsewhere)
    if as_json:
        print(json.dumps(as_data(plan, recipe.name), indent=2))
    else:
        print_plan(plan, recipe.name, Console(highlight=False))
    return plan.fits


def as_data(plan: Plan, name: str) -> dict[str, object]:
    """The plan as JSON holds it: everything in it, sizes in bytes, and the verdicts."""
    engines = [{**asdict(engine), "fits": engine.fits} for engine in plan.engines]
    loads = [{**asdict(load), "fits": load.fits} for load in plan.loads]
    return {"recipe": name, "fits": plan.fits, **asdict(plan), "engines": engines, "loads": loads}
