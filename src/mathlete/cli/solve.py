"""`mathlete solve`: problems in, integers out, inside a budget."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from mathlete.cli.cluster_options import CLUSTER_FLAGS, FLAGS_OF_WHERE, crew_of_flags
from mathlete.cli.options import parse_duration, parse_names
from mathlete.cli.run_logging import log_quietly
from mathlete.cli.run_options import INTERRUPTED_EXIT_CODE, run_options
from mathlete.core.errors import InputError
from mathlete.run_config import RunConfig
from mathlete.session.configuring import complete_config
from mathlete.session.live import ProgressConsole

if TYPE_CHECKING:
    from mathlete.adapters.tracking import Tracker

# With --resume.
_MAY_CHANGE = frozenset({"problems", "tasks", "resume", "budget", "out", "log_to", "as_json"}) | FLAGS_OF_WHERE


@run_options("problems", more=CLUSTER_FLAGS)
def solve(ctx: typer.Context) -> None:
    """Solve one problem or a file of problems.

    Every problem gets an integer, within the budget. Answers, attempts and a report go into a folder under --out.
    An `answer` column is a label: it is looked at only after a problem has ended, to mark the report.
    """
    run_command(ctx, ctx.params["problems"], default_budget="10m")


def run_command(ctx: typer.Context, problems: str | None, *, default_budget: str, require_gold: bool = False) -> None:
    """What `solve` and `evaluate` share: check the input, run, tell the result.

    What can be found wrong is found before torch is imported and the model loaded.
    """
    params = ctx.params
    resume, out = params["resume"], params["out"]
    if (problems is None) == (resume is None):
        raise InputError("give either PROBLEMS (a file, or one problem as text) or --resume RUN")
    budget_s = None if params["budget"] is None else _duration("--budget", params["budget"])
    trackers = _trackers(params["log_to"])
    open_crew = crew_of_flags(params["ray"], params["num_workers"])
    console = ProgressConsole()
    try:
        if resume is not None:
            _check_resumable(ctx)
            from mathlete.session.run_session import resume_run

            result = resume_run(resume, out, budget_s, console, open_crew)
        else:
            assert problems is not None
            config = config_of_flags(ctx, problems, budget_s, default_budget, ctx.command.name or "")
            from mathlete.lab.tasks import load_tasks
            from mathlete.session.run_session import start_run

            tasks = load_tasks(problems, require_gold=require_gold, limit=params["limit"], mapping=config.mapping)
            if not require_gold:
                tasks.check_none_is_lost()
            for note in tasks.notes:
                console.print(note, highlight=False, markup=False, soft_wrap=True)
            result = start_run(config, tasks.tasks, out, console, open_crew=open_crew)
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error
    from mathlete.session.summary import show_summary, summary

    if params["as_json"]:
        typer.echo(json.dumps(summary(result.record, result.folder.path), indent=2))
    else:
        show_summary(result.record, result.folder.path, Console())
    log_quietly(result.folder, trackers, console)
    if result.interrupted:
        go_on = f"mathlete {ctx.command.name} --resume {result.folder.path}"
        console.print(f"interrupted; to go on: {go_on}", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE)


def _trackers(names: str | None) -> tuple[Tracker, ...]:
    if names is None:
        return ()
    from mathlete.adapters.tracking import parse_trackers

    try:
        return parse_trackers(names)
    except InputError as error:
        raise InputError(f"--log-to: {error}") from error


def config_of_flags(
    ctx: typer.Context, problems: str | None, budget_s: float | None, default_budget: str, command: str
) -> RunConfig:
    """The checked configuration of a new run; paths in it hold wherever the run is resumed from.

    Args:
        ctx: of a command with `run_options`; flags that it leaves out are as `complete_config` has them.
        problems: a file, or text; None where problems come later.
        budget_s: what a person gave, if they gave it.
        default_budget: where neither flag nor recipe gives one.
        command: "solve" or "evaluate".

    Raises:
        InputError: a flag or the recipe cannot be used.
    """
    recipe = None
    if ctx.params["recipe"] is not None:
        from mathlete.recipes.loading import load_recipe

        recipe = load_recipe(ctx.params["recipe"])
    options = {name: value for name, value in ctx.params.items() if name in RunConfig.__dataclass_fields__}
    options["code_timeout_s"] = _duration("--code-timeout", ctx.params["code_timeout"])
    for name in ("pillars", "checks", "cured"):
        options[name] = None if options[name] is None else parse_names(options[name])
    source = problems if problems is not None and problems.startswith("hf:") else None
    if problems is not None and os.path.exists(problems):
        source = os.path.abspath(problems)
    if options.get("mapping") is not None and os.path.isfile(options["mapping"]):
        options["mapping"] = os.path.abspath(options["mapping"])
    try:
        if recipe is not None:
            given = {name: value for name, value in options.items() if _is_given(ctx, name.removesuffix("_s"))}
            given |= {} if budget_s is None else {"budget_s": budget_s}
            return recipe.run_config(command, source=source, overrides=given)
        return complete_config(
            {**options, "budget_s": budget_s or parse_duration(default_budget)},
            command=command,
            source=source,
            precision_is_given=_is_given(ctx, "precision"),
        )
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise InputError(f"--{name.replace('_', '-')} {rest}") from error


def _duration(flag: str, text: str) -> float:
    try:
        return parse_duration(text)
    except InputError as error:
        raise InputError(f"{flag}: {error}") from error


def _check_resumable(ctx: typer.Context) -> None:
    """A run goes on as it was begun: refuse flags that would seem to change it."""
    given = [name for name in ctx.params if _is_given(ctx, name)]
    fixed = sorted(f"--{name.replace('_', '-')}" for name in given if name not in _MAY_CHANGE)
    if fixed:
        raise InputError(
            f"{', '.join(fixed)} cannot be changed when a run is resumed, only --budget can; leave it out, or start "
            "a new run"
        )


def _is_given(ctx: typer.Context, name: str) -> bool:
    """Whether a flag stands on the command line."""
    return getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
