"""The pipeline that scored 2/50 (SPEC part H), kept so that a table can show what each of its cures buys.

A pillar, a selector and a policy, all under `Faults`: with all of them they do what that pipeline did, as far as its
post-mortem tells; with none, a plain vote over all attempts. Where the post-mortem only names a fault, what stands here
is our reading of it. Pure; never a default of anything.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from mathlete.cic.majority import Tally, fallback_selection, tally
from mathlete.cic.value_clusters import value_clusters
from mathlete.contest.policy import ALL_FINISHED, OUT_OF_TIME
from mathlete.core.attempt import Attempt
from mathlete.core.policy import Action, Launch, PoolState, Stop, Wait
from mathlete.core.problem import Problem
from mathlete.core.selection import AnswerCluster, Selection
from mathlete.triad.prometheus_answers import Faults, as_read, program_ran
from mathlete.triad.solution_attempt import CODE, PillarSpec

CHECK_PILLAR = "sympy_check"


def pillar_of(faults: Faults) -> PillarSpec:
    """How attempts are made: three faults lie in what they are told, and when they are over."""
    cures = [
        name
        for name, is_cured in (
            ("reasoning", not faults.no_reasoning),
            ("turns", not faults.one_pass),
            ("neutral", not faults.told_wrong),
        )
        if is_cured
    ]
    return PillarSpec(
        "+".join(["prometheus", *cures]),
        runs_programs=True,
        stops=CODE.stops,
        one_pass=faults.one_pass,
        prompts="prometheus" if faults.no_reasoning else CODE.name,
        round2_prompt="prometheus" if faults.no_reasoning else "prometheus_reasoned",
    )


PROMETHEUS_PILLARS = tuple(
    pillar_of(Faults(no_reasoning=straight, one_pass=single, told_wrong=told))
    for straight, single, told in itertools.product((True, False), repeat=3)
)


def why_enough(attempts: Sequence[Attempt], faults: Faults) -> str | None:
    """Why the old pipeline would look no further, given attempts `as_read` in order of ending; None while it would."""
    solutions = [attempt for attempt in attempts if not attempt.is_check]
    if faults.one_sample_shortcut and solutions and solutions[0].answer is not None and program_ran(solutions[0]):
        return "the first program printed a number"
    if faults.half_of_two and sum(attempt.answer is not None for attempt in solutions) >= 2:
        return "half of two answers agree"
    return None


@dataclass(frozen=True, slots=True)
class PrometheusSelector:
    """Chooses as the old pipeline did, fault by fault. Pure.

    Attributes:
        faults: which of them.
        name: of the rule.
    """

    faults: Faults = field(default_factory=Faults)
    name: str = "prometheus"

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """The answer of the attempts that the old pipeline would have looked at. With none, a fallback."""
        read = [as_read(attempt, problem.answer_kind, self.faults) for attempt in attempts]
        looked_at = next(
            (read[:n] for n in range(1, len(read) + 1) if why_enough(read[:n], self.faults) is not None), read
        )
        pool = [attempt for attempt in looked_at if attempt.answer is not None and not attempt.is_check]
        if not pool:
            return fallback_selection(problem, f"None of {len(attempts)} attempts had an answer.")
        ran = [attempt for attempt in pool if program_ran(attempt)]
        if self.faults.ran_is_verified and ran:
            pool = ran
        if not self.faults.no_symbolic_check:
            pool = _unrefuted(pool, attempts)
        tallies = sorted(tally(pool), key=self._order)
        answer = _median_of_basin(pool) if self.faults.basin_median else tallies[0].answer
        return Selection(
            answer=str(min(max(int(answer), problem.answer_kind.low), problem.answer_kind.high)),
            rule=self.name,
            confidence=tallies[0].votes / len(pool),
            clusters=tuple(AnswerCluster(item.answer, float(item.votes), item.attempt_ids) for item in tallies),
            terms={"votes": float(tallies[0].votes), "num_answers": float(len(pool))},
            reasons=(why_enough(looked_at, self.faults) or "every attempt was looked at",),
            accepted=bool(ran) if self.faults.ran_is_verified else None,
        )

    def _order(self, item: Tally) -> tuple[float, ...]:
        """Most votes first; ties by the digits' sum, or by certainty as in a plain vote."""
        return (-item.votes, -digit_root(item.answer)) if self.faults.numerology else (-item.votes, -item.certainty)


@dataclass(frozen=True, slots=True)
class PrometheusPolicy:
    """Works as the old pipeline did, fault by fault.

    Attributes:
        faults: which of them.
        attempts: attempts at most.
        temperature: of sampling.
        time_part: of the time that is left for the run, which a problem takes with the fault `time_decay`: of fifty
            problems the first then gets three times the mean, and the last a twentieth of what the first got.
    """

    faults: Faults = field(default_factory=Faults)
    attempts: int = 8
    temperature: float = 0.8
    time_part: float = 0.06

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.attempts < 1:
            raise ValueError(f"attempts must be >= 1, not {self.attempts}")
        if not 0 < self.time_part <= 1:
            raise ValueError(f"time_part must be in (0, 1], not {self.time_part}")

    def decide(self, state: PoolState) -> Action:
        """Launch one attempt, then two, then the rest, and stop as soon as a fault says that it is enough."""
        read = [as_read(attempt, state.problem.answer_kind, self.faults) for attempt in state.attempts]
        solutions = [attempt for attempt in read if not attempt.is_check]
        if state.remaining_s <= 0:
            return self._stop(state, OUT_OF_TIME)
        if self._is_late(state):
            return self._stop(state, "its part of the time is spent")
        reason = why_enough(read, self.faults)
        if reason is not None:
            return self._stop(state, reason)
        if state.num_in_flight:
            return Wait()
        if len(solutions) < self.attempts:
            return self._launch(solutions)
        if not self.faults.no_symbolic_check and len(solutions) == len(read):
            leaders = tuple(item.answer for item in tally(solutions)[:2])
            if leaders:
                return Launch(1, CHECK_PILLAR, self.temperature, leaders)
        return self._stop(state, ALL_FINISHED)

    def _launch(self, solutions: Sequence[Attempt]) -> Launch:
        num, half, leaders = self.attempts - len(solutions), (self.attempts + 1) // 2, tally(solutions)
        pillar = pillar_of(self.faults).name
        about: tuple[str, ...] = ()
        if self.faults.told_wrong and len(solutions) < half:
            num = half - len(solutions)
        elif self.faults.told_wrong and leaders:
            about = (leaders[0].answer,)
        if self.faults.half_of_two:
            num = min(num, max(1, 2 - sum(attempt.answer is not None for attempt in solutions)))
        if self.faults.one_sample_shortcut and not solutions:
            num = 1
        return Launch(num, pillar, self.temperature, about, 2 if about else 1)

    def _is_late(self, state: PoolState) -> bool:
        """Whether the problem has had its fixed part of the time that was left when it was opened."""
        if not self.faults.time_decay or state.outlook is None:
            return False
        return state.elapsed_s >= self.time_part * (state.outlook.remaining_s + state.elapsed_s)

    def _stop(self, state: PoolState, reason: str) -> Stop:
        return Stop(PrometheusSelector(self.faults).select(state.problem, state.attempts), reason)


def digit_root(answer: str) -> int:
    """The digits' sum, its digits' sum and so on, from 1 to 9 (0 for 0). It says nothing of an answer."""
    return 0 if int(answer) == 0 else 1 + (abs(int(answer)) - 1) % 9


def _median_of_basin(pool: Sequence[Attempt]) -> str:
    """Of the best cluster of near values (SPEC part B), rounded down: it need not be anybody's answer."""
    best = value_clusters([attempt.answer or "" for attempt in pool])[0]
    return str(int(statistics.median(best.values)))


def _unrefuted(pool: list[Attempt], attempts: Sequence[Attempt]) -> list[Attempt]:
    """Without answers that a check refutes and none supports, unless nothing were left."""
    evidence = [item for attempt in attempts for item in attempt.evidence]
    supported = {item.answer for item in evidence if item.verdict in ("SUPPORTED", "PROVED")}
    refuted = {item.answer for item in evidence if item.verdict == "REFUTED"} - supported
    return [attempt for attempt in pool if attempt.answer not in refuted] or pool
