"""The engines of a run, loaded with progress shown: in this process, or in processes of their own.

Knows where models come from and which engine a specification means. Does not know what is done with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from mathlete.compose import (
    LoadedGenerator,
    build_engine,
    build_generator,
    embedded_config,
    join_engines,
    load_in_child,
)
from mathlete.core.errors import InputError, MathleteError
from mathlete.model_store.progress import Progress, Report
from mathlete.model_store.store import ModelStore
from mathlete.run_config import EngineSpec, RunConfig
from mathlete.session.fetching import showing_progress


def load_generator(config: RunConfig, console: Console) -> LoadedGenerator:
    """What writes: the engines that a recipe names, or the embedded one.

    Raises:
        MathleteError: an engine cannot be had; those that were ready are closed again.
    """
    if not config.engines:
        with showing_progress(console) as report:
            return load_embedded(config, report)
    loaded: dict[str, LoadedGenerator] = {}
    try:
        for spec in config.engines:
            try:
                with showing_progress(console) as report:
                    loaded[spec.name] = load_engine(spec, config, report)
            except MathleteError as error:
                error.add_note(f"This is the engine {spec.name!r} of the recipe ({spec.type}, {spec.model}).")
                raise
    except BaseException:
        for one in loaded.values():
            one.close()
        raise
    return join_engines(config.engines, loaded)


def load_engine(spec: EngineSpec, config: RunConfig, report: Report) -> LoadedGenerator:
    """One engine, in a process of its own where its specification says so, or where vLLM has several of them.

    Raises:
        MathleteError: it cannot be had.
    """
    shares = spec.type == "vllm" and sum(one.type == "vllm" for one in config.engines) > 1  # a process takes one
    if spec.own_process or shares:

        def told(what: str, done: int, total: int) -> None:
            report(Progress(what, done, total))

        return load_in_child(f"{__name__}:load_engine_here", (spec, config), f"the engine {spec.name!r}", told)
    if spec.type == "ryanstream":
        return load_embedded(embedded_config(spec, config), report)
    return build_engine(spec, config)


def load_engine_here(spec: EngineSpec, config: RunConfig, told: Callable[[str, int, int], None]) -> LoadedGenerator:
    """What an engine's own process calls: the engine, in that process."""

    def report(progress: Progress) -> None:
        told(progress.what, progress.num_bytes, progress.total_bytes)

    if spec.type == "ryanstream":
        return load_embedded(embedded_config(spec, config), report)
    return build_engine(spec, config)


def load_embedded(config: RunConfig, report: Report) -> LoadedGenerator:
    """The embedded engine's model, fetched and converted first if need be."""
    store = ModelStore()
    model = store.ensure(config.model, report)
    draft_path = find_draft_model(config.speculative_method, config.draft_model, store, report)

    def converting(what: str, done: int, total: int) -> None:
        size = model.path.stat().st_size
        report(Progress(what, size * done // max(1, total), size))

    return build_generator(config, model.path, store.cache_dir, converting, draft_path)


def find_draft_model(method: str, name_or_path: str | None, store: ModelStore, report: Report) -> Path | None:
    """Where that which guesses tokens is, fetched first if need be: only a draft model has a name.

    Raises:
        InputError: no such model, file or folder.
        ModelError: the file is truncated, or no source has it.
        StorageError: the disk is full or not writable.
    """
    if name_or_path is None:
        return None
    try:
        if method == "draft":
            return store.ensure(name_or_path, report).path
        path = Path(name_or_path).expanduser()
        if not os.path.exists(path):
            raise InputError(f"there is no file or folder {name_or_path}, in which {method} could be trained")
        return path
    except MathleteError as error:
        error.add_note("This is what --draft-model names.")
        raise
