"""One session of the real driver over recorded attempts, on a simulated clock; of its trace, what it is judged by.

Knows the driver and its recorded source. Does not know golds, files, or how many sessions a comparison takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mathlete.core.attempt import Attempt
from mathlete.core.policy import Policy
from mathlete.core.problem import Problem
from mathlete.core.selection import FALLBACK
from mathlete.core.trace import TraceEvent
from mathlete.triad.driver import Driver, DriverConfig
from mathlete.triad.playback import SimulatedClock
from mathlete.triad.recorded_source import RecordedConfig, RecordedSource


@dataclass(frozen=True, slots=True)
class Ended:
    """How one problem ended.

    Attributes:
        answer: that was handed in.
        is_fallback: whether no attempt had an answer.
        reason: why it ended.
        num_attempts: attempts that ended, those cut off included, without launches for which none was recorded.
        num_answers: of these, those with an answer.
        num_tokens: sampled for it.
        seconds: from opening to end; 0 for one that was never opened.
    """

    answer: str
    is_fallback: bool
    reason: str
    num_attempts: int
    num_answers: int
    num_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SimulatedSession:
    """How a session went.

    Attributes:
        problems: by id.
        num_tokens: sampled.
        elapsed_s: on the simulated clock.
    """

    problems: Mapping[str, Ended]
    num_tokens: int
    elapsed_s: float

    @property
    def answers(self) -> dict[str, str]:
        """What was handed in, by problem id."""
        return {key: ended.answer for key, ended in self.problems.items()}


@dataclass(slots=True)
class _Spent:
    opened_at_s: float | None = None
    num_attempts: int = 0
    num_answers: int = 0
    num_tokens: int = 0


@dataclass(slots=True)
class _Sink:
    """A `TraceSink` that keeps counts instead of events."""

    spent: dict[str, _Spent] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)

    @property
    def num_opened(self) -> int:
        return sum(item.opened_at_s is not None for item in self.spent.values())

    def append(self, event: TraceEvent) -> None:
        if event.problem_id is None or event.kind not in ("problem_opened", "attempt_finished", "problem_finished"):
            return
        spent = self.spent.setdefault(event.problem_id, _Spent())
        if event.kind == "problem_opened":
            spent.opened_at_s = event.at_s
        elif event.kind == "attempt_finished":
            attempt = event.data["attempt"]
            spent.num_attempts += attempt["failure"] != "generator_error"
            spent.num_answers += attempt["answer"] is not None
            spent.num_tokens += attempt["num_tokens"]
        else:
            selection = event.data["selection"]
            self.ended[event.problem_id] = Ended(
                selection["answer"], selection["rule"] == FALLBACK, event.data["reason"],
                spent.num_attempts, spent.num_answers, spent.num_tokens,
                0.0 if spent.opened_at_s is None else event.at_s - spent.opened_at_s,
            )  # fmt: skip


def simulate(
    problems: Sequence[Problem],
    pools: Mapping[str, Sequence[Attempt]],
    policy: Policy,
    budget_s: float,
    *,
    driving: DriverConfig,
    recorded: RecordedConfig,
    weigh: Callable[[Problem], float] = lambda problem: 1.0,
    sees_ahead: bool = True,
) -> SimulatedSession:
    """Work on `problems` in their order until each has an answer or the budget is spent.

    Args:
        problems: in order.
        pools: recorded attempts by problem id.
        policy: decides; a new one for each session, where it remembers anything.
        budget_s: seconds for all of them, on the simulated clock.
        driving: how the session is driven.
        recorded: how recorded attempts are given out.
        weigh: the part of the clock that a problem should get, relative to others.
        sees_ahead: whether statements of problems to come may be weighed; not where they come strictly in turn.
    """
    clock, sink = SimulatedClock(), _Sink()
    place = {problem.id: number for number, problem in enumerate(problems)}

    def weigh_seen(problem: Problem) -> float:
        return weigh(problem) if sees_ahead or place[problem.id] <= sink.num_opened else 1.0

    driver: Driver
    driver = Driver(
        lambda trace: RecordedSource(trace, clock, pools, recorded, lambda: driver.next_deadline_s()),
        sink, policy, driving, weigh=weigh_seen, clock=clock,
    )  # fmt: skip
    outcome = driver.run(problems, budget_s, {}, 0.0)
    return SimulatedSession(sink.ended, int(outcome.stats["num_tokens"]), clock())
