"""What experiment trackers are told of a run: settings, figures, figures over time, and a row for each problem.

Pure: a run and its events in, plain data out. Knows no tracker.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import FALLBACK
from mathlete.core.trace import TraceEvent
from mathlete.lab.metrics import Metrics, attempt_rows, evaluate_run

# Columns of `TrackedRun.rows`, in order.
COLUMNS = ("id", "answer", "label", "correct", "accepted", "confidence", "attempts", "votes", "tokens", "reason")


@dataclass(frozen=True, slots=True)
class Point:
    """A figure at a time.

    Attributes:
        step: how many attempts had finished.
        wall_time: seconds since the epoch.
        value: the figure.
    """

    step: int
    wall_time: float
    value: float


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What is told of one run.

    Attributes:
        name: of its folder.
        params: settings as text; those that are None are left out.
        metrics: figures at the end. Intervals are `NAME_low` and `NAME_high`.
        series: figures over time, by name.
        rows: one a problem, by `COLUMNS`.
        started_wall_time: seconds since the epoch.
        ended_wall_time: of the last event, seconds since the epoch.
        finished: why it ended; None when it was cut off.
    """

    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    series: Mapping[str, tuple[Point, ...]]
    rows: tuple[Mapping[str, Any], ...]
    started_wall_time: float
    ended_wall_time: float
    finished: str | None

    def table(self) -> str:
        """`rows` as CSV."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def track_run(name: str, run: RunRecord, events: Iterable[TraceEvent]) -> TrackedRun:
    """What is told of a run.

    Args:
        name: of its folder.
        run: its record; an outline does.
        events: the same run's, in order; read once.
    """
    right = {row.problem_id: row.selected_correct for row in attempt_rows(run)}
    series, ended_wall_time = _over_time(right, events)
    return TrackedRun(
        name=name,
        params={key: _as_text(value) for key, value in run.config.items() if value is not None},
        metrics=_figures(run),
        series=series,
        rows=tuple(_row(record, right.get(key)) for key, record in run.problems.items()),
        started_wall_time=run.started_wall_time,
        ended_wall_time=max(ended_wall_time, run.started_wall_time),
        finished=run.finished,
    )


def _figures(run: RunRecord) -> dict[str, float]:
    records = list(run.problems.values())
    chosen = [record.selection for record in records if record.selection is not None]
    attempts = [attempt for record in records for attempt in record.attempts]
    num_tokens = sum(attempt.num_tokens for attempt in attempts)
    figures: dict[str, float] = {
        "num_problems": len(records),
        "num_answered": sum(selection.rule != FALLBACK for selection in chosen),
        "num_accepted": sum(selection.accepted is True for selection in chosen),
        "num_attempts": sum(not attempt.is_check for attempt in attempts),
        "num_checks": sum(attempt.is_check for attempt in attempts),
        "num_tokens": num_tokens,
        "num_warnings": len(run.warnings),
        "elapsed_s": run.elapsed_s,
    }
    if run.elapsed_s > 0:
        figures["tokens_per_s"] = num_tokens / run.elapsed_s
    found = evaluate_run(run)
    return figures if found is None else figures | _marks(found, is_whole=run.config.get("command") == "evaluate")


def _marks(found: Metrics, *, is_whole: bool) -> dict[str, float]:
    """Figures that need labels. Where problems end when their vote is settled, those of single attempts are bent."""
    estimates = {"accuracy": found.accuracy}
    if is_whole:
        estimates |= {"pass_at_1": found.pass_at_1, "majority": found.majority}
        estimates |= {f"pass_at_{item.k}": item.estimate for item in found.pass_at}
    return {
        f"{name}{end}": value
        for name, estimate in estimates.items()
        for end, value in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high))
    }


@dataclass(slots=True)
class _Course:
    """A run on its way through its events."""

    right: Mapping[str, bool]  # by problem id, of those with a label
    num_attempts: int = 0
    num_tokens: int = 0
    done: set[str] = field(default_factory=set)  # a resumed run takes up again what was cut short
    series: dict[str, list[Point]] = field(default_factory=dict)

    def take(self, event: TraceEvent) -> None:
        """Go on by one event."""
        if event.kind == "attempt_finished":
            self.num_attempts += 1
            self.num_tokens += event.data["attempt"]["num_tokens"]
            self._note("num_tokens", self.num_tokens, event)
            if event.at_s > 0:
                self._note("tokens_per_s", self.num_tokens / event.at_s, event)
        elif event.kind == "problem_finished" and event.problem_id is not None:
            self.done.add(event.problem_id)
            self._note("num_done", len(self.done), event)
            self._note("confidence", event.data["selection"]["confidence"], event)
            marked = self.done & self.right.keys()
            if event.problem_id in marked:
                self._note("accuracy", sum(map(self.right.__getitem__, marked)) / len(marked), event)

    def _note(self, name: str, value: float, event: TraceEvent) -> None:
        if math.isfinite(value):
            self.series.setdefault(name, []).append(Point(self.num_attempts, event.wall_time, value))


def _over_time(right: Mapping[str, bool], events: Iterable[TraceEvent]) -> tuple[dict[str, tuple[Point, ...]], float]:
    """The series, and the wall time of the last event."""
    course = _Course(right)
    wall_time = 0.0
    for event in events:
        course.take(event)
        wall_time = max(wall_time, event.wall_time)
    return {name: tuple(points) for name, points in course.series.items()}, wall_time


def _row(record: ProblemRecord, is_right: bool | None) -> dict[str, Any]:
    chosen = record.selection
    clusters = [cluster for cluster in chosen.clusters if cluster.answer == chosen.answer] if chosen else []
    return {
        "id": record.problem.id,
        "answer": chosen.answer if chosen else None,
        "label": record.gold,
        "correct": is_right,
        "accepted": chosen.accepted if chosen else None,
        "confidence": round(chosen.confidence, 4) if chosen else None,
        "attempts": sum(not attempt.is_check for attempt in record.attempts),
        "votes": sum(len(cluster.attempt_ids) for cluster in clusters),
        "tokens": sum(attempt.num_tokens for attempt in record.attempts),
        "reason": record.stop_reason,
    }


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
