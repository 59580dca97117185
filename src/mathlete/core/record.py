"""A run rebuilt from its trace: the one fold that resuming, exporting and reporting share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from mathlete.core.attempt import Attempt, BeamLevel, Rewinding, Turn
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection
from mathlete.core.trace import (
    TraceEvent,
    decode_attempt,
    decode_beam_level,
    decode_problem,
    decode_rewinding,
    decode_selection,
    decode_turn,
)

# Events of a problem that are kept with their time: what was decided, and when attempts began and ended.
_TIMED: frozenset[str] = frozenset(
    {"problem_opened", "decision", "attempt_started", "attempt_finished", "problem_finished"}
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened on a problem.

    Attributes:
        at_s: seconds on the run's clock.
        kind: "problem_opened", "decision", "attempt_started", "attempt_finished" or "problem_finished".
        attempt_id: of the attempt that began or ended.
        data: what the event says, for "problem_opened" and "decision"; empty for the others.
    """

    at_s: float
    kind: str
    attempt_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """One problem as far as the trace tells.

    Attributes:
        problem: what was asked.
        attempts: finished attempts in order of finishing.
        selection: the answer, once chosen.
        stop_reason: why the problem ended.
        opened_at_s: `at_s` of `problem_opened`.
        finished_at_s: `at_s` of `problem_finished`.
        unfinished: turns of attempts that were started and never finished, by attempt id.
        gold: the label, when one was revealed after the end.
        group: unit of resampling.
        correct: ids of the attempts that are right, where whoever recorded them judged them; None where an answer is
            right when it equals `gold`.
        rewindings: how often attempts went back, by attempt id, in order; those that never did are not in it.
        beam_levels: what was decided in attempts' beams, by attempt id, in order; attempts without one are not in it.
        moments: what was decided and when attempts began and ended, in order.
    """

    problem: Problem
    attempts: tuple[Attempt, ...] = ()
    selection: Selection | None = None
    stop_reason: str | None = None
    opened_at_s: float | None = None
    finished_at_s: float | None = None
    unfinished: Mapping[str, tuple[Turn, ...]] = field(default_factory=dict)
    gold: str | None = None
    group: str | None = None
    correct: frozenset[str] | None = None
    rewindings: Mapping[str, tuple[Rewinding, ...]] = field(default_factory=dict)
    beam_levels: Mapping[str, tuple[BeamLevel, ...]] = field(default_factory=dict)
    moments: tuple[Moment, ...] = ()


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as far as its trace tells.

    Attributes:
        config: what `run_started` recorded (command, model, budget_s, attempts, seed, version, ...), and what a
            `run_resumed` changed since (the budget).
        problems: by id, in the order of the input, or in which they came.
        elapsed_s: `at_s` of the last event.
        finished: reason of `run_finished`, or None when the run was cut off.
        stats: counters of `run_finished`.
        warnings: messages, in order.
        started_wall_time: seconds since the epoch.
    """

    config: Mapping[str, Any]
    problems: Mapping[str, ProblemRecord]
    elapsed_s: float = 0.0
    finished: str | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    started_wall_time: float = 0.0


def fold_run(events: Iterable[TraceEvent], so_far: RunRecord | None = None) -> RunRecord:
    """Rebuild a run from its events, in the order in which they were appended.

    Args:
        events: of one run.
        so_far: what the events before these amount to; they are the first ones when None.
    """
    run = so_far or RunRecord(config={}, problems={})
    told: dict[str, Any] = {}  # of the run as a whole, what these events change
    problems = dict(run.problems)
    warnings = list(run.warnings)
    elapsed_s = run.elapsed_s
    growing: dict[str, _GrowingRecord] = {}  # of the problems that these events concern
    for event in events:
        elapsed_s = max(elapsed_s, event.at_s)
        if event.kind == "warning":  # whether about one problem or about the run
            warnings.append(event.data["message"])
        elif event.problem_id is not None:
            if event.problem_id not in growing:
                growing[event.problem_id] = _GrowingRecord(problems[event.problem_id])
            growing[event.problem_id].add(event)
        elif event.kind == "run_started":
            problems |= {data["id"]: ProblemRecord(problem=decode_problem(data)) for data in event.data["problems"]}
            told |= {"config": event.data["config"], "started_wall_time": event.wall_time}
        elif event.kind == "run_resumed":
            for data in event.data.get("problems", ()):
                problems.setdefault(data["id"], ProblemRecord(problem=decode_problem(data)))
            config = told.get("config", run.config)
            told |= {"finished": None, "config": {**config, **event.data.get("config", {})}}
        elif event.kind == "run_finished":
            told |= {"finished": event.data["reason"], "stats": event.data.get("stats", {})}
    problems |= {key: record.freeze() for key, record in growing.items()}
    return replace(run, **told, problems=problems, warnings=tuple(warnings), elapsed_s=elapsed_s)


class _GrowingRecord:
    """A `ProblemRecord` to which events are added, each in constant time."""

    def __init__(self, record: ProblemRecord) -> None:
        self._changes: dict[str, Any] = {}  # of fields that an event sets as a whole
        self._record = record
        self._attempts = list(record.attempts)
        self._unfinished = {key: list(turns) for key, turns in record.unfinished.items()}
        self._rewindings = {key: list(told) for key, told in record.rewindings.items()}
        self._beam_levels = {key: list(decided) for key, decided in record.beam_levels.items()}
        self._moments = list(record.moments)

    def add(self, event: TraceEvent) -> None:
        """Take up what an event of this problem tells."""
        data = event.data
        if event.kind in _TIMED:
            told = data if event.kind in ("problem_opened", "decision") else {}
            self._moments.append(Moment(event.at_s, event.kind, event.attempt_id, told))
        if event.attempt_id is not None:
            self._add_to_attempt(event, event.attempt_id)
        if event.kind == "attempt_finished":
            turns = self._unfinished.pop(data["attempt"]["id"], ())
            self._attempts.append(decode_attempt(data["attempt"], turns))
        elif event.kind == "problem_opened":
            self._changes["opened_at_s"] = event.at_s
        elif event.kind == "problem_finished":
            selection = decode_selection(data["selection"])
            self._changes |= {"selection": selection, "stop_reason": data["reason"], "finished_at_s": event.at_s}
        elif event.kind == "gold_revealed":
            correct = None if data.get("correct") is None else frozenset(data["correct"])
            self._changes |= {"gold": data["gold"], "group": data.get("group"), "correct": correct}

    def freeze(self) -> ProblemRecord:
        """The record as it stands."""
        return replace(
            self._record,
            **self._changes,
            attempts=tuple(self._attempts),
            unfinished=_as_tuples(self._unfinished),
            rewindings=_as_tuples(self._rewindings),
            beam_levels=_as_tuples(self._beam_levels),
            moments=tuple(self._moments),
        )

    def _add_to_attempt(self, event: TraceEvent, attempt_id: str) -> None:
        if event.kind == "attempt_started":
            self._unfinished[attempt_id] = []
            self._rewindings.pop(attempt_id, None)  # it is made again
            self._beam_levels.pop(attempt_id, None)
        elif event.kind == "turn_finished":
            self._unfinished.setdefault(attempt_id, []).append(decode_turn(event.data["turn"]))
        elif event.kind == "rewound":
            self._rewindings.setdefault(attempt_id, []).append(decode_rewinding(event.data["rewinding"]))
        elif event.kind == "beam_level":
            self._beam_levels.setdefault(attempt_id, []).append(decode_beam_level(event.data["level"]))


_Item = TypeVar("_Item")


def _as_tuples(lists: Mapping[str, Sequence[_Item]]) -> dict[str, tuple[_Item, ...]]:
    return {key: tuple(items) for key, items in lists.items()}
