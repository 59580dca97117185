"""`mathlete contest`: the organiser's protocol, served and rehearsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mathlete.cli.contest_bundle import bundle
from mathlete.cli.extras import check_installed
from mathlete.cli.options import parse_duration
from mathlete.cli.run_options import INTERRUPTED_EXIT_CODE, run_options
from mathlete.cli.solve import config_of_flags
from mathlete.session.live import ProgressConsole

if TYPE_CHECKING:
    from mathlete.kaggle.contest_run import Contest

app = typer.Typer(
    help="Contests on Kaggle (AIMO-3): the organiser's protocol, rehearsals, notebooks; docs/contest.md.",
    no_args_is_help=True,
)

app.command("bundle")(bundle)

_NOT_FOR_CONTESTS = ("resume", "mapping", "limit", "log_to", "as_json")
_BUDGET, _PROBLEMS = "4h50m", 50
_NEEDED = {"grpc": "grpcio", "google": "protobuf"}

Problems = Annotated[
    int | None, typer.Option(min=1, help="Problems that are expected; the recipe's [contest] or 50 where not given.")
]
RunId = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name of the run; one that was cut off is gone on with by its name.")
]
Host = Annotated[
    str | None, typer.Option(help="Address to listen at; this machine only, but in the rerun, where it is all.")
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to listen at, with our own server; else the organiser's ports."),
]
LocalCsv = Annotated[
    Path | None,
    typer.Option("--local-csv", metavar="CSV", help="Ask these problems here, unless this is the rerun (see docs)."),
]
Csv = Annotated[Path, typer.Argument(metavar="CSV", help="Problems: id,problem[,answer], as the organiser's files.")]
Runs = Annotated[int, typer.Option(min=1, help="Runs, one after the other; two have a score.")]
Clock = Annotated[str, typer.Option(help="Time of a run, all of it: loading and pauses too; a thirtieth is kept back.")]
FaultList = Annotated[
    str,
    typer.Option(
        "--faults",
        help="What is to go wrong, with commas: generator_killed, sandbox_killed, slow_gateway, slow_start, "
        "late_answer, exception, entrant_killed; so many of one as in sandbox_killed:10.",
    ),
]
Again = Annotated[
    str | None, typer.Option("--resume", metavar="NAME", help="Go on with a rehearsal after its last whole run.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


@app.command("serve")
@run_options(
    None,
    without=_NOT_FOR_CONTESTS,
    more={
        "problems": (Problems, None),
        "run_id": (RunId, None),
        "host": (Host, None),
        "port": (Port, None),
        "local_csv": (LocalCsv, None),
    },
)
def serve(ctx: typer.Context) -> None:
    """Answer a contest's gateway: one integer a problem, in time, whatever happens.

    The server is up at once and loads its engine meanwhile; engines run in processes of their own. --budget is the time
    of the whole contest, 4h50m unless the recipe says otherwise. Ends with Ctrl-C, in order.
    """
    check_installed("the contest's protocol", _NEEDED, "contest")
    from mathlete.kaggle.entrant_process import Serving, serve_contest

    params = ctx.params
    serving = Serving(params["host"], params["port"], params["local_csv"])
    contest = _contest(ctx, params["budget"], params["problems"], params["run_id"])
    run = serve_contest(contest, serving, ProgressConsole())
    if run is not None and run.error is not None:
        raise run.error


@app.command("rehearse")
@run_options(
    None,
    without=(*_NOT_FOR_CONTESTS, "budget"),
    more={
        "csv": (Csv, ...),
        "runs": (Runs, 2),
        "clock": (Clock, "20m"),
        "faults": (FaultList, ""),
        "again": (Again, None),
        "prints_json": (AsJson, False),
    },
)
def rehearse(ctx: typer.Context) -> None:
    """Play a contest on this machine: an entrant in a process of its own, asked over gRPC as the organiser asks.

    Each run has other noise and another order, and a folder under --out; with labels, two runs are scored 1, 0.5 or 0
    a problem. A label column goes over the wire, as the organiser's would, and must do no harm.
    """
    check_installed("the contest's protocol", _NEEDED, "contest")
    from mathlete.kaggle import rehearsal as rehearsing
    from mathlete.kaggle import rehearsal_session as session
    from mathlete.kaggle.contest_table import ContestTable
    from mathlete.kaggle.faults import parse_faults

    params, console = ctx.params, ProgressConsole()
    table, clock_s = ContestTable.read(params["csv"]), parse_duration(params["clock"])
    rehearsal = rehearsing.Rehearsal(
        contest=_contest(ctx, params["clock"], len(table), None),
        table=table,
        name=params["again"] or rehearsing.new_name(),
        num_runs=params["runs"],
        clock_s=clock_s,
        faults=parse_faults(params["faults"]),
        seed=params["seed"],
        command=rehearsing.entrant_command,
    )
    _fetch_models(rehearsal.contest, console)
    played = session.played_before(rehearsal.folder) if params["again"] else ()
    try:
        rehearsed = session.rehearse(rehearsal, console, played)
    except KeyboardInterrupt as error:
        go_on = f"the same command with --resume {rehearsal.name}"
        console.print(f"interrupted; to go on after the last whole run: {go_on}", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error
    timed = session.times(rehearsed, params["out"])
    if params["prints_json"]:
        typer.echo(json.dumps(session.summary(rehearsed, timed), indent=2))
    else:
        session.show_rehearsal(rehearsed, timed, rehearsal.folder, Console())


def _contest(ctx: typer.Context, budget: str | None, num_problems: int | None, run_id: str | None) -> Contest:
    from dataclasses import replace

    from mathlete.kaggle.contest_run import COMMAND, Contest
    from mathlete.kaggle.engine_guards import in_own_processes

    budget_s = None if budget is None else parse_duration(budget)
    config = config_of_flags(ctx, None, budget_s, _BUDGET, "solve")
    if num_problems is None:
        num_problems = _announced(ctx.params["recipe"])
    return Contest(in_own_processes(replace(config, command=COMMAND)), num_problems, ctx.params["out"], run_id)


def _fetch_models(contest: Contest, console: Console) -> None:
    """What the embedded engine loads, fetched before the clock begins; raises `MathleteError` where it cannot be."""
    from mathlete.model_store.store import ModelStore
    from mathlete.session.fetching import showing_progress

    with showing_progress(console) as report:
        for engine in contest.config.engines:
            if engine.type == "ryanstream":
                ModelStore().ensure(engine.model, report)


def _announced(recipe: Any) -> int:
    """Problems of the contest that a recipe is written for."""
    if recipe is None:
        return _PROBLEMS
    from mathlete.recipes.loading import load_recipe

    contest = load_recipe(recipe).contest
    return _PROBLEMS if contest is None else contest.problems
