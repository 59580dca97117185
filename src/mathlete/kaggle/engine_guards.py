"""What a contest asks of its engines besides solving: that they may die, and that a rehearsal can have them fail.

Knows configurations and generators; does not know what an engine is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

from rich.console import Console

from mathlete.compose import LoadedGenerator
from mathlete.core.generation import GenerateRequest, GeneratorEvent, SamplingParams
from mathlete.core.protocols import Generator
from mathlete.run_config import EngineSpec, RunConfig
from mathlete.session.crew import Load

_OUTSIDE = frozenset({"openai_server"})  # types of engines that run elsewhere already
INJECTED = "the engine failed, as the rehearsal asked for"


def in_own_processes(config: RunConfig) -> RunConfig:
    """The configuration with each engine in a process of its own: one that dies is started again and ends nothing.

    The embedded engine that a configuration describes by itself becomes one by name.
    """
    if not config.engines:
        return replace(config, engines=(EngineSpec("embedded", "ryanstream", config.model, own_process=True),))
    engines = tuple(
        engine if engine.type in _OUTSIDE else replace(engine, own_process=True) for engine in config.engines
    )
    return replace(config, engines=engines)


class FailingOnDemand:
    """A generator that raises once for each time that `fail` was set; else the one it wraps."""

    def __init__(self, generator: Generator, fail: threading.Event) -> None:
        """Pass everything on to `generator`."""
        self._generator = generator
        self._fail = fail

    def submit(self, request: GenerateRequest) -> None:
        """Passed on."""
        self._generator.submit(request)

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """Raises `RuntimeError` where a failure is asked for."""
        if self._fail.is_set():
            self._fail.clear()
            raise RuntimeError(INJECTED)
        return self._generator.events(timeout_s)

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """Passed on."""
        self._generator.abort(request_id=request_id, group=group)

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Passed on."""
        self._generator.rewind(request_id, num_tokens, sampling)

    def close(self) -> None:
        """Passed on."""
        self._generator.close()


def failing_on_demand(load: Load, fail: threading.Event) -> Load:
    """Loads as `load` does; the generator fails whenever `fail` is set."""

    def loading(config: RunConfig, console: Console) -> LoadedGenerator:
        loaded = load(config, console)
        return replace(loaded, generator=FailingOnDemand(loaded.generator, fail))

    return loading
