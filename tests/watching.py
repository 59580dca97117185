"""Watching a run from outside while a command works on it, and reading what it left."""

from __future__ import annotations

import csv
import time
from pathlib import Path

from mathlete.core.errors import InputError
from mathlete.core.record import RunRecord, fold_run
from mathlete.lab.run_store import RunStore


def stored(folder: Path) -> RunRecord:
    """A run, read from its store while it is running or afterwards."""
    with RunStore.read(folder / "run.sqlite") as store:
        return fold_run(store.events())


def num_finished(folder: Path) -> int:
    return sum(len(item.attempts) for item in stored(folder).problems.values())


def wait_for_attempts(runs: Path, num: int, patience_s: float = 120) -> Path:
    """The run's folder, once so many attempts have finished."""
    give_up_s = time.monotonic() + patience_s
    while time.monotonic() < give_up_s:
        time.sleep(0.1)
        for folder in runs.glob("*"):
            try:
                if num_finished(folder) >= num:
                    return folder
            except InputError:
                continue  # the store is just being made
    raise AssertionError(f"no run in {runs} finished {num} attempts")


def submission(folder: Path) -> dict[str, int]:
    with (folder / "submission.csv").open() as file:
        return {row["id"]: int(row["answer"]) for row in csv.DictReader(file)}
