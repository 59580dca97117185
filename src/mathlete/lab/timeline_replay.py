"""Holds a recorded run again, session by session, with its own policy, driver and attempts, and compares the ends.

Attempts begin and end at their recorded moments, so a run that the clock did not press is selected and stopped as it
was. Under pressure a decision may hang on how many tokens an attempt had come to at some moment, which is not recorded:
`lab.redecide` compares those. Knows traces and the driver; does not know files, or how the result is shown.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.decision import decode_seen
from mathlete.core.errors import InputError
from mathlete.core.record import ProblemRecord, fold_run
from mathlete.core.selection import Selection
from mathlete.core.trace import TraceEvent, decode_attempt, decode_selection, decode_turn
from mathlete.triad.driver import INTERRUPTED, Driver
from mathlete.triad.playback import SimulatedClock
from mathlete.triad.policies import driving_of, recorded_policy, settings_of, weigher_of
from mathlete.triad.progress import RunProgress
from mathlete.triad.timeline_source import TimedAttempt, TimelineSource, never_ended

_AFTERWARDS_S = 1.0


@dataclass(frozen=True, slots=True)
class Difference:
    """A problem that ended otherwise.

    Attributes:
        problem_id: the problem.
        session: in which it ended, from 1.
        recorded: answer, and why it ended.
        replayed: the same of the replay.
    """

    problem_id: str
    session: int
    recorded: str
    replayed: str

    def __str__(self) -> str:
        """For a person."""
        return (
            f"problem {self.problem_id!r}, session {self.session}: recorded {self.recorded}; replayed {self.replayed}"
        )


@dataclass(frozen=True, slots=True)
class TimelineReplayed:
    """How a run compares with its replay.

    Attributes:
        num_sessions: sessions that were held again.
        num_problems: ends of problems that were compared.
        differences: in order.
    """

    num_sessions: int
    num_problems: int
    differences: tuple[Difference, ...]

    @property
    def is_faithful(self) -> bool:
        """Whether every selection and every stop was the same."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self) | {"is_faithful": self.is_faithful}

    def lines(self) -> tuple[str, ...]:
        """For a person: what was compared, then each difference."""
        compared = f"{self.num_problems} ends of problems in {self.num_sessions} sessions replayed"
        if self.is_faithful:
            return (f"{compared}: all selections and stops as recorded",)
        return (f"{compared}: {len(self.differences)} not as recorded", *map(str, self.differences))


def replay_timeline(events: Iterable[TraceEvent]) -> TimelineReplayed:
    """Hold a recorded run again. Keeps the whole run in memory.

    Args:
        events: of one run, in the order in which they were appended.

    Raises:
        InputError: there is no run, or it was recorded before decisions told what they saw.
    """
    sessions = _sessions(events)
    before: list[TraceEvent] = []
    differences: list[Difference] = []
    num_problems = num_sessions = 0
    for number, session in enumerate(sessions, 1):
        recorded = {e.problem_id or "": _end_of(e) for e in session if e.kind == "problem_finished"}
        if recorded:
            replayed = _hold(before, session)
            num_sessions += 1
            num_problems += len(recorded)
            differences += [
                Difference(key, number, _words(end), _words(replayed.get(key)))
                for key, end in recorded.items()
                if not _alike(end, replayed.get(key))
            ]
        before += session
    return TimelineReplayed(num_sessions, num_problems, tuple(differences))


@dataclass(frozen=True, slots=True)
class _End:
    selection: Selection
    reason: str


def _end_of(event: TraceEvent) -> _End:
    return _End(decode_selection(event.data["selection"]), event.data["reason"])


def _alike(one: _End, other: _End | None) -> bool:
    if other is None or one.reason != other.reason:
        return False
    pair = [replace(end.selection, terms=dict(end.selection.terms)) for end in (one, other)]
    return pair[0] == pair[1]


def _words(end: _End | None) -> str:
    return "no end" if end is None else f"{end.selection.answer} by {end.selection.rule} ({end.reason})"


def _sessions(events: Iterable[TraceEvent]) -> list[list[TraceEvent]]:
    """The events of each session; the second and later begin with `run_resumed`."""
    sessions: list[list[TraceEvent]] = []
    for event in events:
        if event.kind in ("run_started", "run_resumed"):
            sessions.append([])
        if not sessions:
            raise InputError("the trace has no beginning: its first event must be run_started")
        sessions[-1].append(event)
    if not sessions:
        raise InputError("the trace is empty")
    return sessions


# --- one session ---


@dataclass(slots=True)
class _EndsSink:
    """A `TraceSink` that keeps how problems end."""

    ends: dict[str, _End] = field(default_factory=dict)

    def append(self, event: TraceEvent) -> None:
        if event.kind == "problem_finished" and event.problem_id is not None:
            self.ends[event.problem_id] = _end_of(event)


def _hold(before: Sequence[TraceEvent], session: Sequence[TraceEvent]) -> Mapping[str, _End]:
    """How problems end when a session is held again after what was `before` it."""
    record = fold_run([*before, session[0]])
    earlier: Mapping[str, ProblemRecord] = record.problems
    came = session[0].data.get("problems", ()) if "num_upcoming" in session[0].data else None
    asked = list(earlier) if came is None else [data["id"] for data in came]
    offset_s = session[0].at_s if before else 0.0
    policy, stop_at_s = recorded_policy(record.config), _stopped_at_s(session)
    timeline, clock, sink = _timeline(session), SimulatedClock(offset_s), _EndsSink()
    decided_at_s = [event.at_s for event in session if event.kind == "decision"]
    driver: Driver

    def wake_s() -> float:  # a policy may have decided between two ends, since other problems had been opened
        place = bisect.bisect_right(decided_at_s, clock())
        next_s = decided_at_s[place] if place < len(decided_at_s) else math.inf
        return min(driver.next_deadline_s(), stop_at_s, next_s)

    def watch(progress: RunProgress) -> None:
        if progress.at_s >= stop_at_s:
            driver.request_stop()

    driver = Driver(
        lambda trace: TimelineSource(trace, clock, timeline, wake_s),
        sink, policy, driving_of(record.config), weigh=weigher_of(settings_of(record.config).policy),
        on_progress=watch, clock=clock,
    )  # fmt: skip
    driver.run(
        [earlier[key].problem for key in asked], _budget_s(session, offset_s), earlier, offset_s,
        num_upcoming=session[0].data.get("num_upcoming", 0),
    )  # fmt: skip
    return sink.ends


def _budget_s(session: Sequence[TraceEvent], offset_s: float) -> float:
    """Seconds that a session had: a decision tells when it was to end."""
    decisions = [event for event in session if event.kind == "decision"]
    for event in decisions:
        seen = decode_seen(event.data)
        if seen is not None and seen.outlook is not None:
            return max(0.0, event.at_s + seen.outlook.remaining_s - offset_s)
    if any("seen" not in event.data for event in decisions):
        raise InputError(
            "this run was recorded by a version whose decisions do not tell what the policy saw, so it cannot be "
            "replayed against its own end; runs of this version can"
        )
    return 0.0  # nothing was ever decided: the time was over before it began


def _stopped_at_s(session: Sequence[TraceEvent]) -> float:
    """When to end the session: a person did at the last thing that happened before its first consequence.

    One that nobody ended is over, or was killed; a moment after its last event there is nothing left to compare.
    """
    last_s = session[0].at_s
    for event in session:
        ended = event.data.get("attempt", {}).get("failure") if event.kind == "attempt_finished" else None
        if INTERRUPTED in (ended, event.data.get("reason")) and event.kind != "run_finished":
            return last_s
        if event.kind in ("decision", "attempt_finished"):
            last_s = event.at_s
    return session[-1].at_s + _AFTERWARDS_S


def _timeline(session: Sequence[TraceEvent]) -> dict[str, TimedAttempt]:
    """When each attempt of a session ended. Between two steps somebody is asked, and what he decides is recorded."""
    turns: dict[str, list[Turn]] = {}
    begun: dict[str, TimedAttempt] = {}
    just_started: set[str] = set()  # since the last decision
    together: list[Attempt] = []  # ended since the last decision
    about: dict[str, tuple[str, ...]] = {}  # of the last launch of each problem
    for event in session:
        attempt_id = event.attempt_id or ""
        if event.kind == "decision":
            just_started.clear()
            together.clear()
            about[event.problem_id or ""] = tuple(event.data.get("about", ()))
        elif event.kind == "attempt_started":
            just_started.add(attempt_id)
            turns[attempt_id] = []
            begun[attempt_id] = TimedAttempt(_unended(event, about[event.problem_id or ""]))
        elif event.kind == "turn_finished":
            turns[attempt_id].append(decode_turn(event.data["turn"]))
        elif event.kind == "attempt_finished":
            attempt = decode_attempt(event.data["attempt"], turns.pop(attempt_id))
            if attempt_id in just_started or never_ended(attempt):
                begun[attempt_id] = TimedAttempt(attempt, at_once=not never_ended(attempt))
                continue
            together.append(attempt)
            for place, sibling in enumerate(together):
                begun[sibling.id] = TimedAttempt(sibling, event.at_s, place)
    return begun


def _unended(event: TraceEvent, about: tuple[str, ...]) -> Attempt:
    """What is known of an attempt that the end of its session overtook."""
    data, problem_id = event.data, event.problem_id or ""
    return Attempt(
        event.attempt_id or "", problem_id, data["index"], data["pillar"], data["seed"], data["temperature"],
        None, None, (), 0, 0.0, failure="interrupted", round=data["round"], about=about,
    )  # fmt: skip
