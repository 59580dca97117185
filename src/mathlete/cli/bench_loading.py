"""What the measuring commands share: loading a model with progress, bars, and errors told by the options' names.

The engine is imported when a model is loaded, since torch comes with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mathlete.cli.bench_tables import Row
from mathlete.compose import engine_is_missing
from mathlete.core.errors import InputError
from mathlete.model_store.progress import Progress as Step
from mathlete.model_store.store import ModelStore
from mathlete.session.fetching import showing_progress

if TYPE_CHECKING:
    from mathlete.ryanstream.engine_config import EngineConfig
    from mathlete.ryanstream.loading import LoadedEngine

# Of one core, over the last minute: above it, other work takes a share that would be blamed on the engine.
_BUSY = 0.3


def load_measured(model: str, config: EngineConfig, console: Console) -> tuple[LoadedEngine, Row]:
    """The engine, fetched and converted first if need be, and what is to be said of it in every row."""
    from mathlete.ryanstream.loading import load_engine
    from mathlete.ryanstream.machine import available_cores

    store = ModelStore()
    with showing_progress(console) as report:
        path = store.ensure(model, report).path

        def converting(what: str, done: int, total: int) -> None:
            size = path.stat().st_size
            report(Step(what, size * done // max(1, total), size))

        loaded = load_engine(path, store.cache_dir, config, converting)
    facts = {
        "model": model,
        "path": str(path),
        "precision": config.precision,
        "kv_cache": config.kv_cache_dtype,
        "kernels": loaded.kernels,
        "threads": config.num_threads or available_cores(),
    }
    return loaded, facts


@contextmanager
def naming_options() -> Iterator[None]:
    """A `ValueError` of a configuration, told by the name of the option."""
    names = {"prompt_tokens": "prompt", "new_tokens": "new"}
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise InputError(f"--{names.get(name, name).replace('_', '-')} {rest}") from error


@contextmanager
def needs_engine() -> Iterator[None]:
    """A missing package of the engine, told with what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise engine_is_missing(error) from error


@contextmanager
def showing_bar(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Takes how much is done; draws a bar with the time left where there is a terminal."""
    columns = (TextColumn("  {task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=total)
        yield lambda done: bars.update(task, completed=done)


def tell_busy(console: Console) -> None:
    """Say so when other programs take a share of this machine that would be blamed on the engine."""
    load = os.getloadavg()[0]
    if load > _BUSY:
        console.print(
            f"other programs use this machine (load {load:.1f}): the figures will be lower than it can give",
            highlight=False,
            soft_wrap=True,
        )
