"""The append-only stream of events that a run is, and the fold that turns it back into a run.

Every decision is an event. Resuming, exporting, reporting and replaying all read the same stream
through `core.record.fold_run`; nothing else holds the state of a run.

Kinds and their `data`:
    run_started       {"config": {...}, "problems": [{"id", "statement", "type", "low", "high", ...}]}
    run_resumed       {"config": {...}}            a session begins; with "problems": [{...}] that came since (a contest
                      shows them one at a time) and "num_upcoming": int of those that are still expected
    problem_opened    {"budget_s": float}
    attempt_started   {"index", "pillar", "seed", "temperature", "round"}
    turn_finished     {"turn": {...}}            one model turn with its tool result, if any
    attempt_finished  {"attempt": {...}}         without its turns, which are recorded already
    rewound           {"rewinding": {...}}       an attempt went back, within a turn or in its beam
    beam_level        {"level": {...}}           an attempt's beam chose among the candidates of a level
    decision          {"action": "launch" | "wait" | "stop", "seen": {...}, ...}   see `core.decision`; waiting, and a
                      launch for which there is no slot ("n": 0), once for each pool
    problem_finished  {"selection": {...}, "reason": str}
    gold_revealed     {"gold": str, "group": str}   written after the problem is finished; with "correct": [attempt id]
                      where others judged the attempts
    run_finished      {"reason": "complete" | "budget" | "interrupted", "seconds": float, "stats": {...}}
    warning           {"message": str}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from mathlete.core.attempt import Attempt, BeamCandidate, BeamLevel, Rewinding, Turn
from mathlete.core.code import ToolResult
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.selection import AnswerCluster, Evidence, Selection

# Since 2 a turn has top_means; since 3 turns and attempts have num_discarded, and there are "rewound" and
# "beam_level"; since 4 turns have top5_bits, attempts round, about and evidence, selections accepted, results of
# programs waited_s and session_restarted; since 5 decisions tell what they saw, and waiting is one; since 6 problems
# may come later. What was written before is read without them.
SCHEMA_VERSION = 6

EventKind = Literal[
    "run_started",
    "run_resumed",
    "problem_opened",
    "attempt_started",
    "turn_finished",
    "attempt_finished",
    "rewound",
    "beam_level",
    "decision",
    "problem_finished",
    "gold_revealed",
    "run_finished",
    "warning",
]


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One thing that happened.

    Attributes:
        kind: see the module docstring.
        at_s: seconds since the start of the run's first session, pauses between sessions left out.
        data: JSON-able payload.
        problem_id: when it concerns one problem.
        attempt_id: when it concerns one attempt.
        wall_time: seconds since the epoch, for people.
        version: schema version of `data`.
    """

    kind: EventKind
    at_s: float
    data: Mapping[str, Any] = field(default_factory=dict)
    problem_id: str | None = None
    attempt_id: str | None = None
    wall_time: float = 0.0
    version: int = SCHEMA_VERSION


def encode(value: Attempt | Turn | Rewinding | BeamLevel | Selection) -> dict[str, Any]:
    """A JSON-able dictionary; `decode_attempt`, `decode_turn`, `decode_selection` are its inverses."""
    return asdict(value)


def encode_problem(problem: Problem) -> dict[str, Any]:
    """The problem as `run_started` records it."""
    return {
        "id": problem.id,
        "statement": problem.statement,
        "type": problem.answer_kind.type,
        "low": problem.answer_kind.low,
        "high": problem.answer_kind.high,
        "formal_statement": problem.formal_statement,
        "source": problem.source,
    }


def decode_problem(data: Mapping[str, Any]) -> Problem:
    """The inverse of `encode_problem`."""
    kind = AnswerKind(type=data.get("type", "integer"), low=data["low"], high=data["high"])
    return Problem(data["id"], data["statement"], kind, data.get("formal_statement"), data.get("source"))


def decode_turn(data: Mapping[str, Any]) -> Turn:
    """The inverse of `encode` for a `Turn`."""
    result = data.get("result")
    if result is not None:
        result = ToolResult(**{**result, "isolation": tuple(result.get("isolation", ()))})
    fields = {**data, "result": result}
    for name in ("logprobs", "entropies", "top_means", "top5_bits"):
        fields[name] = tuple(fields.get(name, ()))
    return Turn(**fields)


def decode_rewinding(data: Mapping[str, Any]) -> Rewinding:
    """The inverse of `encode` for a `Rewinding`."""
    return Rewinding(**data)


def decode_beam_level(data: Mapping[str, Any]) -> BeamLevel:
    """The inverse of `encode` for a `BeamLevel`."""
    return BeamLevel(data["level"], tuple(BeamCandidate(**candidate) for candidate in data["candidates"]))


def encode_ending(attempt: Attempt) -> dict[str, Any]:
    """An attempt as `attempt_finished` records it: all but its turns."""
    data = {field.name: getattr(attempt, field.name) for field in fields(attempt) if field.name != "turns"}
    return data | {"features": dict(attempt.features), "evidence": tuple(map(asdict, attempt.evidence))}


def decode_attempt(data: Mapping[str, Any], recorded: Sequence[Turn] = ()) -> Attempt:
    """The inverse of `encode` for an `Attempt`, and of `encode_ending` given the turns that were `recorded`."""
    turns = tuple(map(decode_turn, data["turns"])) if "turns" in data else tuple(recorded)
    about, evidence = tuple(data.get("about", ())), tuple(Evidence(**item) for item in data.get("evidence", ()))
    return Attempt(**{**data, "turns": turns, "about": about, "evidence": evidence})


def decode_selection(data: Mapping[str, Any]) -> Selection:
    """The inverse of `encode` for a `Selection`."""
    clusters = tuple(AnswerCluster(**{**c, "attempt_ids": tuple(c["attempt_ids"])}) for c in data["clusters"])
    return Selection(**{**data, "clusters": clusters, "reasons": tuple(data["reasons"])})
