"""Where problems are handed in: a queue, some worked on at the same time, each a run of its own in the server's folder.

Knows threads and runs. Does not know HTTP, nor who asks.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from mathlete.compose import LoadedGenerator
from mathlete.core.errors import EngineError, MathleteError
from mathlete.core.generation import Usage
from mathlete.core.problem import Problem
from mathlete.lab.tasks import Task
from mathlete.run_config import RunConfig
from mathlete.serving.chat_answer import Answered, Tokens, how_sure
from mathlete.serving.chat_request import Asked, Refusal
from mathlete.serving.telling import Glimpse
from mathlete.session.interrupts import Interrupts
from mathlete.session.run_session import SessionResult, start_run
from mathlete.triad.policies import TRIAD_CHECKS, TRIAD_SECOND_ROUND
from mathlete.triad.progress import RunProgress

RETRY_AFTER_S = 10
_ID = "problem"


@dataclass(frozen=True, slots=True)
class Lent:
    """The engine, for one problem.

    Attributes:
        loaded: closed by the problem's run; the engine goes on.
        usage: tokens of the requests that have ended.
    """

    loaded: LoadedGenerator
    usage: Callable[[], Usage]


class Engine(Protocol):
    """The engine that all problems share."""

    @property
    def failure(self) -> str | None:
        """Why it works no longer; None while it does."""
        ...

    def lend(self) -> Lent:
        """It, for one problem."""
        ...


class Work:
    """One problem that was handed in.

    Attributes:
        id: of the request.
        done: the answer, once it is there; cancelled when it was stopped before it began.
    """

    def __init__(self, request_id: str, statement: str, config: RunConfig, num_before: Callable[[Work], int]) -> None:
        """Wait; `num_before` tells how many must end before this one begins."""
        self.id = request_id
        self.done: Future[Answered] = Future()
        self.statement = statement
        self.config = config
        self.interrupts = Interrupts()
        self._num_before = num_before
        self._progress: RunProgress | None = None

    def watch(self, progress: RunProgress) -> None:
        """How far it has come, from the thread that works on it."""
        self._progress = progress

    def glimpse(self) -> Glimpse:
        """How far it has come; for any thread."""
        progress = self._progress
        if progress is None:
            return Glimpse(self._num_before(self) or None)
        return Glimpse(None, progress.problems[0], progress.at_s, progress.remaining_s)


class Desk:
    """Takes problems from any thread, and works on some of them at the same time."""

    def __init__(
        self,
        base: RunConfig,
        engine: Engine,
        runs_dir: Path,
        *,
        num_at_once: int,
        num_waiting: int,
        tell: Callable[[str], None],
    ) -> None:
        """Work on nothing yet.

        Args:
            base: of every run; a request changes some of it.
            engine: shared by all.
            runs_dir: where runs are kept.
            num_at_once: problems worked on at the same time.
            num_waiting: problems that may wait besides.
            tell: hears a line about each problem that begins or ends.
        """
        self._base = base
        self._engine = engine
        self._runs_dir = runs_dir
        self._num_at_once = num_at_once
        self._num_waiting = num_waiting
        self._tell = tell
        self._lock = threading.Lock()
        self._waiting: list[Work] = []
        self._running: list[Work] = []
        self._closing = False
        self._threads = ThreadPoolExecutor(num_at_once, thread_name_prefix="mathlete-problem")

    @property
    def num_running(self) -> int:
        """Problems that are worked on."""
        return len(self._running)

    @property
    def num_in_queue(self) -> int:
        """Problems that wait."""
        return len(self._waiting)

    def trouble(self) -> str | None:
        """Why nothing can be handed in any more; None while it can."""
        if self._closing:
            return "the server is ending"
        return None if self._engine.failure is None else f"the engine has failed: {self._engine.failure}"

    def hand_in(self, request_id: str, asked: Asked) -> Work:
        """Queue a problem.

        Raises:
            Refusal: the options do not go together (400), too many wait (429), or there is `trouble` (503).
        """
        try:
            config = config_of(self._base, asked)
        except ValueError as error:
            raise Refusal(400, str(error)) from error
        with self._lock:
            if (trouble := self.trouble()) is not None:
                raise Refusal(503, trouble, code="unavailable")
            if len(self._waiting) >= self._num_waiting + max(0, self._num_at_once - len(self._running)):
                words = f"{len(self._running)} problems are worked on and {len(self._waiting)} wait: ask again later"
                raise Refusal(429, words, code="queue_full")
            work = Work(request_id, asked.statement, config, self._num_before)
            self._waiting.append(work)
            self._threads.submit(self._go_on)
        return work

    def stop(self, work: Work) -> None:
        """Nobody waits for it any more. One that is worked on ends in order, with what there is."""
        with self._lock:
            is_waiting = work in self._waiting
            if is_waiting:
                self._waiting.remove(work)
        if is_waiting:
            work.done.cancel()
            self._tell(f"{work.id}: given up before it began")
        else:
            work.interrupts.request()

    def end(self) -> None:
        """Take nothing more in, forget what waits, and end what is worked on, in order. Waits for nothing."""
        with self._lock:
            self._closing = True
            waiting, self._waiting = self._waiting, []
            running = list(self._running)
        for work in waiting:
            work.done.set_exception(EngineError("the server is ending"))
        for work in running:
            work.interrupts.request()

    def close(self) -> None:
        """`end`, and wait until all is over. Safe to call twice."""
        self.end()
        self._threads.shutdown(wait=True)

    def _num_before(self, work: Work) -> int:
        with self._lock:
            if work not in self._waiting:
                return 0
            return max(0, self._waiting.index(work) + 1 - (self._num_at_once - len(self._running)))

    def _go_on(self) -> None:
        """Work on the first that waits. There is a call for each; those for problems given up find nothing."""
        with self._lock:
            if not self._waiting:
                return
            work = self._waiting.pop(0)
            self._running.append(work)
        begun_s = time.monotonic()
        try:
            answered = self._work(work)
        except BaseException as error:
            self._tell(f"{work.id}: failed: {error}")
            work.done.set_exception(error)
        else:
            seconds = time.monotonic() - begun_s
            words = f"{answered.selection.answer} ({how_sure(answered)}) after {seconds:.0f} s, {answered.run_id}"
            self._tell(f"{work.id}: {words}")
            work.done.set_result(answered)
        finally:
            with self._lock:
                self._running.remove(work)

    def _work(self, work: Work) -> Answered:
        self._tell(f"{work.id}: begun ({work.config.budget_s:g} s, {work.config.attempts} attempts at most)")
        lent: list[Lent] = []

        def load(config: RunConfig, console: Console) -> LoadedGenerator:
            lent.append(self._engine.lend())
            return lent[0].loaded

        problem = Problem(id=_ID, statement=work.statement)
        quiet = Console(file=io.StringIO(), quiet=True)
        result = start_run(
            work.config, [Task(problem, None, _ID)], self._runs_dir, quiet, load, work.interrupts, work.watch
        )
        return _answered(result, lent[0].usage())


def config_of(base: RunConfig, asked: Asked) -> RunConfig:
    """How one problem is worked on. Raises `ValueError` where options do not go together."""
    changes: dict[str, Any] = dict(asked.options)
    policy = changes.get("policy", base.policy)
    if policy != base.policy:
        is_triad = policy == "triad"
        changes["checks"] = TRIAD_CHECKS if is_triad else ()
        changes["second_round"] = TRIAD_SECOND_ROUND if is_triad else 0
        changes |= {"cured": (), "temperature_schedule": "fixed", "token_budget": None}
    if asked.token_limit is not None:
        if policy == "triad":
            changes["token_budget"] = asked.token_limit
            changes["max_tokens"] = min(base.max_tokens, asked.token_limit)
        else:  # nobody plans with tokens there: each attempt gets its part
            share = asked.token_limit // changes.get("attempts", base.attempts)
            changes["max_tokens"] = min(base.max_tokens, max(1, share))
    return replace(base, **changes)


def _answered(result: SessionResult, spent: Usage) -> Answered:
    record = result.record.problems[_ID]
    if record.selection is None:
        raise MathleteError(f"the run {result.folder.id} ended without an answer")
    tokens = Tokens(spent.prompt, spent.cached, spent.output)
    return Answered(record, record.selection, result.folder.id, tokens, result.interrupted)
