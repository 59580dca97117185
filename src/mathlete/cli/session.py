"""One session of a run: from problems to a folder with answers, attempts and a report.

A run has more than one session when it is resumed. Everything that matters goes through the run store.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from mathlete import __version__
from mathlete.cli.live import LiveDisplay
from mathlete.cli.models import showing_progress
from mathlete.compose import RunConfig, build_driver, build_generator, build_sandbox, decode_config
from mathlete.core.errors import InputError, StorageError
from mathlete.core.record import RunRecord, fold_run
from mathlete.core.trace import TraceEvent, encode_problem
from mathlete.generators.ryanstream import RyanStreamGenerator
from mathlete.lab.export import write_attempts, write_submission
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_store import RunStore
from mathlete.lab.tasks import Task, load_tasks
from mathlete.model_store.progress import Progress
from mathlete.model_store.store import ModelStore
from mathlete.report.page import write_report
from mathlete.sandbox.pool import describe_isolation
from mathlete.triad.driver import INTERRUPTED, RunOutcome

# Kept of the budget for writing the results.
RESERVE_S = 5.0
_MAX_RESERVE_PART = 0.1


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


def start_run(config: RunConfig, tasks: Sequence[Task], runs_dir: Path, console: Console) -> SessionResult:
    """Begin a run over `tasks`."""
    generator = load_generator(config, console)
    folder = RunFolder.create(runs_dir)
    with RunStore.create(folder.store_path) as store:
        recorded = {**asdict(config), "version": __version__, "isolation": list(describe_isolation()),
                    "engine": generator.description}  # fmt: skip
        problems = [encode_problem(task.problem) for task in tasks]
        store.append(TraceEvent("run_started", 0.0, {"config": recorded, "problems": problems}, wall_time=time.time()))
        return _session(config, tasks, folder, store, generator, console)


def resume_run(run: str, runs_dir: Path, budget_s: float | None, console: Console) -> SessionResult:
    """Go on with a run that was cut off, interrupted, or ran out of time. `budget_s`: new total, or None as it was."""
    folder = RunFolder.open(run, runs_dir)
    with RunStore.open(folder.store_path) as store:
        record = fold_run(store.events())
        if not record.problems:
            raise InputError(f"{folder.path} was cut off before it began; start a new run")
        config = decode_config(dict(record.config))
        if budget_s is not None:
            config = replace(config, budget_s=budget_s)
        tasks = _tasks_of(record, config)
        generator = load_generator(config, console)
        data = {"config": asdict(config)}
        store.append(TraceEvent("run_resumed", record.elapsed_s, data, wall_time=time.time()))
        return _session(config, tasks, folder, store, generator, console)


def load_generator(config: RunConfig, console: Console) -> RyanStreamGenerator:
    """The model, fetched and converted first if need be, with progress shown."""
    store = ModelStore()
    with showing_progress(console) as report:
        model = store.ensure(config.model, report)

        def converting(what: str, done: int, total: int) -> None:
            size = model.path.stat().st_size
            report(Progress(what, size * done // max(1, total), size))

        return build_generator(config, model.path, store.cache_dir, converting)


def _session(
    config: RunConfig, tasks: Sequence[Task], folder: RunFolder, store: RunStore, generator: RyanStreamGenerator,
    console: Console,
) -> SessionResult:  # fmt: skip
    record = fold_run(store.events())
    reserve = min(RESERVE_S, _MAX_RESERVE_PART * config.budget_s)
    budget_s = max(0.0, config.budget_s - reserve - record.elapsed_s)
    try:
        with build_sandbox() as sandbox, LiveDisplay(console, config.budget_s - reserve) as display:
            driver = build_driver(config, generator, sandbox, store, display.update)
            with _interrupts(driver.request_stop, console, folder):
                outcome = driver.run([task.problem for task in tasks], budget_s, record.problems, record.elapsed_s)
        _finish(store, tasks, outcome, record.elapsed_s)
    except StorageError as error:
        write_submission(fold_run(store.events()), folder)
        raise StorageError(
            f"{error}\nAn answer to every problem is in {folder.submission_csv}, and every attempt finished before "
            "that is in the run store. Make room, then go on with: "
            f"mathlete {config.command} --resume {folder.id}"
        ) from error
    finally:
        generator.close()
    record = fold_run(store.events())
    write_results(record, folder)
    return SessionResult(folder, record, outcome.reason == INTERRUPTED)


def write_results(record: RunRecord, folder: RunFolder) -> None:
    """Answers first, then attempts, then the report. Raises `StorageError`."""
    folder.release_reserve()
    write_submission(record, folder)
    write_attempts(record, folder)
    write_report(record, folder.report_html)


def _finish(store: RunStore, tasks: Sequence[Task], outcome: RunOutcome, offset_s: float) -> None:
    at_s = offset_s + outcome.stats["seconds"]
    events = [
        TraceEvent("gold_revealed", at_s, {"gold": task.gold, "group": task.group}, task.problem.id,
                   wall_time=time.time())
        for task in tasks
        if task.gold is not None
    ]  # fmt: skip
    data = {"reason": outcome.reason, "seconds": outcome.stats["seconds"], "stats": dict(outcome.stats)}
    store.append_many([*events, TraceEvent("run_finished", at_s, data, wall_time=time.time())])


def _tasks_of(record: RunRecord, config: RunConfig) -> list[Task]:
    """The run's problems; their labels come from the problem file, if it is still there."""
    labels: Mapping[str, Task] = {}
    if config.source is not None and Path(config.source).is_file():
        labels = {task.problem.id: task for task in load_tasks(config.source, limit=len(record.problems)).tasks}
    tasks = []
    for item in record.problems.values():
        label = labels.get(item.problem.id)
        known = label is not None and label.problem.statement == item.problem.statement
        tasks.append(label if label is not None and known else Task(item.problem, None, item.problem.id))
    return tasks


@contextmanager
def _interrupts(stop: Any, console: Console, folder: RunFolder) -> Iterator[None]:
    """Ctrl-C once ends the run in order; twice ends it at once (finished attempts are in the store either way)."""
    presses = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            console.print(f"\nstopped at once; go on with --resume {folder.id}", highlight=False)
            sys.stderr.flush()
            raise KeyboardInterrupt
        console.print("\nending the run: answers and report follow (Ctrl-C again to stop at once)", highlight=False)
        stop()

    earlier = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
