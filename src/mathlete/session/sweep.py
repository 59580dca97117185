"""Several runs over the same tasks: each configuration with each seed, in one folder, gone on with when cut off.

Knows which runs there are to be, and in which state each is. A run of a sweep is a run like any other, in a folder of
its own within the sweep's. What comes of them is compared by `lab.sweep_table`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mathlete.core.errors import InputError
from mathlete.core.problem import Problem
from mathlete.lab.gathering import gather_runs
from mathlete.lab.run_finding import FoundRun
from mathlete.lab.run_folder import RunFolder, replace_file
from mathlete.lab.run_reading import read_outline
from mathlete.lab.run_store import RunStore
from mathlete.lab.tasks import Task
from mathlete.run_config import RunConfig, decode_config
from mathlete.session.crew import Crew, Job, OpenCrew
from mathlete.session.run_session import SessionResult, resume_run, start_run
from mathlete.triad.driver import RunOutcome, is_cut_short

MANIFEST_NAME = "sweep.json"
STORE_NAME = "sweep.sqlite"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep is to do.

    Attributes:
        folder: where its runs are.
        tasks: the problem file, as it was given.
        configs: by name; their seeds do not count.
        seeds: of the runs of each.
        limit: only the first so many tasks; None for all.
    """

    folder: Path
    tasks: str
    configs: Mapping[str, RunConfig]
    seeds: tuple[int, ...]
    limit: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` naming what is missing, or twice."""
        if not self.configs:
            raise ValueError("configs must not be empty")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, not {list(self.seeds)}")

    @property
    def store_path(self) -> Path:
        """All its runs in one store."""
        return self.folder / STORE_NAME

    def runs(self) -> Iterator[SweepRun]:
        """All of them, one configuration after the other, so that an engine is loaded once for its seeds."""
        for name, config in self.configs.items():
            for seed in self.seeds:
                yield SweepRun(name, replace(config, seed=seed), RunFolder(self.folder / f"{name}-s{seed}"))


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One run of a sweep: name of its configuration, the configuration with its seed, and its folder."""

    name: str
    config: RunConfig
    folder: RunFolder

    @property
    def is_begun(self) -> bool:
        """Whether there is a trace of it."""
        return self.folder.store_path.is_file()

    def is_finished(self) -> bool:
        """Whether nothing is left to do in it. Raises `StorageError` when its store cannot be read."""
        if not self.is_begun:
            return False
        with RunStore.read(self.folder.store_path) as store:
            record = read_outline(store)
        return record.finished is not None and not any(map(is_cut_short, record.problems.values()))


def begin_sweep(sweep: Sweep) -> None:
    """Make its folder and write down what it is to do.

    Raises:
        InputError: there is a sweep already.
        StorageError: it cannot be written.
    """
    path = sweep.folder / MANIFEST_NAME
    if path.exists():
        raise InputError(
            f"there is a sweep in {sweep.folder} already: go on with it (--resume), or choose another name"
        )
    sweep.folder.mkdir(parents=True, exist_ok=True)
    told = {
        "version": _VERSION,
        "tasks": sweep.tasks,
        "limit": sweep.limit,
        "seeds": list(sweep.seeds),
        "configs": {name: asdict(config) for name, config in sweep.configs.items()},
    }
    replace_file(path, json.dumps(told, indent=2).encode())


def open_sweep(folder: Path) -> Sweep:
    """The sweep in a folder. Raises `InputError` when there is none that can be read."""
    path = folder / MANIFEST_NAME
    try:
        told: dict[str, Any] = json.loads(path.read_bytes())
        if told["version"] != _VERSION:
            raise InputError(f"{path} was written by another version of Mathlete; use that one")
        configs = {name: decode_config(config) for name, config in told["configs"].items()}
        return Sweep(folder, told["tasks"], configs, tuple(told["seeds"]), told["limit"])
    except FileNotFoundError as error:
        raise InputError(f"there is no sweep in {folder}: there is no {MANIFEST_NAME} in it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not what a sweep writes: {type(error).__name__}: {error}") from error


def run_sweep(sweep: Sweep, tasks: Sequence[Task], console: Console, open_crew: OpenCrew) -> bool:
    """Make all runs that are not finished, and gather all of them in one store.

    Args:
        sweep: that has been begun.
        tasks: of its problem file.
        console: for progress.
        open_crew: gives those who work on runs of one configuration, one after the other.

    Returns:
        whether all runs are complete; False when a person ended it.

    Raises:
        MathleteError: of a run; it can be gone on with.
    """
    is_whole = True
    todo = {run.folder.id: run for run in sweep.runs() if not run.is_finished()}
    for name in sweep.configs:
        runs = [run for run in todo.values() if run.name == name]
        with ExitStack() as cleanup:
            lending = _Lending(open_crew, cleanup)
            for run in runs:
                console.print(f"{run.folder.id}:", style="bold", highlight=False, markup=False)
                result = _make(run, tasks, console, lending.open)
                is_whole = is_whole and not any(map(is_cut_short, result.record.problems.values()))
                if result.interrupted:
                    return False
    found = [FoundRun(run.folder.store_path, run.folder.id) for run in sweep.runs()]
    gather_runs(found, sweep.store_path)
    return is_whole


def _make(run: SweepRun, tasks: Sequence[Task], console: Console, open_crew: OpenCrew) -> SessionResult:
    if run.is_begun:
        return resume_run(str(run.folder.path), run.folder.path.parent, None, console, open_crew)
    runs_dir = run.folder.path.parent
    return start_run(run.config, tasks, runs_dir, console, open_crew=open_crew, run_id=run.folder.id)


class _Lending:
    """Gives one crew to runs one after the other; it is opened for the first and closed with `cleanup`."""

    def __init__(self, open_crew: OpenCrew, cleanup: ExitStack) -> None:
        self._open_crew = open_crew
        self._cleanup = cleanup
        self._crew: Crew | None = None

    def open(self, config: RunConfig, problems: Sequence[Problem], console: Console) -> Crew:
        if self._crew is None:
            self._crew = self._open_crew(config, problems, console)
            self._cleanup.callback(self._crew.close)
        return _LentCrew(self._crew)


class _LentCrew:
    """Passes everything on, except `close`."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.facts = crew.facts
        self.warnings = crew.warnings

    def work(self, job: Job) -> RunOutcome:
        return self._crew.work(job)

    def request_stop(self) -> None:
        self._crew.request_stop()

    def take_warnings(self) -> tuple[str, ...]:
        return self._crew.take_warnings()

    def guesses(self) -> Mapping[str, float] | None:
        return self._crew.guesses()

    def close(self) -> None:
        return None
