"""`mathlete`: the commands, and how an error is told to a person."""

from __future__ import annotations

import io
import sys

import typer
from rich.console import Console
from rich.text import Text

from mathlete import __version__
from mathlete.cli import (
    bench,
    compare,
    contest,
    doctor,
    evaluate,
    models,
    plan,
    power,
    recipes,
    replay,
    report,
    runs,
    sandbox,
    serve,
    solve,
    sweep,
    tasks,
    view,
)
from mathlete.cli.sandbox import printable
from mathlete.core.errors import MathleteError

app = typer.Typer(
    help="Solves olympiad mathematics with language models that you run yourself, inside a budget of time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("solve")(solve.solve)
app.command("evaluate")(evaluate.evaluate)
app.command("sweep")(sweep.sweep)
app.command("replay")(replay.replay)
app.command("compare")(compare.compare)
app.command("power")(power.power)
app.command("plan")(plan.plan)
app.command("report")(report.report)
app.command("view")(view.view)
app.command("serve")(serve.serve)
app.add_typer(contest.app, name="contest")
app.add_typer(runs.app, name="runs")
app.add_typer(bench.app, name="bench")
app.add_typer(models.app, name="models")
app.add_typer(recipes.app, name="recipes")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(tasks.app, name="tasks")
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def options(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Solves olympiad mathematics with language models that you run yourself, inside a budget of time."""
    if version:
        typer.echo(f"mathlete {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; an expected error is one message on stderr and its own exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a result must not be lost to a character the terminal lacks
    try:
        app()
    except MathleteError as error:
        message = "\n".join([str(error), *getattr(error, "__notes__", ())])
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), printable(message)))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
