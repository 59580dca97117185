"""Asks the policy of a recorded run again, moment by moment, and compares what it says with what was done.

Each decision event tells what the policy saw beyond the attempts; the attempts, and what was in flight, are in the
trace. So every state is rebuilt as it was, and a pure policy must say the same: launch for launch, stop for stop, and
the same selection at the end. Knows traces and policies; does not know files, or how the result is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mathlete.core.attempt import CUT_OFF, Attempt, Turn
from mathlete.core.decision import Seen, decode_seen
from mathlete.core.errors import InputError
from mathlete.core.policy import Action, Launch, Launched, Policy, PoolState, Stop, Wait
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection
from mathlete.core.trace import TraceEvent, decode_attempt, decode_problem, decode_selection, decode_turn
from mathlete.triad.driver import INTERRUPTED, NEVER_OPENED
from mathlete.triad.policies import recorded_policy

# Why problems end that no policy decided: a person, or the clock of the whole run.
_NOT_BY_POLICY = frozenset({INTERRUPTED, NEVER_OPENED})


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A moment at which the policy says something else than what was recorded.

    Attributes:
        problem_id: the problem.
        at_s: seconds of the run's clock.
        recorded: what was done.
        again: what the policy says now.
    """

    problem_id: str
    at_s: float
    recorded: str
    again: str

    def __str__(self) -> str:
        """For a person."""
        return (
            f"problem {self.problem_id!r} at {self.at_s:.2f} s: recorded {self.recorded}; the policy says {self.again}"
        )


@dataclass(frozen=True, slots=True)
class Redecided:
    """How a run compares with its own policy.

    Attributes:
        num_problems: problems that have an answer in the trace.
        num_launches: launches that were decided again, those for which there was no slot included.
        num_waits: times of waiting that were decided again.
        num_stops: ends of problems that were decided again, with their selections.
        mismatches: in order.
    """

    num_problems: int
    num_launches: int
    num_waits: int
    num_stops: int
    mismatches: tuple[Mismatch, ...]

    @property
    def is_faithful(self) -> bool:
        """Whether everything was decided alike."""
        return not self.mismatches

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self) | {"is_faithful": self.is_faithful}

    def lines(self) -> tuple[str, ...]:
        """For a person: what was compared, then each mismatch."""
        compared = (
            f"{self.num_launches} launches, {self.num_waits} waits and {self.num_stops} stops of {self.num_problems} "
            "problems decided again"
        )
        if self.is_faithful:
            return (f"{compared}: all as recorded",)
        return (f"{compared}: {len(self.mismatches)} not as recorded", *map(str, self.mismatches))


def redecide(events: Iterable[TraceEvent], policy: Policy | None = None) -> Redecided:
    """Decide a recorded run again.

    Attempts are kept only while their problem is open, so memory does not grow with the run.

    Args:
        events: of one run, in the order in which they were appended.
        policy: asked in place of the one that the run recorded; then mismatches tell where it would do otherwise,
            had it met the same states.

    Raises:
        InputError: the run was imported or recorded before decisions told what they saw, or names a policy that there
            is not.
    """
    again = _Redeciding(policy)
    for event in events:
        again.take(event)
    return again.result()


@dataclass(slots=True)
class _Problem:
    """One problem as the driver held it at the moment that the events have come to."""

    problem: Problem
    tried: list[Attempt] = field(default_factory=list)  # all that the trace has
    finished: list[Attempt] = field(default_factory=list)  # those that the policy is shown
    is_open: bool = False
    turns: dict[str, list[Turn]] = field(default_factory=dict)  # of attempts in flight
    in_flight: dict[str, Launched] = field(default_factory=dict)
    about: tuple[str, ...] = ()  # of the last launch
    stop: Stop | None = None  # what the policy says at its end


class _Redeciding:
    """The fold. Follows the driver: what it shows a policy of earlier sessions, and when."""

    def __init__(self, policy: Policy | None) -> None:
        self._given = policy
        self._policy = policy
        self._problems: dict[str, _Problem] = {}
        self._num = {"launch": 0, "wait": 0, "stop": 0}
        self._ended: set[str] = set()
        self._mismatches: list[Mismatch] = []

    def result(self) -> Redecided:
        return Redecided(
            len(self._ended), self._num["launch"], self._num["wait"], self._num["stop"], tuple(self._mismatches)
        )

    def take(self, event: TraceEvent) -> None:
        if event.kind == "run_started":
            if event.data["config"].get("command") == "import":
                raise InputError("these attempts were recorded elsewhere, so there are no decisions to make again")
            self._problems = {data["id"]: _Problem(decode_problem(data)) for data in event.data["problems"]}
            self._policy = self._given or recorded_policy(event.data["config"])
        elif event.kind == "run_resumed":
            for data in event.data.get("problems", ()):
                self._problems.setdefault(data["id"], _Problem(decode_problem(data)))
            for item in self._problems.values():  # what was in flight is lost, and who was open is opened anew
                item.is_open, item.in_flight, item.turns = False, {}, {}
        elif self._policy is None:
            raise InputError("the trace has no beginning: its first event must be run_started")
        elif event.problem_id is not None:
            self._take_of_problem(self._problems[event.problem_id], event)

    def _take_of_problem(self, item: _Problem, event: TraceEvent) -> None:
        data, attempt_id = event.data, event.attempt_id or ""
        if event.kind == "problem_opened":
            item.is_open = True
            item.finished = [a for a in item.tried if a.answer is not None or a.failure not in CUT_OFF]
        elif event.kind == "decision":
            self._decision(item, event)
        elif event.kind == "attempt_started":
            item.in_flight[attempt_id] = Launched(data["pillar"], data["round"], item.about)
            item.turns[attempt_id] = []
        elif event.kind == "turn_finished":
            item.turns[attempt_id].append(decode_turn(data["turn"]))
        elif event.kind == "attempt_finished":
            attempt = decode_attempt(data["attempt"], item.turns.pop(attempt_id, ()))
            del item.in_flight[attempt_id]
            item.tried.append(attempt)
            item.finished.append(attempt)
        elif event.kind == "problem_finished":
            self._finish(item, event)

    def _decision(self, item: _Problem, event: TraceEvent) -> None:
        seen = decode_seen(event.data)
        if seen is None:
            raise InputError(
                "this run was recorded by a version whose decisions do not tell what the policy saw, so it cannot be "
                "decided again; runs of this version can"
            )
        kind = event.data["action"]
        self._num[kind] += 1
        state = _rebuilt(item, seen)
        if state is None:
            found = f"{len(item.finished)} attempts ended and {len(item.in_flight)} in flight in the trace"
            self._note(event, f"a decision over {seen.num_finished} and {seen.num_in_flight}", found)
            return
        action = self._ask(state)
        if kind == "stop":
            item.stop = action if isinstance(action, Stop) else None
            if not isinstance(action, Stop) or _differ(event.data["reason"], action.reason):
                self._note(event, f"stop ({event.data['reason']})", _words(action))
            return
        recorded: Action = Wait()
        if kind == "launch":
            item.about = tuple(event.data["about"])
            recorded = Launch(
                event.data["asked"], event.data["pillar"], event.data["temperature"], item.about, event.data["round"]
            )
        if action != recorded:
            self._note(event, _words(recorded), _words(action))

    def _finish(self, item: _Problem, event: TraceEvent) -> None:
        """Compare the selection; of a problem that was never opened it is asked for here."""
        recorded = decode_selection(event.data["selection"])
        if not item.is_open:  # an earlier session may have tried it
            attempts = tuple(item.tried)
            action = self._ask(PoolState(item.problem, attempts, 0, len(attempts), 0.0, 0.0))
            item.stop = action if isinstance(action, Stop) else None
            self._num["stop"] += 1
        if item.stop is not None and not _alike(item.stop.selection, recorded):
            self._note(event, f"answer {_answer(recorded)}", f"answer {_answer(item.stop.selection)}")
        self._ended.add(item.problem.id)
        item.is_open, item.stop = False, None

    def _ask(self, state: PoolState) -> Action:
        assert self._policy is not None, "asked for at the beginning of the trace"
        return self._policy.decide(state)

    def _note(self, event: TraceEvent, recorded: str, again: str) -> None:
        self._mismatches.append(Mismatch(event.problem_id or "", event.at_s, recorded, again))


def _rebuilt(item: _Problem, seen: Seen) -> PoolState | None:
    """The state that was seen; None when the trace does not have the attempts that were."""
    if (len(item.finished), len(item.in_flight)) != (seen.num_finished, seen.num_in_flight):
        return None
    return seen.state(item.problem, item.finished, tuple(item.in_flight.values()))


def _differ(recorded: str, again: str) -> bool:
    return recorded not in _NOT_BY_POLICY and recorded != again


def _alike(one: Selection, other: Selection) -> bool:
    """Whether two selections are the same, but for how JSON writes numbers and lists."""
    return replace(one, terms=dict(one.terms)) == replace(other, terms=dict(other.terms))


def _words(action: Action) -> str:
    if isinstance(action, Launch):
        about = f" about {', '.join(action.about)}" if action.about else ""
        return f"launch {action.n} {action.pillar} of round {action.round} at {action.temperature:g}{about}"
    if isinstance(action, Stop):
        return f"stop ({action.reason}) with {_answer(action.selection)}"
    return "wait"


def _answer(selection: Selection) -> str:
    return f"{selection.answer} by {selection.rule}, confidence {selection.confidence:.4f}"
