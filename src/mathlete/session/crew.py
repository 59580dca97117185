"""Who works on the problems of a run: this process with its engine and its sandbox, or others elsewhere.

A crew is opened before the clock of the run begins. It knows how attempts are made; nothing of folders and reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console

from mathlete.compose import (
    LoadedGenerator,
    add_step_checks,
    build_driver,
    build_prover,
    build_sandbox,
    isolation_warnings,
    proof_warnings,
)
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeRunner, ProofChecker, TraceSink
from mathlete.core.record import ProblemRecord
from mathlete.core.trace import TraceEvent
from mathlete.run_config import RunConfig
from mathlete.triad.driver import Driver, Feed, RunOutcome
from mathlete.triad.progress import RunProgress

Load = Callable[[RunConfig, Console], LoadedGenerator]
"""Where a session gets its generator from; it closes it at its end."""


class EventSink(TraceSink, Protocol):
    """A trace that keeps several events at once, all or none: a `RunStore`."""

    def append_many(self, events: Iterable[TraceEvent]) -> None:
        """Keep them. Returns when they are safe against a crash of this process."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One session's work.

    Attributes:
        config: of the run.
        problems: in order.
        budget_s: seconds from now.
        earlier: what earlier sessions left, by problem id.
        offset_s: where their clock stood.
        sink: where everything that happens is kept before it counts.
        show: told how far it is, in this thread; quick.
    """

    config: RunConfig
    problems: Sequence[Problem]
    budget_s: float
    earlier: Mapping[str, ProblemRecord]
    offset_s: float
    sink: EventSink
    show: Callable[[RunProgress], None]


class Crew(Protocol):
    """Those who work on one run."""

    @property
    def facts(self) -> Mapping[str, object]:
        """For the trace: `engine`, `tokens_per_s`, `isolation`, and what else is to be known of it."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before it begins."""
        ...

    def work(self, job: Job) -> RunOutcome:
        """Work until every problem has a selection in the trace, or shortly after the budget."""
        ...

    def request_stop(self) -> None:
        """Ask the work to end soon, with the best answers that are there. May be called from a signal handler."""
        ...

    def take_warnings(self) -> tuple[str, ...]:
        """What a person should know of what happened since the last call."""
        ...

    def guesses(self) -> Mapping[str, float] | None:
        """What became of tokens guessed ahead; None where none were."""
        ...

    def close(self) -> None:
        """Release everything. Safe to call twice."""
        ...


OpenCrew = Callable[[RunConfig, Sequence[Problem], Console], Crew]
"""How a session gets its crew. Raises `MathleteError`; nothing is left open then."""


class LocalCrew:
    """This process: one engine, one sandbox, one driver."""

    def __init__(
        self,
        loaded: LoadedGenerator,
        runner: CodeRunner,
        isolation: Sequence[str],
        prover: ProofChecker | None,
        config: RunConfig,
        problems: Sequence[Problem],
        cleanup: ExitStack,
    ) -> None:
        """Take over what is open; `cleanup` closes it. See `open_local`."""
        self._loaded = loaded
        self._runner = runner
        self._prover = prover
        self._cleanup = cleanup
        self._driver: Driver | None = None
        self._stop_requested = False
        self.facts: Mapping[str, object] = {
            "isolation": list(isolation), "engine": loaded.description, "tokens_per_s": loaded.tokens_per_s
        }  # fmt: skip
        self.warnings = (*loaded.warnings, *isolation_warnings(isolation), *proof_warnings(config, problems))

    def work(self, job: Job, feed: Feed | None = None) -> RunOutcome:
        """Drive. With a `feed`, problems come from it besides those of the job."""
        driver = build_driver(job.config, self._loaded, self._runner, job.sink, job.show, self._prover)
        self._driver = driver
        if self._stop_requested:
            driver.request_stop()
        return driver.run(job.problems, job.budget_s, job.earlier, job.offset_s, feed=feed)

    def request_stop(self) -> None:
        """End soon; also work that has not begun."""
        self._stop_requested = True
        if self._driver is not None:
            self._driver.request_stop()

    def take_warnings(self) -> tuple[str, ...]:
        """The engine's."""
        return self._loaded.take_warnings()

    def guesses(self) -> Mapping[str, float] | None:
        """The engine's."""
        return self._loaded.guesses()

    def close(self) -> None:
        """Engine, prover and sandbox, in this order."""
        self._cleanup.close()


def open_local(config: RunConfig, problems: Sequence[Problem], console: Console, load: Load) -> LocalCrew:
    """The sandbox gets ready while the model is loaded; what cannot work is refused before that. See `OpenCrew`."""
    with ExitStack() as cleanup:
        sandbox = cleanup.enter_context(build_sandbox())
        prover = build_prover(config, problems)
        if prover is not None:
            cleanup.callback(prover.close)
        loaded = add_step_checks(config, load(config, console))
        cleanup.callback(loaded.close)
        isolation = sandbox.describe_isolation()
        return LocalCrew(loaded, sandbox, isolation, prover, config, problems, cleanup.pop_all())
