"""Attempts that go back, from the driver down: each time is in the trace, and every token counts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from scripted_run import FakeClock, FakeRunner, ListSink, printed, started

from mathlete.contest.policy import FixedPolicy
from mathlete.core.code import CodeLimits
from mathlete.core.generation import GenerateRequest, TokenConstraint
from mathlete.core.problem import Problem
from mathlete.core.protocols import StepChecked
from mathlete.core.record import fold_run
from mathlete.core.seeds import derive_seed
from mathlete.core.selection import Evidence
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import ScriptedGenerator
from mathlete.proof_sampler.backtracking import BacktrackingConfig, BacktrackingGenerator
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.driver import Driver, DriverConfig
from mathlete.triad.in_flight import live_source
from mathlete.triad.making import AttemptMaker
from mathlete.triad.progress import RunProgress

PROBLEM = Problem("p", "How many?")


class RefutesFive:
    """Refutes "= 5" at the next poll."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, str]] = []

    def submit(self, check_id: str, text: str, context: str = "") -> None:
        self.waiting.append((check_id, text))

    def poll(self) -> Sequence[StepChecked]:
        waiting, self.waiting = self.waiting, []
        return [
            StepChecked(check_id, (Evidence("scripted", "2 + 2 = 5", "REFUTED"),) if "= 5" in text else ())
            for check_id, text in waiting
        ]

    def cancel(self, check_id: str) -> None:
        self.waiting = [item for item in self.waiting if item[0] != check_id]

    def close(self) -> None:
        self.waiting.clear()


def script(request: GenerateRequest) -> str:
    """Errs with the attempt's own noise in its second turn, and not with any other."""
    if not request.continuation:
        return "We run it:\n```python\nprint(4)\n```\n"
    wrong = request.sampling.seed == derive_seed(7, "p", int(request.request_id.split("#")[1][0]), 1)
    return f"We see that 2 + 2 = {5 if wrong else 4} holds.\n\nSo it is \\boxed{{{5 if wrong else 4}}} as we have seen."


def run(stop_at: int | None = None, before: Sequence[TraceEvent] = ()) -> tuple[list[TraceEvent], list[RunProgress]]:
    clock = FakeClock()
    generator = BacktrackingGenerator(
        ScriptedGenerator(script, clock, clock.sleep), RefutesFive(), BacktrackingConfig(), None, clock, clock.sleep
    )
    sink = ListSink(list(before) or [started([PROBLEM])])
    seen: list[RunProgress] = []

    def note(progress: RunProgress) -> None:
        seen.append(progress)
        if len(seen) == stop_at:
            driver.request_stop()

    runner, maker = FakeRunner(clock, lambda code: printed("four")), AttemptMaker(7, AttemptConfig(max_tokens=300))
    source = live_source(generator, runner, maker, CodeLimits(), clock.sleep)
    driver = Driver(source, sink, FixedPolicy(attempts=2), DriverConfig(2, 8), on_progress=note, clock=clock)
    earlier = fold_run(sink.events)
    outcome = driver.run([PROBLEM], 100.0, earlier.problems if before else {}, earlier.elapsed_s)
    new = fold_run(sink.events).problems["p"].attempts[len(earlier.problems["p"].attempts) :]
    assert outcome.stats["num_tokens"] == sum(attempt.num_tokens for attempt in new) == seen[-1].num_tokens
    generator.close()
    return sink.events, seen


def test_going_back_is_in_the_trace_and_counts() -> None:
    events, seen = run()
    record = fold_run(events).problems["p"]
    assert [attempt.answer for attempt in record.attempts] == ["4", "4"]
    for attempt in record.attempts:
        (back,) = record.rewindings[attempt.id]
        assert (back.turn, back.reason, back.detail) == (1, "refuted", "2 + 2 = 5") and "2 + 2 = 5 holds" in back.text
        assert attempt.num_discarded == back.num_dropped == attempt.turns[1].num_discarded > 0
        assert attempt.turns[1].num_tokens == len(attempt.turns[1].logprobs) + back.num_dropped
        assert attempt.num_tokens == sum(turn.num_tokens for turn in attempt.turns)
    counts = [row.problems[0].num_tokens for row in seen]
    assert counts == sorted(counts), "what was thrown away was paid for: no count goes down"


@pytest.mark.parametrize("stop_at", [4, 8, 14, 18, 20])
def test_it_can_be_stopped_and_resumed(stop_at: int) -> None:
    events, _ = run(stop_at)
    record = fold_run(run(before=events)[0]).problems["p"]
    whole = [attempt for attempt in record.attempts if attempt.failure is None]
    assert [attempt.answer for attempt in whole] == ["4", "4"]
    assert all(len(record.rewindings[attempt.id]) == 1 for attempt in whole)


def test_one_that_is_made_again_has_its_own_rewindings_only() -> None:
    events, _ = run()
    crashed = events[: next(i for i, event in enumerate(events) if event.kind == "rewound") + 1]
    record = fold_run(run(before=crashed)[0]).problems["p"]
    assert [len(record.rewindings[attempt.id]) for attempt in record.attempts] == [1, 1]


def test_each_turn_gets_a_constraint_that_has_read_what_stands() -> None:
    asked: list[tuple[str, str]] = []

    class Everything:
        """Lets everything through."""

    def constraints(problem: Problem, text: str) -> TokenConstraint:
        asked.append((problem.id, text))
        return Everything()  # type: ignore[return-value]

    clock = FakeClock()
    generator = ScriptedGenerator(script, clock, clock.sleep)
    runner, sink = FakeRunner(clock, lambda code: printed("four")), ListSink([started([PROBLEM])])
    maker = AttemptMaker(7, AttemptConfig(max_tokens=300), constraints=constraints)
    source = live_source(generator, runner, maker, CodeLimits(), clock.sleep)
    driver = Driver(source, sink, FixedPolicy(attempts=1), DriverConfig(1, 8), clock=clock)
    driver.run([PROBLEM], 100.0, {}, 0.0)
    first = "We run it:\n```python\nprint(4)\n```\n"
    assert asked == [("p", ""), ("p", f"{first}```output\nfour\n```\n")]
    assert all(isinstance(request.constraint, Everything) for request in generator.requests)
    assert len({id(request.constraint) for request in generator.requests}) == 2
