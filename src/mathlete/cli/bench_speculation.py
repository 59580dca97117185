"""`mathlete bench speculation`: what guessing ahead is worth on this machine. Shows; others measure.

The engine is imported by the command, since torch comes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console

from mathlete.cli.bench_loading import load_measured, naming_options, needs_engine, showing_bar, tell_busy
from mathlete.cli.bench_tables import Row, print_json, print_speculation
from mathlete.cli.run_options import INTERRUPTED_EXIT_CODE, AsJson, DraftModel, Model, NumSpeculativeTokens, Threads
from mathlete.core.errors import InputError
from mathlete.core.generation import SamplingParams
from mathlete.model_store.registry import DEFAULT_MODEL
from mathlete.model_store.store import ModelStore
from mathlete.ryanstream.speculative.methods import NEED_A_DRAFT_MODEL, Method
from mathlete.session.engine_loading import find_draft_model
from mathlete.session.fetching import showing_progress

if TYPE_CHECKING:
    from mathlete.ryanstream.engine_config import EngineConfig
    from mathlete.ryanstream.loading import LoadedEngine
    from mathlete.ryanstream.speculation_measuring import SpeculationPair

Methods = Annotated[
    str,
    typer.Option("--method", metavar="NAME,...", help="ngram, suffix, draft, early_exit, eagle; one run each."),
]
Attempts = Annotated[int, typer.Option(min=1, help="Attempts of each problem, generated at once.")]
Problems = Annotated[int, typer.Option(min=1, help="Problems, one after the other.")]
New = Annotated[int, typer.Option(min=2, help="Tokens each attempt samples; the end of text is ignored.")]
Prompt = Annotated[int, typer.Option(min=64, help="Tokens of each problem's prompt.")]
Precision = Annotated[str, typer.Option(help="Of the linear layers: w8a8, int4, nf4, bf16, or auto.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is measured of every method."""

    attempts: int
    problems: int
    prompt_tokens: int
    sampling: SamplingParams


def speculation(
    model: Model = DEFAULT_MODEL,
    method: Methods = "ngram,suffix",
    draft_model: DraftModel = None,
    num_speculative_tokens: NumSpeculativeTokens = 8,
    attempts: Attempts = 1,
    problems: Problems = 4,
    new: New = 192,
    prompt: Prompt = 200,
    temperature: Temperature = 0.8,
    precision: Precision = "auto",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Tokens a second with guessing and without, the same attempts both times, taking turns.

    The texts are made up; how well they can be guessed says little of other texts.
    """
    methods = _methods(method, draft_model)
    with needs_engine():
        from mathlete.ryanstream.engine_config import EngineConfig
    sampling = SamplingParams(temperature=temperature, top_p=0.95, max_tokens=new, ignore_eos=True)
    plan = _Plan(attempts, problems, prompt, sampling)
    console = Console(stderr=True)
    with naming_options():
        plain = EngineConfig(
            precision=precision,  # type: ignore[arg-type]  # EngineConfig checks it
            max_running=attempts,
            max_model_len=prompt + new + 64,
            num_threads=threads,
            num_speculative_tokens=num_speculative_tokens,
        )
    tell_busy(console)
    rows: list[Row] = []
    try:
        for name in methods:
            config = _with_method(plain, name, draft_model, console)
            rows.append(_measure(model, config, plan, console))
    except KeyboardInterrupt as error:
        _show(rows, as_json)
        console.print("interrupted: these are the figures so far", highlight=False)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error
    _show(rows, as_json)


def _methods(text: str, draft_model: str | None) -> list[str]:
    known = [name for name in get_args(Method) if name != "off"]
    methods = [name.strip() for name in text.split(",")]
    unknown = [name for name in methods if name not in known]
    if unknown:
        raise InputError(f"--method takes {', '.join(known)}, with commas between; not {unknown[0][:40]!r}")
    without = [name for name in methods if name in NEED_A_DRAFT_MODEL and draft_model is None]
    if without:
        raise InputError(f"--method {without[0]} guesses with a model: give --draft-model")
    return methods


def _with_method(plain: EngineConfig, method: str, draft_model: str | None, console: Console) -> EngineConfig:
    """The draft model is for the one method that needs it, whatever stands beside that."""
    path = None
    if method in NEED_A_DRAFT_MODEL:
        with showing_progress(console) as report:
            path = find_draft_model(method, draft_model, ModelStore(), report)
    with naming_options():
        return replace(plain, speculative=method, draft_model=path)  # type: ignore[arg-type]  # checked by `_methods`


def _measure(model: str, config: EngineConfig, plan: _Plan, console: Console) -> Row:
    from mathlete.ryanstream.speculation_measuring import summarise_pairs

    loaded, facts = load_measured(model, config, console)
    row = {**facts, "method": config.speculative, "guesses": loaded.speculation, "attempts": plan.attempts,
           "new_tokens": plan.sampling.max_tokens}  # fmt: skip
    if loaded.engine.speculation is None:
        return row
    with showing_bar(console, f"measuring {config.speculative}", plan.problems) as advance:
        pairs = _pairs(loaded, plan, advance)
    loaded.close()
    return {**row, **asdict(summarise_pairs(pairs))}


def _pairs(loaded: LoadedEngine, plan: _Plan, advance: Callable[[int], None]) -> list[SpeculationPair]:
    from mathlete.ryanstream.measuring import prompt_ids
    from mathlete.ryanstream.speculation_measuring import run_pair

    pairs = []
    for problem in range(plan.problems):
        with naming_options():
            ids = prompt_ids(loaded.tokenizer, plan.prompt_tokens, problem, 0)
        sampling = replace(plan.sampling, seed=problem)
        off_first = problem % 2 == 0
        pairs.append(run_pair(loaded.engine, ids, sampling, plan.attempts, f"p{problem}", off_first=off_first))
        advance(problem + 1)
    return pairs


def _show(rows: Sequence[Row], as_json: bool) -> None:
    if as_json:
        print_json(rows)
    else:
        print_speculation(rows, Console())
