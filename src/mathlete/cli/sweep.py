"""`mathlete sweep`: several recipes over the same tasks with several seeds, on this machine or a cluster, compared."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from mathlete.cli.cluster_options import CLUSTER_FLAGS, crew_of_flags
from mathlete.cli.options import parse_duration, parse_names
from mathlete.cli.run_options import INTERRUPTED_EXIT_CODE, run_options
from mathlete.cli.solve import config_of_flags
from mathlete.core.errors import InputError
from mathlete.session.live import ProgressConsole

if TYPE_CHECKING:
    from mathlete.lab.sweep_table import SweepRow
    from mathlete.session.crew import OpenCrew
    from mathlete.session.sweep import Sweep

What = Annotated[
    list[str] | None,
    typer.Argument(metavar="RECIPE... TASKS", help="Names or files of recipes, and last a file of tasks with answers."),
]
Seeds = Annotated[str, typer.Option(help="Seeds of the runs of each recipe, with commas.")]
ResumeSweep = Annotated[
    Path | None, typer.Option("--resume", metavar="FOLDER", help="Go on with the sweep in this folder.")
]
_FLAGS = {"what": (What, None), "seeds": (Seeds, "0"), "resume_sweep": (ResumeSweep, None), **CLUSTER_FLAGS}


@run_options(
    None,
    without=("resume", "recipe", "seed", "log_to"),
    more=_FLAGS,
    budget=None,
    precision="w8a8",
    policy="fixed",
)
def sweep(ctx: typer.Context) -> None:
    """Evaluate recipes over the same tasks with several seeds, each as a run, and compare them with the first.

    Flags hold for all recipes. The runs go into one folder under --out and, at the end, into one store in it,
    sweep.sqlite. A sweep that was cut off goes on with --resume FOLDER: finished runs are not made again.
    """
    params = ctx.params
    open_crew = crew_of_flags(params["ray"], params["num_workers"]) or _local_crew()
    console = ProgressConsole()
    from mathlete.lab.tasks import load_tasks
    from mathlete.session.sweep import begin_sweep, open_sweep, run_sweep

    is_new = params["resume_sweep"] is None
    asked = _asked(ctx) if is_new else open_sweep(params["resume_sweep"])
    mapping = next(iter(asked.configs.values())).mapping
    tasks = load_tasks(asked.tasks, require_gold=True, limit=asked.limit, mapping=mapping)
    for note in tasks.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if is_new:
        begin_sweep(asked)
    try:
        is_whole = run_sweep(asked, tasks.tasks, console, open_crew)
    except KeyboardInterrupt as error:
        console.print(f"to go on: mathlete sweep --resume {asked.folder}", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error
    _tell(asked, as_json=params["as_json"])
    if not is_whole:
        console.print(
            f"not complete; to go on: mathlete sweep --resume {asked.folder}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED_EXIT_CODE)


def _asked(ctx: typer.Context) -> Sweep:
    from mathlete.session.sweep import Sweep

    what = ctx.params["what"] or []
    if len(what) < 2:
        raise InputError("give at least one RECIPE and, last, a file of TASKS; or --resume FOLDER")
    *recipes, tasks = what
    budget_s = None if ctx.params["budget"] is None else parse_duration(ctx.params["budget"])
    configs = {}
    for recipe in recipes:
        name = Path(recipe).stem if recipe.endswith(".toml") else recipe
        if name in configs:
            raise InputError(f"two recipes are called {name}: rename a file, their runs go into folders of that name")
        ctx.params["recipe"] = recipe
        configs[name] = config_of_flags(ctx, tasks, budget_s, "12h", "evaluate")
    folder = ctx.params["out"] / f"sweep-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    try:
        seeds = tuple(int(seed) for seed in parse_names(ctx.params["seeds"]))
        return Sweep(folder, tasks, configs, seeds, ctx.params["limit"])
    except ValueError as error:
        raise InputError(f"--seeds takes different integers with commas, such as 0,1,2: {error}") from error


def _local_crew() -> OpenCrew:
    from mathlete.session import run_session
    from mathlete.session.crew import open_local

    return lambda config, problems, console: open_local(config, problems, console, run_session.load_generator)


def _tell(asked: Sweep, *, as_json: bool) -> None:
    from mathlete.lab.outcomes import outcomes_of_run
    from mathlete.lab.run_reading import read_outline
    from mathlete.lab.run_store import RunStore
    from mathlete.lab.sweep_table import sweep_rows

    outcomes: dict[str, dict[int, list]] = {name: {} for name in asked.configs}  # type: ignore[type-arg]
    for run in asked.runs():
        if run.is_begun:
            with RunStore.read(run.folder.store_path) as store:
                outcomes[run.name][run.config.seed] = outcomes_of_run(read_outline(store))
    rows = sweep_rows({name: by_seed for name, by_seed in outcomes.items() if by_seed})
    if as_json:
        told = {"sweep": str(asked.folder), "store": str(asked.store_path), "rows": [row.as_dict() for row in rows]}
        typer.echo(json.dumps(told, indent=2))
        return
    console = Console()
    console.print(_table(rows))
    for row in rows[1:]:
        if row.comparison is not None:
            console.print(f"{row.name} against {rows[0].name}: {row.comparison.verdict}", highlight=False, markup=False)
    console.print(f"runs: {asked.folder}", highlight=False, markup=False, soft_wrap=True)


def _table(rows: list[SweepRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("recipe", "seeds", "problems", "accuracy", "spread", "difference", "tokens"):
        table.add_column(name, justify="left" if name == "recipe" else "right", no_wrap=True)
    for row in rows:
        scores = None if row.comparison is None else row.comparison.scores
        against = ""
        if scores is not None:
            low, high = scores.difference.low, scores.difference.high
            against = f"{scores.difference.value:+.1%} [{low:+.1%}, {high:+.1%}]"
        table.add_row(
            row.name,
            str(row.num_seeds),
            str(row.num_problems),
            "-" if row.mean_accuracy is None else f"{row.mean_accuracy:.1%}",
            "" if row.spread is None else f"± {row.spread:.1%}",
            against,
            f"{row.tokens_per_problem:,.0f}",
        )
    return table
