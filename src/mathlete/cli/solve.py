"""`mathlete solve`: problems in, integers out, inside a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mathlete.cli.options import parse_duration
from mathlete.core.errors import InputError
from mathlete.core.record import RunRecord
from mathlete.model_store.registry import DEFAULT_MODEL

INTERRUPTED_EXIT_CODE = 130

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="PROBLEMS", help="A .csv (id,problem[,answer]), .jsonl or .parquet file, or one problem as text."
    ),
]
Budget = Annotated[
    str | None, typer.Option(help="Wall-clock time for all problems, from when the model is ready: 90s, 10m, 1h30m.")
]
Attempts = Annotated[int, typer.Option(min=1, help="Attempts a problem.")]
Seed = Annotated[int, typer.Option(help="All sampling noise is derived from it.")]
Model = Annotated[str, typer.Option(help="A name of `mathlete models list`, a .gguf file, or a safetensors folder.")]
Out = Annotated[Path, typer.Option(help="Folder for runs; this one goes into a folder of its own.")]
Resume = Annotated[
    str | None, typer.Option(metavar="RUN", help="Go on with a run: its id, the start of it, a path, or 'latest'.")
]
Temperature = Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus mass.")]
MinP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Least probability, relative to the likeliest token.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens an attempt may write.")]
MaxInFlight = Annotated[int, typer.Option(min=1, help="Attempts generating at once.")]
Precision = Annotated[str, typer.Option(help="w8a8 (int8) or bf16.")]
CodeTimeout = Annotated[str, typer.Option(help="Time a program may run.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N problems.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def solve(
    problems: Source = None,
    budget: Budget = None,
    attempts: Attempts = 8,
    seed: Seed = 0,
    model: Model = DEFAULT_MODEL,
    out: Out = Path("runs"),
    resume: Resume = None,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    max_tokens: MaxTokens = 1024,
    max_in_flight: MaxInFlight = 32,
    precision: Precision = "w8a8",
    code_timeout: CodeTimeout = "10s",
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Solve one problem or a file of problems.

    Every problem gets an integer, within the budget. Answers, attempts and a report go into a folder under --out.
    An `answer` column is a label: it is looked at only after a problem has ended, to mark the report.
    """
    options = {
        "command": "solve", "attempts": attempts, "seed": seed, "model": model, "temperature": temperature,
        "top_p": top_p, "min_p": min_p, "max_tokens": max_tokens, "max_in_flight": max_in_flight,
        "precision": precision, "code_timeout": code_timeout,
    }  # fmt: skip
    run_command(problems, budget, out, resume, limit, options, as_json, default_budget="10m")


def run_command(
    problems: str | None, budget: str | None, out: Path, resume: str | None, limit: int | None,
    options: dict[str, Any], as_json: bool, *, default_budget: str, require_gold: bool = False,
) -> None:  # fmt: skip
    """What `solve` and `evaluate` share: check the input, run, tell the result."""
    budget_s = parse_duration(budget) if budget is not None else None
    options["code_timeout_s"] = parse_duration(options.pop("code_timeout"))
    console = Console(stderr=True)
    if (problems is None) == (resume is None):
        raise InputError("give either PROBLEMS (a file, or one problem as text) or --resume RUN")
    # torch is behind these imports: a wrong flag or file should not wait for it
    from mathlete.lab.tasks import load_tasks

    if resume is not None:
        from mathlete.cli.session import resume_run

        result = resume_run(resume, out, budget_s, console)
    else:
        assert problems is not None
        tasks = load_tasks(problems, require_gold=require_gold, limit=limit)
        from mathlete.cli.session import start_run
        from mathlete.compose import RunConfig

        source = str(Path(problems).absolute()) if len(problems) < 4096 and Path(problems).is_file() else None
        config = RunConfig(source=source, budget_s=budget_s or parse_duration(default_budget), **options)
        _check_precision(config.precision)
        for note in tasks.notes:
            console.print(note, highlight=False, markup=False)
        result = start_run(config, tasks.tasks, out, console)
    if as_json:
        typer.echo(json.dumps(summary(result.record, result.folder.path), indent=2))
    else:
        show_summary(result.record, result.folder.path, Console())
    if result.interrupted:
        console.print(f"interrupted; go on with --resume {result.folder.id}", highlight=False)
        raise typer.Exit(INTERRUPTED_EXIT_CODE)


def summary(run: RunRecord, folder: Path) -> dict[str, Any]:
    """The result of a run as plain data, for `--json`."""
    from mathlete.lab.metrics import evaluate_run

    problems = [
        {
            "id": key,
            "answer": int(record.selection.answer) if record.selection else None,
            "confidence": record.selection.confidence if record.selection else 0.0,
            "rule": record.selection.rule if record.selection else None,
            "gold": record.gold,
            "num_attempts": len(record.attempts),
            "num_tokens": sum(attempt.num_tokens for attempt in record.attempts),
            "reason": record.stop_reason,
        }
        for key, record in run.problems.items()
    ]
    metrics = evaluate_run(run)
    return {
        "run": folder.name,
        "folder": str(folder),
        "finished": run.finished,
        "seconds": round(run.elapsed_s, 2),
        "num_tokens": sum(row["num_tokens"] for row in problems),
        "problems": problems,
        "metrics": metrics.as_dict() if metrics else None,
    }


def show_summary(run: RunRecord, folder: Path, console: Console) -> None:
    """The answers as a table, and where everything is."""
    labelled = any(record.gold is not None for record in run.problems.values())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("problem", "answer", *(["label"] if labelled else []), "votes", "attempts", "why it ended"):
        table.add_column(name, justify="right" if name in ("answer", "label") else "left")
    num_right = 0
    for key, record in run.problems.items():
        chosen = record.selection
        answer = chosen.answer if chosen else "-"
        votes = f"{chosen.clusters[0].weight:.0f}" if chosen and chosen.clusters else "0"
        right = record.gold is not None and answer == record.gold
        num_right += right
        style = "" if record.gold is None else ("green" if right else "red")
        cells = [Text(key[:32]), Text(answer, style=style)]
        if labelled:
            cells.append(Text(record.gold or ""))
        table.add_row(*cells, votes, str(len(record.attempts)), Text(record.stop_reason or ""))
    console.print(table)
    from mathlete.lab.metrics import evaluate_run

    metrics = evaluate_run(run)
    if metrics is not None:
        console.print()
        for line in metrics.lines():
            console.print(line, highlight=False, soft_wrap=True)
    tokens = sum(attempt.num_tokens for record in run.problems.values() for attempt in record.attempts)
    result = f"{num_right} of {len(run.problems)} right, " if labelled else f"{len(run.problems)} problems, "
    console.print(f"\n{result}{tokens:,} tokens in {run.elapsed_s:.0f} s", highlight=False)
    console.print(f"report:     {folder / 'report.html'}", highlight=False, soft_wrap=True)
    console.print(f"submission: {folder / 'submission.csv'}", highlight=False, soft_wrap=True)


def _check_precision(precision: str) -> None:
    from mathlete.ryanstream.model.weights import PRECISIONS

    if precision not in PRECISIONS:
        raise InputError(f"--precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
