"""`mathlete bench`: how fast the engine is, and its start, scheduler and speculation. Shows; others measure.

The engine is imported by the commands, since torch comes with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mathlete.cli.bench_loading import load_measured, naming_options, needs_engine, showing_bar, tell_busy
from mathlete.cli.bench_scheduler import scheduler
from mathlete.cli.bench_speculation import speculation
from mathlete.cli.bench_tables import Row, print_engine, print_json, print_starts
from mathlete.cli.run_options import INTERRUPTED_EXIT_CODE, AsJson, Model, Threads
from mathlete.core.errors import InputError
from mathlete.model_store.registry import DEFAULT_MODEL
from mathlete.model_store.store import ModelStore

if TYPE_CHECKING:
    from mathlete.ryanstream.engine_config import EngineConfig
    from mathlete.ryanstream.loading import LoadedEngine
    from mathlete.ryanstream.measuring import Timing, Workload
    from mathlete.ryanstream.roofline import Ceilings, StepWork

app = typer.Typer(
    help="Measure the engine, its start, its scheduler and its speculation on this machine.", no_args_is_help=True
)

Sizes = Annotated[str, typer.Option(metavar="N,...", help="Attempts of each problem, generated at once.")]
Problems = Annotated[int, typer.Option(min=1, help="Problems that arrive together.")]
New = Annotated[int, typer.Option(min=2, help="Tokens each attempt samples; the end of text is ignored.")]
Prompt = Annotated[int, typer.Option(min=64, help="Tokens of each problem's prompt.")]
Precisions = Annotated[
    str,
    typer.Option(
        "--precision", metavar="NAME,...", help="Of the linear layers: w8a8, int4, nf4, bf16, or auto; one run each."
    ),
]
KVCacheType = Annotated[str, typer.Option("--kv-cache-dtype", metavar="bf16|int8", help="Of keys and values.")]
Repeat = Annotated[int, typer.Option(min=1, help="Runs behind each median.")]


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was measured so far of one workload on one engine."""

    facts: Row
    workload: Workload
    work: StepWork
    ceilings: Ceilings
    timings: list[Timing] = field(default_factory=list)


@app.command()
def engine(
    model: Model = DEFAULT_MODEL,
    attempts: Sizes = "1,16,32",
    problems: Problems = 1,
    new: New = 256,
    prompt: Prompt = 200,
    precision: Precisions = "auto",
    kv_cache_dtype: KVCacheType = "bf16",
    repeat: Repeat = 5,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Tokens a second of many attempts at once: sampled, with log-probabilities, the prompt's computation included.

    Beside them the roofline: what reading the weights and multiplying them allow on this machine at best.
    """
    with needs_engine():
        from mathlete.ryanstream.measuring import Workload
    with naming_options():
        workloads = [Workload(size, problems, prompt, new) for size in _sizes(attempts)]
    most = max(workload.num_requests for workload in workloads)
    configs = [_config(name, kv_cache_dtype, threads, most, prompt + new + 16) for name in precision.split(",")]
    console = Console(stderr=True)
    tell_busy(console)
    taken: list[_Taken] = []
    num_tokens = len(configs) * repeat * sum(workload.num_tokens for workload in workloads)
    try:
        for config in configs:
            loaded, facts = load_measured(model, config, console)
            with showing_bar(console, f"measuring {config.precision}", num_tokens // len(configs)) as advance:
                _measure(loaded, facts, config, workloads, repeat, taken, advance)
    except KeyboardInterrupt as error:
        _show_engine(taken, as_json)
        console.print("interrupted: these are the figures so far", highlight=False)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error
    _show_engine(taken, as_json)


@app.command()
def loader(
    model: Model = DEFAULT_MODEL,
    precision: Precisions = "auto",
    repeat: Repeat = 5,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Seconds from a model's path to its first token: converted for the first time, and mapped from the cache.

    Starts follow one another in one process, so what they import, and what the system keeps of files, is warm in all.
    """
    with needs_engine():
        from mathlete.ryanstream.measuring import time_start
    configs = [_config(name, "bf16", threads, 8, 1024) for name in precision.split(",")]
    console = Console(stderr=True)
    tell_busy(console)
    rows: list[Row] = []
    try:
        for config in configs:
            loaded, facts = load_measured(model, config, console)
            del loaded
            store, path = ModelStore(), Path(facts["path"])
            with showing_bar(console, f"starting {config.precision}", repeat + 1) as advance:
                with _empty_cache(store.cache_dir) as cache:
                    rows.append({**facts, "start": "cold", **asdict(time_start(path, cache, config, _quiet))})
                advance(1)
                for done in range(repeat):
                    start = time_start(path, store.cache_dir, config, _quiet)
                    rows.append({**facts, "start": "warm", **asdict(start)})
                    advance(done + 2)
    except KeyboardInterrupt as error:
        _show_starts(rows, as_json)
        console.print("interrupted: these are the figures so far", highlight=False)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error
    _show_starts(rows, as_json)


app.command("scheduler")(scheduler)
app.command("speculation")(speculation)


def _measure(
    loaded: LoadedEngine,
    facts: Row,
    config: EngineConfig,
    workloads: Sequence[Workload],
    repeat: int,
    taken: list[_Taken],
    advance: Callable[[int], None],
) -> None:
    from mathlete.ryanstream.machine import available_cores
    from mathlete.ryanstream.measuring import run_prompts, workload_prompts
    from mathlete.ryanstream.roofline import Ceilings, StepWork, measure_peak_gop_per_s, measure_read_gb_per_s

    runner, before = loaded.engine.runner, 0
    read_gb_per_s = measure_read_gb_per_s(config.num_threads or available_cores())
    for workload in workloads:
        with naming_options():
            prompts = workload_prompts(loaded.tokenizer, workload, repeat)
        run_prompts(loaded, prompts, replace(workload, new_tokens=2), 0)
        # after it the weights are those that "auto" chooses for this many attempts
        work = StepWork.of(runner.model, runner.cache)
        ceilings = Ceilings(read_gb_per_s, measure_peak_gop_per_s(runner.model, runner.kernels))
        now = _Taken({**facts, "weights": work.kind}, workload, work, ceilings)
        taken.append(now)
        for number in range(repeat):
            prompts = workload_prompts(loaded.tokenizer, workload, number)
            timing = run_prompts(loaded, prompts, workload, number, partial(_advance_from, advance, before))
            now.timings.append(timing)
            before += workload.num_tokens


def _advance_from(advance: Callable[[int], None], before: int, done: int, total: int) -> None:
    advance(before + done)


def _show_engine(taken: Sequence[_Taken], as_json: bool) -> None:
    from mathlete.ryanstream.measuring import summarise

    rows = []
    for one in taken:
        if one.timings:
            figures = asdict(summarise(one.workload, one.timings, one.work))
            bound = one.workload.num_requests / one.ceilings.step_s(one.work, one.workload.num_requests)
            rows.append({**one.facts, **figures, "roofline_tokens_per_s": bound, **asdict(one.ceilings)})
    if as_json:
        print_json(rows)
    else:
        print_engine(rows, Console())


def _show_starts(rows: Sequence[Row], as_json: bool) -> None:
    if as_json:
        print_json(rows)
    else:
        print_starts(rows, Console())


def _config(precision: str, kv_cache: str, threads: int | None, most: int, max_model_len: int) -> EngineConfig:
    with needs_engine():
        from mathlete.ryanstream.engine_config import EngineConfig
    with naming_options():
        return EngineConfig(
            precision=precision,  # type: ignore[arg-type]  # EngineConfig checks both
            kv_cache_dtype=kv_cache,  # type: ignore[arg-type]
            max_running=most,
            max_step_tokens=max(256, 2 * most),
            max_model_len=max_model_len,
            num_threads=threads,
        )


def _sizes(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
        raise InputError(
            f"--attempts takes numbers of at least 1 with commas between, as in 1,16,32; not {text[:40]!r}"
        )
    return [int(part) for part in parts]


@contextmanager
def _empty_cache(cache_dir: Path) -> Iterator[Path]:
    """A cache with the compiled kernels and nothing else, on the disk of the real one."""
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix="bench-") as name:
        (Path(name) / "kernels").symlink_to(cache_dir / "kernels", target_is_directory=True)
        yield Path(name)


def _quiet(what: str, done: int, total: int) -> None:
    """No progress: the bar counts starts."""
