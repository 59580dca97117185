"""Attempts that were made before, given out again on a simulated clock, with the faults a contest may have.

Knows recorded attempts, a model of speed and a list of faults; knows nothing of policies, files or golds. The driver
and its policies cannot tell it from live attempts: it keeps `AttemptSource` and records the events of `InFlight`.

What a recording cannot tell: an attempt that is cut off has no answer and no text here, for it is not recorded when in
its course it had what; and turns are told of at the attempt's end.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mathlete.core.attempt import Attempt, Failure, is_check_pillar
from mathlete.core.policy import Launch, Launched
from mathlete.core.problem import Problem
from mathlete.triad.playback import Playback, Running, SimulatedClock
from mathlete.triad.run_trace import RunTrace

_IDLE_STEP_S = 0.05  # with nothing in flight a step is over at once, but a driver that waits for nothing must not hang


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast attempts are generated together: n at once give n * alone / (1 + (n - 1) / half_at) tokens a second.

    Each further attempt slows the others; many together approach alone * half_at.

    Attributes:
        alone: tokens a second of one attempt by itself.
        half_at: attempts beyond the first at which each runs at half the speed.
    """

    alone: float
    half_at: float = math.inf

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("alone", "half_at"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, not {getattr(self, name)}")

    def each(self, num: int) -> float:
        """Tokens a second of each of `num` attempts."""
        return self.alone / (1 + (num - 1) / self.half_at)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, in seconds since the session began.

    Attributes:
        stalls: (begin, end) of times in which nothing is generated; in order, without overlap.
        dead_from_s: from when on nothing is ever generated again.
        late_step_s: how much longer than asked for a step may take, as a generator that does not return does.
    """

    stalls: tuple[tuple[float, float], ...] = ()
    dead_from_s: float = math.inf
    late_step_s: float = 0.0

    def working_s(self, begin_s: float, end_s: float) -> float:
        """Seconds between two times in which something is generated."""
        end_s = min(end_s, self.dead_from_s)
        lost = sum(max(0.0, min(end_s, end) - max(begin_s, begin)) for begin, end in self.stalls)
        return max(0.0, end_s - begin_s) - (lost if end_s > begin_s else 0.0)

    def when_done_s(self, begin_s: float, work_s: float) -> float:
        """When `work_s` seconds of generating, begun at `begin_s`, are over; infinite when never."""
        now_s = begin_s
        for begin, end in self.stalls:
            if end <= now_s:
                continue
            if now_s + work_s <= begin:
                break
            work_s -= max(0.0, begin - now_s)
            now_s = end
        return now_s + work_s if now_s + work_s <= self.dead_from_s else math.inf


@dataclass(frozen=True, slots=True)
class RecordedConfig:
    """How recorded attempts are given out.

    Attributes:
        speed: of generating; None to let each attempt take its recorded seconds.
        faults: what goes wrong.
        order_seed: attempts are given out in a random order drawn from it; in that of their index when None.
        max_step_s: how far a step moves the clock at most.
        any_pillar: whether a launch at solving, of the first round, is served by the next attempt of that kind however
            it worked, which stays as it was recorded; else only by one of the very pillar.
    """

    speed: Speed | None = None
    faults: Faults = field(default_factory=Faults)
    order_seed: int | None = None
    max_step_s: float = 0.05
    any_pillar: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` when time would stand still."""
        if not self.max_step_s > 0:
            raise ValueError(f"max_step_s must be > 0, not {self.max_step_s}")


@dataclass(slots=True)
class _Working(Running):
    """An attempt in flight. Work is tokens, or seconds where there is no model of speed."""

    work_from: float
    work_until: float


class RecordedSource(Playback[_Working]):
    """An `AttemptSource` over a recording.

    A launch is served by the next attempt that was recorded of its pillar (see `RecordedConfig.any_pillar`) and round,
    and, where it is about certain answers, about the same ones. Each recorded attempt is given out once. When there is
    none left the launch is refused: it ends at once, without tokens, as one that the generator lost
    ("generator_error"), and the trace has a warning, once a problem and kind.
    """

    def __init__(
        self,
        trace: RunTrace,
        clock: SimulatedClock,
        recorded: Mapping[str, Sequence[Attempt]],
        config: RecordedConfig,
        wake_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """Join the parts.

        Args:
            trace: where everything is recorded.
            clock: what `step` moves; the driver's own.
            recorded: attempts by problem id; problems that are not in it have none.
            config: how they are given out.
            wake_s: a time on the clock at which a step must end, asked for at each step.
        """
        super().__init__(trace, clock)
        self._config = config
        self._wake_s = wake_s
        self._start_s = clock()
        self._work = 0.0  # of an attempt that has been in flight from the beginning
        self._left = {key: in_order(key, attempts, config.order_seed) for key, attempts in recorded.items()}
        self._warned: set[tuple[str, str, int]] = set()

    def start(self, problem: Problem, index: int, launch: Launch, pool: Sequence[Attempt]) -> None:
        """Give out a recorded attempt, or refuse. `pool` is not looked at: what was shown is recorded too."""
        del pool
        attempt_id = f"{problem.id}#{index}"
        found = self._take(problem.id, launch)
        recorded = found or refused(problem.id, launch)
        launched = Launched(recorded.pillar, launch.round, launch.about)
        recorded = replace(
            recorded, id=attempt_id, problem_id=problem.id, index=index, temperature=launch.temperature,
            round=launch.round, about=launch.about,
        )  # fmt: skip
        self._tell_start(problem, index, launch, recorded)
        if found is None:
            self._warn(problem.id, attempt_id, launch)
            self._keep(replace(recorded, elapsed_s=0.0))
            return
        work = recorded.elapsed_s if self._config.speed is None else float(recorded.num_tokens)
        self._running[attempt_id] = _Working(recorded, launched, self._clock(), self._work, self._work + work)

    def step(self) -> None:
        """Move the clock to the next end of an attempt, or as far as a step may go."""
        now_s = self._clock()
        wake_s = self._wake_s()
        span_s = self._config.max_step_s if self._running else min(_IDLE_STEP_S, self._config.max_step_s)
        until_s = min(now_s + span_s, wake_s if wake_s > now_s else math.inf)
        rate = self._rate()
        if self._running:
            first = min(running.work_until for running in self._running.values())
            done_s = self._config.faults.when_done_s(now_s - self._start_s, max(0.0, first - self._work) / rate)
            if self._start_s + done_s <= until_s:
                self._clock.advance(max(0.0, self._start_s + done_s - now_s))
                self._work = max(self._work, first)
                self._end_those_done()
                return
        self._clock.advance(until_s - now_s + self._config.faults.late_step_s)
        worked_s = self._config.faults.working_s(now_s - self._start_s, self._clock() - self._start_s)
        self._work += worked_s * rate
        self._end_those_done()

    def end(self, problem_ids: Collection[str], failure: Failure) -> None:
        """Cut off all attempts of some problems; each has cost what it sampled so far."""
        for attempt_id, running in list(self._running.items()):
            if running.recorded.problem_id in problem_ids:
                del self._running[attempt_id]
                self._keep(self._cut(running, failure))

    def _rate(self) -> float:
        """Work a second of each attempt in flight."""
        return 1.0 if self._config.speed is None else self._config.speed.each(max(1, len(self._running)))

    def _tokens_so_far(self, running: _Working) -> int:
        whole = running.work_until - running.work_from
        part = 1.0 if whole <= 0 else min(1.0, (self._work - running.work_from) / whole)
        return int(running.recorded.num_tokens * part)

    def _take(self, problem_id: str, launch: Launch) -> Attempt | None:
        left = self._left.get(problem_id, [])
        for place, attempt in enumerate(left):
            if self._serves(attempt, launch):
                return left.pop(place)
        return None

    def _serves(self, attempt: Attempt, launch: Launch) -> bool:
        if (attempt.round, attempt.about) != (launch.round, launch.about):
            return False
        is_alike = self._config.any_pillar and attempt.is_independent and not is_check_pillar(launch.pillar)
        return is_alike or attempt.pillar == launch.pillar

    def _end_those_done(self) -> None:
        """End what has done its work, first come, first served."""
        done = [item for item in self._running.items() if item[1].work_until <= self._work]
        for attempt_id, running in sorted(done, key=lambda item: item[1].work_until):
            del self._running[attempt_id]
            self._keep(replace(running.recorded, elapsed_s=self._clock() - running.started_s))

    def _warn(self, problem_id: str, attempt_id: str, launch: Launch) -> None:
        key = (problem_id, launch.pillar, launch.round)
        if key not in self._warned:
            self._warned.add(key)
            wanted = f"{launch.pillar!r} of round {launch.round}" + (f" about {launch.about}" if launch.about else "")
            self._trace.append("warning", {"message": f"{attempt_id}: no attempt {wanted} is recorded"}, problem_id)


def in_order(problem_id: str, attempts: Sequence[Attempt], seed: int | None) -> list[Attempt]:
    """As given out: by index, or shuffled the same way whatever else is drawn from the seed."""
    ordered = sorted(attempts, key=lambda attempt: attempt.index)
    if seed is not None:
        random.Random(f"{seed}/{problem_id}").shuffle(ordered)
    return ordered


def refused(problem_id: str, launch: Launch) -> Attempt:
    """What a launch gets that no recording serves: an end at once, as of one that the generator lost."""
    return Attempt(
        "", problem_id, 0, launch.pillar, 0, launch.temperature, None, None, (), 0, 0.0, failure="generator_error"
    )
