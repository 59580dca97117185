"""A model on its way to this machine, shown to a person. Knows steps and bytes; not where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mathlete.model_store.progress import Progress as Step
from mathlete.model_store.progress import Report

LOG_EVERY = 0.25


@contextmanager
def showing_progress(console: Console) -> Iterator[Report]:
    """A `Report` that draws a bar, or writes a line at the start of each step and now and then when it cannot."""
    if not console.is_terminal:
        yield _PlainProgress(console).report
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        yield _Bars(bars).report


class _Bars:
    """One bar that follows the steps: a step that goes on with the same bytes keeps its speed."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def report(self, step: Step) -> None:
        # "Fetching X, part 3 of 22" and "Fetching X, part 4 of 22" are one bar; the name has a line of its own.
        kind, _, detail = step.what.partition(", ")
        if kind not in self._tasks:
            for task in self._tasks.values():
                self._bars.remove_task(task)
            self._bars.console.print(kind, highlight=False)
            self._tasks = {kind: self._bars.add_task(detail, completed=step.num_bytes, total=step.total_bytes)}
        self._bars.update(self._tasks[kind], description=detail, completed=step.num_bytes, total=step.total_bytes)


class _PlainProgress:
    """Lines for a log: few, so that a pull in a build's log is readable."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._kind = ""
        self._next = 0.0

    def report(self, step: Step) -> None:
        kind = step.what.partition(", ")[0]
        share = step.num_bytes / step.total_bytes
        if kind == self._kind and share < min(self._next, 1.0):
            return
        self._kind, self._next = kind, share + LOG_EVERY
        self._console.print(f"{step.what}: {share:.0%}", highlight=False, soft_wrap=True)
