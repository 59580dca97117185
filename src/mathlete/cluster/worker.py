"""A worker of a run: an engine, a sandbox and a driver in a thread of its own, told what to do by the head.

Knows nothing of Ray: whoever holds it calls `load`, `begin` and `exchange` from any thread. Its events wait here
until the head says that they are in the store.
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console

from mathlete.cluster.messages import Beginning, Given, Orders, Report, WorkerFacts
from mathlete.core.errors import EngineError, MathleteError
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord
from mathlete.core.trace import TraceEvent
from mathlete.run_config import RunConfig
from mathlete.session.crew import Job, LocalCrew, open_local
from mathlete.triad.driver import RunOutcome
from mathlete.triad.progress import RunProgress

LOADER = "mathlete.session.engine_loading:load_generator"
_IDLE_S = 0.02


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker loads.

    Attributes:
        config: of the run.
        problems: of the run, for what depends on them (formal statements).
        loader: "module:function"; called with `config` and a console, it gives the generator.
    """

    config: RunConfig
    problems: Sequence[Problem]
    loader: str = LOADER


class Worker:
    """One of several that share a run. Its thread loads, drives and closes; the methods are for others."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Begin to load."""
        self._spec = spec
        self._changed = threading.Condition()
        self._crew: LocalCrew | None = None
        self._error: BaseException | None = None
        self._beginning: Beginning | None = None
        self._events: list[TraceEvent] = []  # not known to be kept
        self._num_kept = 0
        self._given: deque[Given] = deque()
        self._num_given = 0
        self._orders = Orders()
        self._tokens_at_orders = 0
        self._wants = False
        self._told_wants = False  # so that it is told at once, but once
        self._progress: RunProgress | None = None
        self._warnings: list[str] = []
        self._outcome: RunOutcome | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def load(self) -> WorkerFacts:
        """Wait until it is ready.

        Raises:
            MathleteError: what it loads cannot be had; the message says why.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._crew is not None or self._error is not None)
            if self._error is not None:
                raise _as_told(self._error)
            assert self._crew is not None
            return WorkerFacts(socket.gethostname(), os.getpid(), dict(self._crew.facts), self._crew.warnings)

    def begin(self, beginning: Beginning) -> None:
        """Start a session. The next one may be started when the last one's driver has ended."""
        with self._changed:
            self._beginning = beginning
            self._outcome, self._orders, self._progress = None, Orders(), None
            self._events, self._num_kept, self._num_given, self._given = [], 0, 0, deque()
            self._changed.notify_all()

    def exchange(self, orders: Orders, wait_s: float) -> Report:
        """Take orders, and say what has happened once there is something new to say, or after `wait_s`."""
        with self._changed:
            self._take(orders)
            num_events = len(self._events)
            self._changed.wait_for(lambda: len(self._events) > num_events or self._is_to_be_told(), wait_s)
            warnings, self._warnings = tuple(self._warnings), []
            self._told_wants = self._wants
            progress = self._progress
            crew = self._crew
            return Report(
                first=self._num_kept,
                events=tuple(self._events),
                num_taken=self._num_given,
                wants=self._wants and not self._given,
                open=() if progress is None else tuple(row for row in progress.problems if row.state == "open"),
                num_tokens=0 if progress is None else progress.num_tokens,
                warnings=warnings,
                guesses=None if crew is None else crew.guesses(),
                outcome=self._outcome,
                failure=None if self._error is None else str(_as_told(self._error)),
            )

    def close(self) -> None:
        """End the driver and release the engine; waits for it."""
        with self._changed:
            self._closing = True
            if self._crew is not None:
                self._crew.request_stop()
            self._changed.notify_all()
        self._thread.join()

    # --- what the driver asks (its thread) ---

    def take(self) -> tuple[Problem, ProblemRecord | None] | None:
        """See `Feed.take`."""
        with self._changed:
            if not self._given:
                if not self._wants:
                    self._wants = True
                    self._changed.notify_all()
                return None
            self._wants = self._told_wants = False
            given = self._given.popleft()
        return given.problem, given.earlier

    def num_to_come(self) -> int:
        """See `Feed.num_to_come`."""
        return self._orders.num_to_come + len(self._given)

    def tokens_left(self) -> int | None:
        """See `Feed.tokens_left`: its part when it was last told of it, less what it has used since."""
        told, progress = self._orders.tokens_left, self._progress
        used = 0 if progress is None else progress.num_tokens - self._tokens_at_orders
        return None if told is None else max(0, told - used)

    def wait_for_more(self) -> bool:
        """See `Feed.wait_for_more`."""
        with self._changed:
            if not self._given:
                self._wants = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._given or self._orders.no_more or self._closing, _IDLE_S)
            return not (self._closing or (self._orders.no_more and not self._given))

    def append(self, event: TraceEvent) -> None:
        """See `EventSink.append`: kept here until the head has it; a crash of this process loses it."""
        self.append_many((event,))

    def append_many(self, events: Iterable[TraceEvent]) -> None:
        """See `append`."""
        with self._changed:
            self._events += events
            self._changed.notify_all()

    # --- its thread ---

    def _run(self) -> None:
        try:
            crew = self._open()
            try:
                with self._changed:
                    self._crew = crew
                    self._changed.notify_all()
                while (beginning := self._next_beginning()) is not None:
                    outcome = self._drive(crew, beginning)
                    with self._changed:
                        self._warnings += crew.take_warnings()
                        self._outcome = outcome
                        self._changed.notify_all()
            finally:
                crew.close()
        except BaseException as error:  # the head is told; nobody else would hear of it in this thread
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _open(self) -> LocalCrew:
        module, _, name = self._spec.loader.partition(":")
        load = getattr(importlib.import_module(module), name)
        return open_local(self._spec.config, self._spec.problems, Console(stderr=True), load)

    def _next_beginning(self) -> Beginning | None:
        with self._changed:
            self._changed.wait_for(lambda: self._beginning is not None or self._closing)
            beginning, self._beginning = self._beginning, None
            return None if self._closing else beginning

    def _drive(self, crew: LocalCrew, beginning: Beginning) -> RunOutcome:
        job = Job(beginning.config, (), beginning.budget_s, {}, beginning.offset_s, self, self._note)
        return crew.work(job, feed=self)

    def _note(self, progress: RunProgress) -> None:
        self._progress = progress

    # --- under the lock ---

    def _take(self, orders: Orders) -> None:
        num_kept = max(self._num_kept, orders.num_kept)
        del self._events[: num_kept - self._num_kept]
        self._num_kept = num_kept
        for given in orders.given:
            if given.number > self._num_given:
                self._num_given = given.number
                self._given.append(given)
        self._orders = orders
        self._tokens_at_orders = 0 if self._progress is None else self._progress.num_tokens
        if orders.stop and self._crew is not None:
            self._crew.request_stop()
        self._changed.notify_all()

    def _is_to_be_told(self) -> bool:
        return self._error is not None or self._outcome is not None or (self._wants and not self._told_wants)


def _as_told(error: BaseException) -> MathleteError:
    """As one of our errors, with its notes: it travels to the head."""
    if isinstance(error, MathleteError):
        return error
    told = EngineError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
