"""The end of problems that no worker can end any more: each gets a selection from the attempts that are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mathlete.compose import build_policy
from mathlete.core.attempt import Attempt, Failure
from mathlete.core.policy import Launch, Launched
from mathlete.core.problem import Problem
from mathlete.core.protocols import TraceSink
from mathlete.core.record import ProblemRecord
from mathlete.run_config import RunConfig
from mathlete.triad.driver import Driver, DriverConfig


class _NoAttempts:
    """An `AttemptSource` of a driver that has no time."""

    num_tokens = 0

    def count(self, problem_id: str | None = None) -> int:
        return 0

    def launched(self, problem_id: str) -> tuple[Launched, ...]:
        return ()

    def num_tokens_of(self, problem_id: str) -> int:
        return 0

    def start(self, problem: Problem, index: int, launch: Launch, pool: Sequence[Attempt]) -> None:
        raise AssertionError("a driver without time launches nothing")

    def step(self) -> None:
        raise AssertionError("a driver without time does not step")

    def take_finished(self) -> list[Attempt]:
        return []

    def end(self, problem_ids: Collection[str], failure: Failure) -> None:
        return None


def finish_here(
    config: RunConfig,
    problems: Sequence[Problem],
    records: Mapping[str, ProblemRecord],
    sink: TraceSink,
    at_s: float,
    *,
    interrupted: bool,
) -> None:
    """Record the end of each problem, as the run's policy has it of what is there.

    Args:
        config: of the run.
        problems: that have not ended.
        records: what is kept of them.
        sink: where the trace is kept.
        at_s: where the run's clock stands.
        interrupted: whether a person ended the run; else its clock ran out.
    """
    driver = Driver(lambda trace: _NoAttempts(), sink, build_policy(config), DriverConfig())
    if interrupted:
        driver.request_stop()
    driver.run(problems, 0.0, records, at_s)
