"""One session of a run: from problems to a folder with answers, attempts and a report.

A run has more than one session when it is resumed. Everything that matters goes through the run store.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from mathlete import __version__
from mathlete.contest.clock import usable_s
from mathlete.core.errors import InputError, StorageError
from mathlete.core.problem import Problem
from mathlete.core.record import RunRecord, fold_run
from mathlete.core.trace import TraceEvent, encode_problem
from mathlete.lab.export import write_attempts, write_submission
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_reading import fold_stored
from mathlete.lab.run_store import RunStore
from mathlete.lab.tasks import Task, load_tasks
from mathlete.report.page import write_report
from mathlete.run_config import RunConfig, decode_config
from mathlete.session.crew import Crew, Job, OpenCrew, open_local
from mathlete.session.crew import Load as Load
from mathlete.session.engine_loading import load_generator as load_generator
from mathlete.session.interrupts import Interrupts
from mathlete.session.live import LiveDisplay
from mathlete.triad.driver import COMPLETE, INTERRUPTED, RunOutcome, is_cut_short
from mathlete.triad.progress import RunProgress

# Kept of the budget for writing the results.
RESERVE_S = 5.0
_MAX_WARNINGS = 5  # told at the end; all are in the report


Watch = Callable[[RunProgress], None]
"""Told how far a run has come, first and after each step, in the run's thread; it must be quick."""


class StoppedAtOnce(KeyboardInterrupt):
    """A person ended the run without waiting for its end in order.

    Attributes:
        folder: where the answers and whatever was recorded are.
    """

    def __init__(self, folder: RunFolder) -> None:
        """Of the run in `folder`."""
        super().__init__(f"stopped at once; what there is is in {folder.path}")
        self.folder = folder


@dataclass(frozen=True, slots=True)
class SessionResult:
    """How a session ended.

    Attributes:
        folder: where everything lies.
        record: the whole run, earlier sessions included.
        interrupted: whether a person ended it.
    """

    folder: RunFolder
    record: RunRecord
    interrupted: bool


@dataclass(frozen=True, slots=True)
class _Run:
    """What a session works on."""

    config: RunConfig
    tasks: Sequence[Task]
    folder: RunFolder
    store: RunStore
    console: Console

    def append(self, *events: TraceEvent) -> None:
        self.store.append_many(replace(event, wall_time=time.time()) for event in events)

    def warn(self, message: str, at_s: float) -> None:
        """Tell a person now, and keep it for the report."""
        _tell_warnings([message], self.console)
        self.append(TraceEvent("warning", at_s, {"message": message}))


def start_run(
    config: RunConfig,
    tasks: Sequence[Task],
    runs_dir: Path,
    console: Console,
    load: Load | None = None,
    interrupts: Interrupts | None = None,
    watch: Watch | None = None,
    open_crew: OpenCrew | None = None,
    run_id: str | None = None,
) -> SessionResult:
    """Begin a run over `tasks`. Its folder is made before the model is loaded, and goes again if that fails.

    Args:
        config: what to do.
        tasks: the problems.
        runs_dir: where runs are kept.
        console: for progress.
        load: gives the generator; None for `load_generator`.
        interrupts: not yet in force; given by who wants to end the run from another thread.
        watch: told how far the run has come, beside the console.
        open_crew: gives those who work on it; None for this process alone, with what `load` gives.
        run_id: name of the run's folder; None for one that begins with the time.

    Raises:
        MathleteError: of whichever part failed; the message says what was kept.
        StoppedAtOnce: a person interrupted it twice.
    """
    try:
        folder = RunFolder.create(runs_dir, run_id)
    except StorageError as error:
        error.add_note("No model was loaded. To keep runs in another folder: --out FOLDER.")
        raise
    begun = False
    try:
        with ExitStack() as cleanup:
            interrupts = cleanup.enter_context(interrupts or Interrupts())
            store = cleanup.enter_context(RunStore.create(folder.store_path))
            crew = _open_crew(config, [task.problem for task in tasks], console, load, open_crew)
            cleanup.callback(crew.close)
            recorded = {**asdict(config), "version": __version__, **crew.facts}
            problems = [encode_problem(task.problem) for task in tasks]
            run = _Run(config, tasks, folder, store, console)
            run.append(TraceEvent("run_started", 0.0, {"config": recorded, "problems": problems}))
            begun = True
            for message in crew.warnings:
                run.warn(message, 0.0)
            return _session(run, crew, interrupts, watch)
    finally:
        if not begun:
            shutil.rmtree(folder.path, ignore_errors=True)  # it holds nothing; what went wrong is on its way up


def resume_run(
    name: str, runs_dir: Path, budget_s: float | None, console: Console, open_crew: OpenCrew | None = None
) -> SessionResult:
    """Go on with a run that was cut off, interrupted, or ran out of time.

    A run with nothing left to do, or no time left to do it in, has its results written again; no model is loaded.

    Args:
        name: the run's id, the start of it, a path, or "latest".
        runs_dir: where runs are kept.
        budget_s: a new total for all sessions together; None leaves it as it was.
        console: for progress.
        open_crew: gives those who go on with it; None for this process alone.

    Raises:
        MathleteError: of whichever part failed; the message says what was kept.
    """
    folder = RunFolder.open(name, runs_dir)
    with ExitStack() as cleanup:
        interrupts = cleanup.enter_context(Interrupts())
        store = cleanup.enter_context(RunStore.open(folder.store_path))
        record = fold_stored(store, store.events())
        if not record.problems:
            raise InputError(f"{folder.path} was cut off before it began; start a new run")
        config = _resumed_config(record, budget_s)
        run = _Run(config, _tasks_of(record, config, console), folder, store, console)
        if (why := _why_nothing_to_do(record, config)) is not None:
            console.print(f"{why}; its results are written again", highlight=False, markup=False, soft_wrap=True)
            if record.finished is None:  # killed between its last answer and its end
                _finish(run, RunOutcome(COMPLETE, {"num_tokens": 0.0, "seconds": 0.0}), record)
            return _write_results(run, interrupted=False)
        crew = _open_crew(config, [task.problem for task in run.tasks], console, None, open_crew)
        cleanup.callback(crew.close)
        run.append(TraceEvent("run_resumed", record.elapsed_s, {"config": {**asdict(config), **crew.facts}}))
        for message in crew.warnings:
            if message not in record.warnings:
                run.warn(message, record.elapsed_s)
        return _session(run, crew, interrupts)


def _open_crew(
    config: RunConfig, problems: Sequence[Problem], console: Console, load: Load | None, open_crew: OpenCrew | None
) -> Crew:
    if open_crew is not None:
        return open_crew(config, problems, console)
    return open_local(config, problems, console, load or load_generator)


def _session(run: _Run, crew: Crew, interrupts: Interrupts, watch: Watch | None = None) -> SessionResult:
    record = fold_run(run.store.events())
    usable = usable_s(run.config.budget_s, RESERVE_S)
    try:
        with LiveDisplay(run.console, usable) as display:

            def show(progress: RunProgress) -> None:
                if interrupts.requested:
                    display.tell_once("ending the run: answers and report follow (Ctrl-C again to stop at once)")
                display.update(progress)
                if watch is not None:
                    watch(progress)

            interrupts.stop = crew.request_stop
            if interrupts.requested:
                crew.request_stop()
            problems = [task.problem for task in run.tasks]
            budget_s = max(0.0, usable - record.elapsed_s)
            job = Job(run.config, problems, budget_s, record.problems, record.elapsed_s, run.store, show)
            outcome = crew.work(job)
        at_s = record.elapsed_s + outcome.stats["seconds"]
        run.append(*(TraceEvent("warning", at_s, {"message": message}) for message in crew.take_warnings()))
        _finish(run, outcome, record, crew.guesses())
    except KeyboardInterrupt as error:
        write_submission(fold_run(run.store.events()), run.folder)
        go_on = f"mathlete {run.config.command} --resume {run.folder.path}"
        run.console.print(f"stopped at once; to go on: {go_on}", highlight=False, soft_wrap=True)
        raise StoppedAtOnce(run.folder) from error
    except Exception as error:  # whatever it was: the answers that are there are handed in
        write_submission(fold_run(run.store.events()), run.folder)
        error.add_note(
            f"An answer to every problem is in {run.folder.submission_csv}, and every attempt finished before that "
            f"is in the run store. To go on: mathlete {run.config.command} --resume {run.folder.path}"
        )
        raise
    result = _write_results(run, interrupted=outcome.reason == INTERRUPTED)
    _tell_warnings(result.record.warnings[len(record.warnings) :], run.console)
    return result


def _write_results(run: _Run, *, interrupted: bool) -> SessionResult:
    """Answers first, then attempts, then the report. Raises `StorageError`."""
    record = fold_run(run.store.events())
    write_submission(record, run.folder)
    try:
        write_attempts(record, run.folder)
        write_report(record, run.folder.report_html)
    except StorageError as error:
        error.add_note(
            f"The answers are in {run.folder.submission_csv}, and everything is in the run store. Make room, then "
            f"write the rest with: mathlete {run.config.command} --resume {run.folder.path}"
        )
        raise
    return SessionResult(run.folder, record, interrupted)


def _tell_warnings(messages: Sequence[str], console: Console) -> None:
    shown, num_more = messages[:_MAX_WARNINGS], len(messages[_MAX_WARNINGS:])
    more = [f"{num_more} more of these; all are in the report"] if num_more else []
    for message in (*shown, *more):
        console.print(f"warning: {message}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _finish(run: _Run, outcome: RunOutcome, before: RunRecord, guesses: Mapping[str, float] | None = None) -> None:
    """Reveal the labels and record the end.

    Args:
        run: what the session worked on.
        outcome: how it ended.
        before: the run as the session found it.
        guesses: what became of guessed tokens; None where none were guessed.
    """
    at_s = before.elapsed_s + outcome.stats["seconds"]
    revealed = [
        TraceEvent("gold_revealed", at_s, {"gold": task.gold, "group": task.group}, task.problem.id)
        for task in run.tasks
        if task.gold is not None and before.problems[task.problem.id].gold is None
    ]
    stats = dict(outcome.stats) if guesses is None else {**outcome.stats, "guesses": dict(guesses)}
    data = {"reason": outcome.reason, "seconds": outcome.stats["seconds"], "stats": stats}
    run.append(*revealed, TraceEvent("run_finished", at_s, data))


def _resumed_config(record: RunRecord, budget_s: float | None) -> RunConfig:
    config = decode_config(dict(record.config))
    if budget_s is None:
        return config
    if usable_s(budget_s, RESERVE_S) <= record.elapsed_s and any(map(is_cut_short, record.problems.values())):
        raise InputError(
            f"--budget is the time of all sessions together, and this run has used {record.elapsed_s:.1f} s of it "
            f"already: give more than that"
        )
    return replace(config, budget_s=budget_s)


def _why_nothing_to_do(record: RunRecord, config: RunConfig) -> str | None:
    left = [item for item in record.problems.values() if is_cut_short(item)]
    if not left:
        return "the run is complete"
    is_spent = usable_s(config.budget_s, RESERVE_S) <= record.elapsed_s
    if is_spent and all(item.selection is not None for item in left):
        return (
            f"the run's budget of {config.budget_s:g} s is spent (to go on with the {len(left)} problems that were "
            f"cut short, give a larger one, such as --budget {2 * config.budget_s:g}s)"
        )
    return None


def _tasks_of(record: RunRecord, config: RunConfig, console: Console) -> list[Task]:
    """The run's problems; their labels come from the problem file, if it is still there and still the same."""
    labels: Mapping[str, Task] = {}
    if config.source is not None:
        try:
            loaded = load_tasks(config.source, mapping=config.mapping)
            labels = {task.problem.id: task for task in loaded.tasks}
            for note in loaded.notes:
                console.print(note, highlight=False, markup=False, soft_wrap=True)
        except InputError as error:  # going on matters more than marking
            console.print(f"without labels: {error}", highlight=False, markup=False, soft_wrap=True)
    tasks = []
    for item in record.problems.values():
        label = labels.get(item.problem.id)
        if label is not None and label.problem.statement == item.problem.statement:
            tasks.append(Task(item.problem, label.gold, label.group))
        else:
            tasks.append(Task(item.problem, None, item.problem.id))
    return tasks
