"""Attempts of one recorded session, given out again at the moments at which they began and ended then.

A driver with the policy of that session does with it what it did: every launch meets the attempt that answered it, and
attempts that were told of in one step are told of in one step. Knows recorded attempts and their moments; knows
nothing of policies, files or golds. It differs from `recorded_source`, which serves any policy: here an attempt has
its own time, and nothing is drawn, stalled or sped up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from mathlete.core.attempt import CUT_OFF, Attempt, Failure
from mathlete.core.policy import Launch, Launched
from mathlete.core.problem import Problem
from mathlete.triad.playback import Playback, Running, SimulatedClock
from mathlete.triad.recorded_source import refused
from mathlete.triad.run_trace import RunTrace


@dataclass(frozen=True, slots=True)
class TimedAttempt:
    """An attempt and when it was over.

    Attributes:
        attempt: as recorded; of one that the end of its session overtook, what is known.
        ended_at_s: on the run's clock; infinite when it never ended by itself. Attempts that were told of in one step
            have the same.
        place: among those that ended in one step, in the order in which they did.
        at_once: whether it ended before anything else happened, since its prompt was refused.
    """

    attempt: Attempt
    ended_at_s: float = math.inf
    place: int = 0
    at_once: bool = False


@dataclass(slots=True)
class _Timed(Running):
    ended_at_s: float
    place: int


class TimelineSource(Playback[_Timed]):
    """An `AttemptSource` over one recorded session.

    A launch that was not made then, or not so, is refused: it ends at once as one that the generator lost, and the
    trace has a warning. An attempt that was cut off ends when it is cut off again, with what it had then.
    """

    def __init__(
        self,
        trace: RunTrace,
        clock: SimulatedClock,
        timeline: Mapping[str, TimedAttempt],
        wake_s: Callable[[], float] = lambda: math.inf,
        max_step_s: float = 0.25,
    ) -> None:
        """Join the parts.

        Args:
            trace: where everything is recorded.
            clock: what `step` moves: the run's clock, and the driver's.
            timeline: by attempt id.
            wake_s: a time on the clock at which a step must end, asked for at each step.
            max_step_s: how far a step moves the clock at most; > 0.
        """
        super().__init__(trace, clock)
        self._timeline = timeline
        self._wake_s = wake_s
        self._max_step_s = max_step_s

    def start(self, problem: Problem, index: int, launch: Launch, pool: Sequence[Attempt]) -> None:
        """Begin an attempt that was begun then, or refuse. `pool` is not looked at: what was shown is recorded too."""
        del pool
        attempt_id = f"{problem.id}#{index}"
        timed = self._timeline.get(attempt_id)
        wanted = (launch.pillar, launch.round, launch.about)
        if timed is not None and wanted != (timed.attempt.pillar, timed.attempt.round, timed.attempt.about):
            timed = None
        recorded = refused(problem.id, launch) if timed is None else timed.attempt
        self._tell_start(problem, index, launch, recorded)
        if timed is None:
            message = f"{attempt_id}: no attempt {launch.pillar!r} of round {launch.round} was begun then"
            self._trace.append("warning", {"message": message}, problem.id)
            self._keep(replace(recorded, id=attempt_id, index=index, round=launch.round, about=launch.about))
        elif timed.at_once:
            self._keep(recorded)
        else:
            launched = Launched(launch.pillar, launch.round, launch.about)
            self._running[attempt_id] = _Timed(recorded, launched, self._clock(), timed.ended_at_s, timed.place)

    def step(self) -> None:
        """Move the clock to the next moment at which attempts ended, or as far as a step may go."""
        now_s, wake_s = self._clock(), self._wake_s()
        until_s = min(now_s + self._max_step_s, wake_s if wake_s > now_s else math.inf)
        first_s = min((running.ended_at_s for running in self._running.values()), default=math.inf)
        self._clock.advance(max(0.0, min(until_s, first_s) - now_s))
        done = [running for running in self._running.values() if running.ended_at_s <= self._clock()]
        for running in sorted(done, key=lambda running: (running.ended_at_s, running.place)):
            del self._running[running.recorded.id]
            self._keep(running.recorded)

    def end(self, problem_ids: Collection[str], failure: Failure) -> None:
        """Cut off all attempts of some problems; what they had when they were cut off then is kept."""
        for attempt_id, running in list(self._running.items()):
            if running.recorded.problem_id in problem_ids:
                del self._running[attempt_id]
                is_as_then = running.recorded.failure == failure
                self._keep(running.recorded if is_as_then else self._cut(running, failure))

    def _tokens_so_far(self, running: _Timed) -> int:
        recorded = running.recorded
        part = (self._clock() - running.started_s) / recorded.elapsed_s if recorded.elapsed_s > 0 else 1.0
        return int(recorded.num_tokens * min(1.0, part))


def never_ended(attempt: Attempt) -> bool:
    """Whether a recorded attempt was ended from outside: it goes on until that happens again."""
    return attempt.failure in CUT_OFF
