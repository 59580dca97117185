"""`mathlete solve`: problems in, integers out, inside a budget."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mathlete.cli.live import ProgressConsole
from mathlete.cli.options import parse_duration
from mathlete.compose import RunConfig
from mathlete.core.errors import InputError
from mathlete.model_store.registry import DEFAULT_MODEL, find_model

INTERRUPTED_EXIT_CODE = 130
_MAY_CHANGE = frozenset({"problems", "tasks", "resume", "budget", "out", "as_json"})  # with --resume

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
TopK = Annotated[int, typer.Option(min=0, help="Only the likeliest K tokens; 0 for no limit.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens an attempt may write, over all of its turns.")]
MaxInFlight = Annotated[int, typer.Option(min=1, help="Attempts generating at once (vLLM's max_num_seqs).")]
Precision = Annotated[
    str,
    typer.Option(
        help="Of the linear layers: w8a8 (int8 weights and activations), int4, nf4, bf16, or auto, which takes the "
        "fastest for each step; only a fixed one repeats a run to the token."
    ),
]
KVCacheDtype = Annotated[
    str, typer.Option("--kv-cache-dtype", help="Of keys and values: bf16, or int8 (half the memory).")
]
BatchInvariant = Annotated[
    bool,
    typer.Option(
        "--batch-invariant",
        help="Guarantee that an attempt does not depend on what is computed beside it; slow without native kernels.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; a GPU takes --precision bf16, nf4 or auto.")]
ThinkingBudget = Annotated[
    int | None, typer.Option(min=0, help="Tokens of a <think> block before it is closed by force; no limit by default.")
]
NormalizeMath = Annotated[
    bool, typer.Option("--normalize-math", help="Make the notation of statements uniform before the model sees it.")
]
TensorParallel = Annotated[
    int,
    typer.Option("--tensor-parallel", "--tensor-parallel-size", min=1, help="Processes that hold the model together."),
]
SpeculativeMethod = Annotated[
    str,
    typer.Option(
        help="Guess tokens ahead and check several at once; what is drawn keeps its distribution. off, ngram (from the "
        "attempt's own text), suffix (from all attempts of a problem), draft (a smaller model), early_exit or eagle."
    ),
]
NumSpeculativeTokens = Annotated[
    int, typer.Option(min=1, max=64, help="Tokens guessed ahead at most; how many is decided by what pays.")
]
DraftWidth = Annotated[
    int,
    typer.Option(min=1, max=64, help="Guesses side by side for draft, early_exit and eagle; more than 1 grows trees."),
]
DraftModel = Annotated[
    str | None,
    typer.Option(
        "--draft-model",
        "--speculative-model",
        help="What guesses: for draft a name of `mathlete models list` or a path, of the same tokenizer; for eagle and "
        "early_exit the folder of a trained head.",
    ),
]
Constraints = Annotated[
    bool,
    typer.Option("--constraints", help="Write only what can still be balanced, and answers of the right kind."),
]
Backtracking = Annotated[
    str,
    typer.Option(help="Go back from refuted steps, contradictions and loops, with other noise: off, on or strict."),
]
BeamWidth = Annotated[
    int, typer.Option(min=0, help="Search over steps with so many partial solutions an attempt; 0 to write just one.")
]
BeamSoftTerms = Annotated[
    bool,
    typer.Option("--beam-soft-terms", help="Score a beam's steps by the published points for words and numbers too."),
]
Threads = Annotated[int | None, typer.Option("--threads", "-t", min=1, help="CPU threads; all available by default.")]
CodeTimeout = Annotated[str, typer.Option(help="Time a program may run.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N problems.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def solve(
    ctx: typer.Context,
    problems: Source = None,
    budget: Budget = None,
    attempts: Attempts = 8,
    seed: Seed = 0,
    model: Model = DEFAULT_MODEL,
    out: Out = Path("runs"),
    resume: Resume = None,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.95,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    max_tokens: MaxTokens = 1024,
    max_in_flight: MaxInFlight = 32,
    precision: Precision = "auto",
    kv_cache_dtype: KVCacheDtype = "bf16",
    batch_invariant: BatchInvariant = False,
    tensor_parallel: TensorParallel = 1,
    device: Device = "cpu",
    thinking_budget: ThinkingBudget = None,
    normalize_math: NormalizeMath = False,
    speculative_method: SpeculativeMethod = "off",
    num_speculative_tokens: NumSpeculativeTokens = 8,
    draft_width: DraftWidth = 1,
    draft_model: DraftModel = None,
    constraints: Constraints = False,
    backtracking: Backtracking = "off",
    beam_width: BeamWidth = 0,
    beam_soft_terms: BeamSoftTerms = False,
    threads: Threads = None,
    code_timeout: CodeTimeout = "10s",
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Solve one problem or a file of problems.

    Every problem gets an integer, within the budget. Answers, attempts and a report go into a folder under --out.
    An `answer` column is a label: it is looked at only after a problem has ended, to mark the report.
    """
    run_command(ctx, problems, default_budget="10m")


def run_command(ctx: typer.Context, problems: str | None, *, default_budget: str, require_gold: bool = False) -> None:
    """What `solve` and `evaluate` share: check the input, run, tell the result.

    What can be found wrong is found before torch is imported and the model loaded.
    """
    params = ctx.params
    resume, out = params["resume"], params["out"]
    if (problems is None) == (resume is None):
        raise InputError("give either PROBLEMS (a file, or one problem as text) or --resume RUN")
    budget_s = None if params["budget"] is None else _duration("--budget", params["budget"])
    console = ProgressConsole()
    try:
        if resume is not None:
            _check_resumable(ctx)
            from mathlete.cli.session import resume_run

            result = resume_run(resume, out, budget_s, console)
        else:
            assert problems is not None
            config = _config(ctx, problems, budget_s or parse_duration(default_budget))
            from mathlete.cli.session import start_run
            from mathlete.lab.tasks import load_tasks

            tasks = load_tasks(problems, require_gold=require_gold, limit=params["limit"])
            for note in tasks.notes:
                console.print(note, highlight=False, markup=False, soft_wrap=True)
            result = start_run(config, tasks.tasks, out, console)
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error
    from mathlete.cli.summary import show_summary, summary

    if params["as_json"]:
        typer.echo(json.dumps(summary(result.record, result.folder.path), indent=2))
    else:
        show_summary(result.record, result.folder.path, Console())
    if result.interrupted:
        go_on = f"mathlete {ctx.command.name} --resume {result.folder.path}"
        console.print(f"interrupted; to go on: {go_on}", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE)


def _config(ctx: typer.Context, problems: str, budget_s: float) -> RunConfig:
    """The checked configuration of a new run; paths in it hold wherever the run is resumed from."""
    options = {name: value for name, value in ctx.params.items() if name in RunConfig.__dataclass_fields__}
    timeout_s = _duration("--code-timeout", ctx.params["code_timeout"])
    if (options["batch_invariant"] or options["tensor_parallel"] > 1) and not _is_given(ctx, "precision"):
        options["precision"] = "w8a8" if options["device"] == "cpu" else "bf16"  # both need a fixed one
    for name in ("model", "draft_model"):
        given = options[name]
        if given is not None and find_model(given) is None and os.path.exists(path := Path(given).expanduser()):
            options[name] = str(path.absolute())
    source = os.path.abspath(problems) if os.path.isfile(problems) else None
    try:
        return RunConfig(
            command=ctx.command.name or "", source=source, budget_s=budget_s, code_timeout_s=timeout_s, **options
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
