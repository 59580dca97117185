"""Wires concrete classes together. The only module, with the command line, that knows them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.contest.policy import FixedPolicy, VotePolicy
from mathlete.core.code import CodeLimits
from mathlete.core.policy import Policy
from mathlete.core.protocols import CodeRunner, Generator, TraceSink
from mathlete.generators.ryanstream import RyanStreamGenerator
from mathlete.ryanstream.loading import EngineConfig, load_engine
from mathlete.sandbox.pool import SandboxPool
from mathlete.triad.code_attempt import AttemptConfig
from mathlete.triad.driver import Driver, DriverConfig
from mathlete.triad.progress import RunProgress


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What a run was asked to do; recorded in its trace, so that it can be resumed as it was.

    Attributes:
        command: "solve" (a problem ends when its vote is settled) or "evaluate" (every attempt is made).
        source: the problem file, or None when the problem was given as text.
        model: name or path.
        budget_s: seconds for solving, from the moment the model is ready.
        attempts: attempts a problem at most.
        seed: all noise is derived from it.
        temperature: of sampling.
        top_p: of sampling.
        min_p: of sampling.
        max_tokens: sampled tokens of an attempt.
        max_in_flight: attempts generating at once.
        precision: of the linear layers.
        code_timeout_s: seconds a program may run.
    """

    command: str
    source: str | None
    model: str
    budget_s: float
    attempts: int = 8
    seed: int = 0
    temperature: float = 0.8
    top_p: float = 0.95
    min_p: float = 0.0
    max_tokens: int = 1024
    max_in_flight: int = 32
    precision: str = "w8a8"
    code_timeout_s: float = 10.0


def build_generator(
    config: RunConfig, model_path: Path, cache_dir: Path, progress: Callable[[str, int, int], None]
) -> RyanStreamGenerator:
    """Load the model into the embedded engine. Raises `ModelError`, `StorageError` or `EngineError`."""
    engine = EngineConfig(precision=config.precision, max_running=config.max_in_flight)  # type: ignore[arg-type]
    return RyanStreamGenerator(load_engine(model_path, cache_dir, engine, progress))


def build_sandbox() -> SandboxPool:
    """Where programs run."""
    return SandboxPool(num_workers=2)


def build_policy(config: RunConfig) -> Policy:
    """The policy of the command."""
    if config.command == "evaluate":
        return FixedPolicy(attempts=config.attempts, temperature=config.temperature)
    return VotePolicy(attempts=config.attempts, temperature=config.temperature)


def build_driver(
    config: RunConfig,
    generator: Generator,
    runner: CodeRunner,
    sink: TraceSink,
    on_progress: Callable[[RunProgress], None],
) -> Driver:
    """The loop over one run."""
    limits = DriverConfig(
        attempts=config.attempts,
        max_in_flight=config.max_in_flight,
        run_seed=config.seed,
        attempt=AttemptConfig(max_tokens=config.max_tokens, top_p=config.top_p, min_p=config.min_p),
        code=CodeLimits(wall_s=config.code_timeout_s),
    )
    return Driver(generator, runner, sink, build_policy(config), limits, on_progress=on_progress)


def decode_config(data: dict[str, Any]) -> RunConfig:
    """The configuration that a trace recorded. Extra entries (version, isolation, ...) are for people."""
    return RunConfig(**{name: data[name] for name in RunConfig.__dataclass_fields__ if name in data})
