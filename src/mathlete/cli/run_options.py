"""The flags that `solve` and `evaluate` share, each written once. Knows their spelling; not what they do.

typer reads flags from a function's signature, so `run_options` gives a command the signature made of `_OPTIONS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from mathlete.cli.run_logging import LogTo
from mathlete.model_store.registry import DEFAULT_MODEL

INTERRUPTED_EXIT_CODE = 130

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="PROBLEMS",
        help="A .csv (id,problem[,answer]), .jsonl or .parquet file, hf:OWNER/NAME, or one problem as text.",
    ),
]
Budget = Annotated[
    str | None, typer.Option(help="Wall-clock time for all problems, from when the model is ready: 90s, 10m, 1h30m.")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="Engines and options from a file, which flags go before: a name of `mathlete recipes list`, or a .toml "
        "file; docs/recipes.md.",
    ),
]
Attempts = Annotated[int, typer.Option(min=1, help="Attempts a problem.")]
Seed = Annotated[int, typer.Option(help="All sampling noise is derived from it.")]
Model = Annotated[str, typer.Option(help="A name of `mathlete models list`, a .gguf file, or a safetensors folder.")]
Out = Annotated[Path, typer.Option(help="Folder for runs; this one goes into a folder of its own.")]
Resume = Annotated[
    str | None, typer.Option(metavar="RUN", help="Go on with a run: its id, the start of it, a path, or 'latest'.")
]
Temperature = Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")]
TemperatureSchedule = Annotated[
    str,
    typer.Option(
        help="fixed, or annealed: from 1.4 for the first wave down to 0.3 as the answers agree, in place of "
        "--temperature; for --policy triad, not measured."
    ),
]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus mass.")]
MinP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Least probability, relative to the likeliest token.")]
TopK = Annotated[int, typer.Option(min=0, help="Only the likeliest K tokens; 0 for no limit.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens an attempt may write, over all of its turns.")]
MaxPrograms = Annotated[int, typer.Option(min=1, help="Programs an attempt may run.")]
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
Mapping = Annotated[
    str | None,
    typer.Option(help="Which columns of PROBLEMS hold what: a preset's name, or a .toml file; docs/importing.md."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N problems.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

Policy = Annotated[
    str,
    typer.Option(
        help="How a problem is worked on: triad (pillars, checks and the clock together), vote (attempts until the "
        "vote is settled), fixed (all attempts, none stopped early), pipeline (all attempts, and of them the best "
        "scored one's answer, clamped) or prometheus (a failed pipeline, for comparison)."
    ),
]
SelectorName = Annotated[str, typer.Option("--selector", help="The rule that chooses the answer; docs/selection.md.")]
Stop = Annotated[str, typer.Option(help="The rule that says when a vote is settled; docs/selection.md.")]
Pillars = Annotated[
    str | None, typer.Option(help="Ways of solving, in turn, with commas, of code and reasoning; code if not told.")
]
Checks = Annotated[
    str | None,
    typer.Option(
        help="Checks of the leading answers, written and run apart from the attempts, with commas: sympy_check, "
        "smt_check, enumeration_check, genselect_check, lean_check (of problems with a formal_statement); none for "
        "none. Triad: sympy_check,enumeration_check."
    ),
]
SecondRound = Annotated[
    int | None,
    typer.Option(min=0, help="Attempts that are shown what the others found, where the votes are split; triad: 2."),
]
TokenBudget = Annotated[
    int | None, typer.Option(min=1, help="Tokens for all problems together, shared as time is; no limit by default.")
]
Scorer = Annotated[
    str,
    typer.Option(
        help="What --policy pipeline scores attempts by: mean_logprob, mean_confidence, inverse_entropy, ... "
        "(docs/recipes.md), or available, the first of these that all attempts tell."
    ),
]
Cured = Annotated[
    str,
    typer.Option(help="Faults of --policy prometheus that are cured, with commas, such as no_reasoning,told_wrong."),
]

# In the order of --help.
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "recipe": (RecipeName, None),
    "budget": (Budget, None),
    "attempts": (Attempts, 8),
    "seed": (Seed, 0),
    "model": (Model, DEFAULT_MODEL),
    "out": (Out, Path("runs")),
    "resume": (Resume, None),
    "temperature": (Temperature, 0.8),
    "temperature_schedule": (TemperatureSchedule, "fixed"),
    "top_p": (TopP, 0.95),
    "top_k": (TopK, 0),
    "min_p": (MinP, 0.0),
    "max_tokens": (MaxTokens, 1024),
    "max_programs": (MaxPrograms, 4),
    "policy": (Policy, "triad"),
    "selector": (SelectorName, "triad"),
    "stop": (Stop, "settled"),
    "pillars": (Pillars, None),
    "checks": (Checks, None),
    "second_round": (SecondRound, None),
    "token_budget": (TokenBudget, None),
    "scorer": (Scorer, "available"),
    "cured": (Cured, "none"),
    "max_in_flight": (MaxInFlight, 32),
    "precision": (Precision, "auto"),
    "kv_cache_dtype": (KVCacheDtype, "bf16"),
    "batch_invariant": (BatchInvariant, False),
    "tensor_parallel": (TensorParallel, 1),
    "device": (Device, "cpu"),
    "thinking_budget": (ThinkingBudget, None),
    "normalize_math": (NormalizeMath, False),
    "speculative_method": (SpeculativeMethod, "off"),
    "num_speculative_tokens": (NumSpeculativeTokens, 8),
    "draft_width": (DraftWidth, 1),
    "draft_model": (DraftModel, None),
    "constraints": (Constraints, False),
    "backtracking": (Backtracking, "off"),
    "beam_width": (BeamWidth, 0),
    "beam_soft_terms": (BeamSoftTerms, False),
    "threads": (Threads, None),
    "code_timeout": (CodeTimeout, "10s"),
    "mapping": (Mapping, None),
    "limit": (Limit, None),
    "log_to": (LogTo, None),
    "as_json": (AsJson, False),
}


def run_options(
    argument: str | None,
    *,
    without: Collection[str] = (),
    more: dict[str, tuple[Any, Any]] | None = None,
    **defaults: Any,
) -> Callable[[Callable[[typer.Context], None]], Callable[..., None]]:
    """Give a command the shared flags; it finds their values in its context.

    Args:
        argument: name of its only argument, the problems; None for a command without.
        without: flags that it does not have.
        more: flags that only it has, with types and defaults.
        defaults: of shared flags that this command has others for.
    """

    def decorate(command: Callable[[typer.Context], None]) -> Callable[..., None]:
        def with_options(ctx: typer.Context, **values: Any) -> None:
            assert values.keys() == ctx.params.keys()
            command(ctx)

        arguments = {} if argument is None else {argument: (Source, None)}
        told = {"ctx": (typer.Context, inspect.Parameter.empty), **arguments, **(more or {}), **_OPTIONS}
        told = {name: kind for name, kind in told.items() if name not in without}
        told |= {name: (told[name][0], value) for name, value in defaults.items()}
        with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
                for name, (kind, default) in told.items()
            ]
        )
        with_options.__annotations__ = {name: kind for name, (kind, _) in told.items()}
        with_options.__doc__ = command.__doc__
        return with_options

    return decorate
