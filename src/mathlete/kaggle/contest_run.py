"""One run of a contest: problems one at a time, one store, one engine, one sandbox, one clock.

Knows how a problem is worked on as a session of the run, and how a part that fails is replaced. Does not know who asks:
`entrant` does. Everything here belongs to one thread, but for `Standing`, which others may read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from mathlete import __version__
from mathlete.cic.registry import make_selector
from mathlete.compose import LoadedGenerator, add_step_checks, build_driver, build_sandbox, isolation_warnings
from mathlete.contest.clock import share_s
from mathlete.core.errors import InputError, MathleteError
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeRunner
from mathlete.core.record import ProblemRecord, RunRecord, fold_run
from mathlete.core.trace import EventKind, TraceEvent, encode, encode_problem
from mathlete.kaggle.contest_clock import ContestClock, num_upcoming
from mathlete.kaggle.contest_sink import ContestSink, Standing, clamped
from mathlete.lab.export import write_attempts, write_submission
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_reading import fold_stored
from mathlete.lab.run_store import RunStore
from mathlete.report.page import write_report
from mathlete.run_config import RunConfig, decode_config
from mathlete.session.crew import Load
from mathlete.session.engine_loading import load_generator
from mathlete.triad.driver import BUDGET, COMPLETE, INTERRUPTED, Driver, RunOutcome, is_cut_short

COMMAND = "contest"
ENGINE_FAILED = "the engine failed"

_MAX_TRIALS = 8  # sessions of one problem that may fail before it is given up
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0  # before parts that failed are replaced
_SILENCE_S = 30.0  # without a token, after which an engine counts as lost
_MIN_TOKENS = 1000  # before that the run's own speed says little


class Sandbox(CodeRunner, Protocol):
    """Runs programs, and tells how they are fenced in."""

    def describe_isolation(self) -> tuple[str, ...]:
        """Names of the layers in force. Raises `MathleteError` when programs cannot be run."""
        ...


@dataclass(frozen=True, slots=True)
class Contest:
    """What a contest run is asked to do.

    Attributes:
        config: of the run; its `budget_s` is the whole contest's, loading and pauses included.
        num_problems: that are announced.
        runs_dir: where runs are kept.
        run_id: name of the run; None for one that begins with the time. One that is there is gone on with, as it was
            begun.
        load: gives the generator.
        make_sandbox: gives what runs programs.
    """

    config: RunConfig
    num_problems: int = 50
    runs_dir: Path = Path("runs")
    run_id: str | None = None
    load: Load = load_generator
    make_sandbox: Callable[[], Sandbox] = build_sandbox


class ContestRun:
    """Works on one problem after the other. Made, used and closed by one thread; `request_stop` may be called by any.

    Attributes:
        folder: of the run.
        record: what has happened, texts of earlier problems left out.
    """

    def __init__(self, contest: Contest, standing: Standing, console: Console) -> None:
        """Begin, or go on with, the run; the engine is not loaded yet.

        Raises:
            InputError: another process works on it, or it is no contest.
            StorageError: its folder or store cannot be made or read.
        """
        self._load = contest.load
        self._make_sandbox = contest.make_sandbox
        self._console = console
        self._standing = standing
        self._stop = threading.Event()
        self._driver: Driver | None = None
        self._loaded: LoadedGenerator | None = None
        self._sandbox: Sandbox | None = None
        self._seen_warnings: set[str] = set()
        self._num_tokens, self._working_s, self._num_failures = 0.0, 0.0, 0
        known = None if contest.run_id is None else RunFolder(contest.runs_dir / contest.run_id)
        if known is not None and known.store_path.is_file():
            self._resume(known)
        else:
            self._begin(contest)

    def _begin(self, contest: Contest) -> None:
        self.config, self.num_problems = replace(contest.config, command=COMMAND), contest.num_problems
        self.folder = RunFolder.create(contest.runs_dir, contest.run_id)
        self._store = RunStore.create(self.folder.store_path)
        self._sink = ContestSink(self._store, self._standing, self._tell)
        self.record = RunRecord(config={}, problems={})
        self.clock = ContestClock(self.config.budget_s, time.monotonic())
        told = {**asdict(self.config), "version": __version__, "num_problems": self.num_problems}
        self._append("run_started", {"config": told, "problems": []})
        self._take_in()

    def _resume(self, folder: RunFolder) -> None:
        self.folder = folder
        self._store = RunStore.open(folder.store_path)
        try:
            self.record = fold_stored(self._store, self._store.events())
            if self.record.config.get("command") != COMMAND:
                raise InputError(f"{folder.path} is no run of a contest; choose another name for the new one")
            self.config = decode_config(dict(self.record.config))
            self.num_problems = int(self.record.config["num_problems"])
        except BaseException:
            self._store.close()
            raise
        self._sink = ContestSink(self._store, self._standing, self._tell)
        self.clock = ContestClock.begun_at(
            self.record.started_wall_time, self.config.budget_s, at_least_s=self.record.elapsed_s
        )
        self._append("run_resumed", {"config": {}})
        self.warn(f"the contest was taken up again after {self.record.elapsed_s:.0f} s; its clock has gone on")
        self._take_in()

    # --- parts ---

    def load(self) -> None:
        """Have engine and sandbox ready. Raises `MathleteError` of whichever cannot be had."""
        is_new = self._sandbox is None
        if self._sandbox is None:
            self._sandbox = self._make_sandbox()  # gets ready while the engine is loaded
        if self._loaded is None:
            self._loaded = add_step_checks(self.config, self._load(self.config, self._console))
            for message in self._loaded.warnings:
                self.warn(message)
        if is_new:
            self._check_sandbox(self._sandbox)

    def _check_sandbox(self, sandbox: Sandbox) -> None:
        """Tell what it lets programs do; one whose trial program is killed is replaced, once."""
        try:
            isolation = sandbox.describe_isolation()
        except MathleteError as error:
            self.warn(f"the sandbox is started again: {error}")
            sandbox.close()
            self._sandbox = self._make_sandbox()
            isolation = self._sandbox.describe_isolation()
        for message in isolation_warnings(isolation):
            self.warn(message)

    def _drop_parts(self) -> None:
        """Close engine and sandbox, whichever of them failed: neither may remember what was in flight."""
        self._tell_of_engine()
        for part in (self._loaded, self._sandbox):
            try:
                if part is not None:
                    part.close()
            except Exception as error:  # it is broken; what matters is that a new one takes its place
                self.warn(f"a part that failed did not close: {error!r:.200}")
        self._loaded = self._sandbox = None

    # --- problems ---

    def solve(self, problem: Problem) -> int:
        """Work on a problem until it has an answer that is recorded; at most its share of the clock.

        Never raises for what engine, sandbox or policy do: a part that fails is replaced while the share lasts, and
        after that what there is stands.
        """
        upcoming, has_retried = self.num_upcoming(problem.id), False
        share = share_s(self.clock.remaining_s(), weight=1.0, total_weight=1.0 + upcoming, num_parallel=1)
        give_up_s, pause_s = self.clock.elapsed_s() + share, _FIRST_PAUSE_S
        for _ in range(_MAX_TRIALS):
            try:
                if self._session(problem, upcoming) or has_retried:
                    break
                has_retried = True  # once: it may be the statement that no engine takes
                self.warn(f"{problem.id}: not one token came; the engine is loaded again", problem.id)
                self._drop_parts()
            except Exception as error:  # whatever it was, the gateway gets an answer
                self._driver = None
                self._num_failures += 1
                what = error if isinstance(error, MathleteError) else repr(error)
                self.warn(f"{problem.id}: failed and is started again: {what!s:.500}", problem.id)
                self._drop_parts()
                self._take_in()
            if self._stop.wait(min(pause_s, give_up_s - self.clock.elapsed_s())) or self._is_past(give_up_s):
                break
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)
        return self._answer_to(problem)

    def num_upcoming(self, problem_id: str) -> int:
        """Problems that are expected after one that is in hand."""
        return num_upcoming(self.num_problems, len({*self.record.problems, problem_id}))

    def answer_without_solving(self, problem: Problem, why: str) -> int:
        """Record the fallback answer for what cannot be worked on."""
        self._announce(problem, self.num_upcoming(problem.id))
        self.warn(f"{problem.id}: {why}", problem.id)
        self._take_in()
        return self._answer_to(problem, why)

    def request_stop(self) -> None:
        """Have the problem in hand end soon, with what there is. From any thread."""
        self._stop.set()
        if (driver := self._driver) is not None:
            driver.request_stop()

    def hurry(self) -> None:
        """Have the problem in hand end soon; later ones are worked on as ever. From any thread."""
        if (driver := self._driver) is not None:
            driver.request_stop()

    def _session(self, problem: Problem, upcoming: int) -> bool:
        """One session of the run that works on one problem; whether the engine showed signs of life."""
        self.load()
        assert self._loaded is not None and self._sandbox is not None
        loaded = replace(self._loaded, tokens_per_s=self._speed(self._loaded.tokens_per_s))
        told = {"tokens_per_s": loaded.tokens_per_s, "engine": loaded.description}
        self._announce(problem, upcoming, told)
        driver = self._driver = build_driver(self.config, loaded, self._sandbox, self._sink, lambda progress: None)
        if self._stop.is_set():
            driver.request_stop()
        outcome = driver.run(
            [problem],
            self.clock.remaining_s(),
            self._reopened(problem.id),
            self.clock.elapsed_s(),
            num_upcoming=upcoming,
        )
        self._driver = None
        self._note_speed(outcome)
        self._tell_of_engine(problem.id)
        self._take_in()
        return outcome.stats["num_tokens"] > 0 or not self._is_suspicious(problem.id, outcome)

    def _is_suspicious(self, problem_id: str, outcome: RunOutcome) -> bool:
        """Whether a session without a token says that the engine is lost: it had time, or lost what it was given."""
        attempts = [attempt for attempt in self.record.problems[problem_id].attempts if not attempt.is_check]
        is_lost = any(attempt.failure == "generator_error" for attempt in attempts)
        return bool(attempts) and (is_lost or outcome.stats["seconds"] >= _SILENCE_S)

    def _tell_of_engine(self, problem_id: str | None = None) -> None:
        for message in () if self._loaded is None else self._loaded.take_warnings():
            self.warn(message, problem_id)

    def _reopened(self, problem_id: str) -> dict[str, ProblemRecord]:
        """What is recorded, with a problem that may have ended taken up again."""
        return {
            key: replace(item, selection=None, stop_reason=None) if key == problem_id else item
            for key, item in self.record.problems.items()
        }

    def _announce(self, problem: Problem, upcoming: int, config: dict[str, Any] | None = None) -> None:
        told = {"config": config or {}, "problems": [encode_problem(problem)], "num_upcoming": upcoming}
        self._append("run_resumed", told)
        self._take_in()

    def _answer_to(self, problem: Problem, why: str = ENGINE_FAILED) -> int:
        """The recorded answer; what the attempts that there are come to where nothing is recorded yet."""
        if problem.id not in self.record.problems:
            self._announce(problem, self.num_upcoming(problem.id))
        record = self.record.problems[problem.id]
        if record.selection is None:
            selection = make_selector(self.config.selector).select(problem, record.attempts)
            self._append("problem_finished", {"selection": encode(selection), "reason": why}, problem.id)
            self._take_in()
            record = self.record.problems[problem.id]
        assert record.selection is not None
        slim = replace(record, attempts=tuple(replace(attempt, turns=()) for attempt in record.attempts))
        self.record = replace(self.record, problems={**self.record.problems, problem.id: slim})
        return clamped(record.selection.answer)

    # --- telling ---

    def warn(self, message: str, problem_id: str | None = None) -> None:
        """Tell a person now, and keep it for the report; the same thing once."""
        if message not in self._seen_warnings:
            self._seen_warnings.add(message)
            self._tell(message)
            self._append("warning", {"message": message}, problem_id)

    def _tell(self, message: str) -> None:
        self._console.print(f"warning: {message}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _append(self, kind: EventKind, data: dict[str, Any], problem_id: str | None = None) -> None:
        self._sink.append(TraceEvent(kind, self.clock.elapsed_s(), data, problem_id, wall_time=time.time()))

    def _take_in(self) -> None:
        self.record = fold_run(self._sink.new, self.record)
        self._sink.new.clear()

    def _is_past(self, at_s: float) -> bool:
        return self.clock.elapsed_s() >= at_s

    def _speed(self, measured: float | None) -> float | None:
        """Tokens a second of this run, once it has gone on for a while; else what was measured beforehand."""
        return self._num_tokens / self._working_s if self._num_tokens >= _MIN_TOKENS else measured

    def _note_speed(self, outcome: RunOutcome) -> None:
        self._num_tokens += outcome.stats["num_tokens"]
        self._working_s += outcome.stats["seconds"]

    # --- the end ---

    def close(self) -> None:
        """Record the end, close all parts and write submission, attempts and report into the folder.

        Raises:
            StorageError: something could not be written; what was recorded is in the store.
        """
        try:
            self._drop_parts()
            stats = {"num_tokens": self._num_tokens, "seconds": self._working_s, "failures": self._num_failures}
            told = {"reason": self._ending(), "seconds": self._working_s, "stats": stats}
            self._append("run_finished", told)
            self._take_in()
            whole = self.record if self._sink.num_unsaved else fold_stored(self._store, self._store.events())
        finally:
            self._store.close()
        write_results(whole, self.folder)

    def _ending(self) -> str:
        if len(self.record.problems) < self.num_problems:
            return INTERRUPTED
        return BUDGET if any(map(is_cut_short, self.record.problems.values())) else COMPLETE


def write_results(record: RunRecord, folder: RunFolder) -> None:
    """Submission, attempts and report. Raises `StorageError`."""
    write_submission(record, folder)
    write_attempts(record, folder)
    write_report(record, folder.report_html)
