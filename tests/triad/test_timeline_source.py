"""Attempts at their recorded moments: told of together and in order, cut off as they were, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from scripted_run import ListSink

from mathlete.core.attempt import Attempt
from mathlete.core.policy import Launch, Launched
from mathlete.core.problem import Problem
from mathlete.triad.playback import SimulatedClock
from mathlete.triad.run_trace import RunTrace
from mathlete.triad.timeline_source import TimedAttempt, TimelineSource

P = Problem("p", "How many?")
CODE = Launch(1, "code", 0.8)


def attempt(index: int, **fields: Any) -> Attempt:
    return replace(Attempt(f"p#{index}", "p", index, "code", 0, 0.8, "7", "boxed", (), 100, 10.0), **fields)


class World:
    """A source and what it needs."""

    def __init__(self, *timed: TimedAttempt, wake_s: float = math.inf) -> None:
        self.clock, self.sink = SimulatedClock(), ListSink()
        trace = RunTrace(self.sink, self.clock, 0.0)
        timeline = {item.attempt.id: item for item in timed}
        self.source = TimelineSource(trace, self.clock, timeline, lambda: wake_s, max_step_s=4.0)

    def start(self, *indices: int, launch: Launch = CODE) -> None:
        for index in indices:
            self.source.start(P, index, launch, ())

    def ends(self) -> list[tuple[str, str | None, str | None]]:
        return [(item.id, item.answer, item.failure) for item in self.source.take_finished()]


def test_what_was_told_of_in_one_step_is_told_of_in_one_and_in_order() -> None:
    world = World(TimedAttempt(attempt(0), 3.0, place=1), TimedAttempt(attempt(1), 3.0, place=0))
    world.start(0, 1)
    assert world.source.count() == world.source.count("p") == 2
    world.source.step()
    assert world.clock() == 3.0 and world.ends() == [("p#1", "7", None), ("p#0", "7", None)]
    assert world.source.count() == 0 and world.source.num_tokens == 200


def test_steps_end_at_the_longest_step_the_wake_and_the_next_end() -> None:
    world = World(TimedAttempt(attempt(0), 5.0), wake_s=4.5)
    world.start(0)
    times = []
    for _ in range(4):
        world.source.step()
        times.append(world.clock())
    assert times == [4.0, 4.5, 5.0, 9.0] and world.ends() == [("p#0", "7", None)]


def test_tokens_come_evenly() -> None:
    world = World(TimedAttempt(attempt(0), 10.0))
    world.start(0)
    world.source.step()
    assert world.source.num_tokens_of("p") == world.source.num_tokens == 40
    assert world.source.launched("p") == (Launched("code", 1),)


@pytest.mark.parametrize(("failure", "kept"), [("interrupted", ("p#0", "7", "interrupted")), ("stopped", None)])
def test_an_attempt_that_was_cut_off_ends_when_it_is_cut_off_again(failure: Any, kept: Any) -> None:
    world = World(TimedAttempt(attempt(0, failure="interrupted")))
    world.start(0)
    world.source.step()
    world.source.step()
    assert world.ends() == []
    world.source.end(["q"], failure)
    assert world.source.count() == 1
    world.source.end(["p"], failure)
    assert world.ends() == [kept or ("p#0", None, "stopped")]
    assert world.source.num_tokens == (100 if kept else 80)


def test_a_refused_prompt_is_over_at_once() -> None:
    world = World(TimedAttempt(attempt(0, answer=None, failure="generator_error", num_tokens=0), at_once=True))
    world.start(0)
    assert world.ends() == [("p#0", None, "generator_error")] and world.clock() == 0.0


@pytest.mark.parametrize(
    ("index", "launch"), [(1, CODE), (0, Launch(1, "reasoning", 0.8)), (0, replace(CODE, round=2, about=("7",)))]
)
def test_what_was_not_launched_then_is_refused(index: int, launch: Launch) -> None:
    world = World(TimedAttempt(attempt(0), 5.0))
    world.start(index, launch=launch)
    assert world.ends() == [(f"p#{index}", None, "generator_error")] and world.source.num_tokens == 0
    (warning,) = [event.data["message"] for event in world.sink.events if event.kind == "warning"]
    assert warning == f"p#{index}: no attempt {launch.pillar!r} of round {launch.round} was begun then"
