"""A run rebuilt from its trace: the one fold that resuming, exporting and reporting share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

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
        rewindings: how often attempts went back, by attempt id, in order; those that never did are not in it.
        beam_levels: what was decided in attempts' beams, by attempt id, in order; attempts without one are not in it.
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
    rewindings: Mapping[str, tuple[Rewinding, ...]] = field(default_factory=dict)
    beam_levels: Mapping[str, tuple[BeamLevel, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as far as its trace tells.

    Attributes:
        config: what `run_started` recorded (command, model, budget_s, attempts, seed, version, ...), and what a
            `run_resumed` changed since (the budget).
        problems: by id, in the order of the input.
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


def fold_run(events: Iterable[TraceEvent]) -> RunRecord:
    """Rebuild a run from its events, in the order in which they were appended."""
    run = RunRecord(config={}, problems={})
    problems: dict[str, ProblemRecord] = {}
    warnings: list[str] = []
    for event in events:
        run = replace(run, elapsed_s=max(run.elapsed_s, event.at_s))
        if event.kind == "warning":  # whether about one problem or about the run
            warnings.append(event.data["message"])
        elif event.problem_id is not None:
            problems[event.problem_id] = _fold_problem(problems[event.problem_id], event)
        elif event.kind == "run_started":
            for data in event.data["problems"]:
                problems[data["id"]] = ProblemRecord(problem=decode_problem(data))
            run = replace(run, config=event.data["config"], started_wall_time=event.wall_time)
        elif event.kind == "run_resumed":
            run = replace(run, finished=None, config={**run.config, **event.data.get("config", {})})
        elif event.kind == "run_finished":
            run = replace(run, finished=event.data["reason"], stats=event.data.get("stats", {}))
    return replace(run, problems=problems, warnings=tuple(warnings))


def _fold_problem(record: ProblemRecord, event: TraceEvent) -> ProblemRecord:
    data = event.data
    if event.kind == "problem_opened":
        return replace(record, opened_at_s=event.at_s)
    if event.kind == "attempt_started" and event.attempt_id is not None:
        rewindings = {key: value for key, value in record.rewindings.items() if key != event.attempt_id}  # made again
        levels = {key: value for key, value in record.beam_levels.items() if key != event.attempt_id}
        unfinished = {**record.unfinished, event.attempt_id: ()}
        return replace(record, unfinished=unfinished, rewindings=rewindings, beam_levels=levels)
    if event.kind == "rewound" and event.attempt_id is not None:
        told = (*record.rewindings.get(event.attempt_id, ()), decode_rewinding(data["rewinding"]))
        return replace(record, rewindings={**record.rewindings, event.attempt_id: told})
    if event.kind == "beam_level" and event.attempt_id is not None:
        decided = (*record.beam_levels.get(event.attempt_id, ()), decode_beam_level(data["level"]))
        return replace(record, beam_levels={**record.beam_levels, event.attempt_id: decided})
    if event.kind == "turn_finished" and event.attempt_id is not None:
        turns = (*record.unfinished.get(event.attempt_id, ()), decode_turn(data["turn"]))
        return replace(record, unfinished={**record.unfinished, event.attempt_id: turns})
    if event.kind == "attempt_finished":
        attempt = decode_attempt(data["attempt"], record.unfinished.get(data["attempt"]["id"], ()))
        unfinished = {key: turns for key, turns in record.unfinished.items() if key != attempt.id}
        return replace(record, attempts=(*record.attempts, attempt), unfinished=unfinished)
    if event.kind == "problem_finished":
        return replace(
            record,
            selection=decode_selection(data["selection"]),
            stop_reason=data["reason"],
            finished_at_s=event.at_s,
        )
    if event.kind == "gold_revealed":
        return replace(record, gold=data["gold"], group=data.get("group"))
    return record
