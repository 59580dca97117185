"""The clock of one program, with pipes that the test writes itself: no process, no waiting."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mathlete.core.code import CodeLimits
from mathlete.sandbox import program_run
from mathlete.sandbox.launch import ProgramPipes
from mathlete.sandbox.program_run import Job, ProgramRun

REPORT = {"wait_status": 0, "elapsed_s": 9.99, "cpu_s": 9.9, "max_rss_bytes": 1 << 20, "too_many_threads": False}


@dataclass
class Bench:
    """A program in flight, the supervisor's end of its status pipe, and a clock that stands still."""

    run: ProgramRun
    status: int
    status_w: int
    now_s: float = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def say(self, message: dict[str, Any]) -> None:
        """As the supervisor, and let the pool hear it."""
        os.write(self.status_w, json.dumps(message).encode() + b"\n")
        self.run.read(self.status)

    def hang_up(self) -> None:
        os.close(self.status_w)
        self.status_w = -1
        self.run.read(self.status)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    (out, out_w), (err, err_w), (status, status_w), (control_r, control) = (os.pipe() for _ in range(4))
    for descriptor in (out, err, status):
        os.set_blocking(descriptor, False)
    run = ProgramRun(Job("a", "", CodeLimits(wall_s=10)), ProgramPipes(out, err, status, control), "", 1)
    made = Bench(run, status, status_w)
    monkeypatch.setattr(program_run, "time", made)
    made.say({"layers": ["rlimit"]})
    yield made
    run.release()
    for descriptor in {out_w, err_w, control_r, made.status_w} - {-1}:
        os.close(descriptor)


def test_program_that_runs_past_its_time_is_ended(bench: Bench) -> None:
    bench.now_s += 9.99
    assert not bench.run.overdue
    bench.now_s += 0.01
    assert bench.run.overdue
    bench.run.enforce_clock()
    bench.say(REPORT)
    bench.hang_up()
    assert bench.run.result().status == "timeout"


def test_program_that_ended_in_time_is_not_overdue(bench: Bench) -> None:
    bench.say(REPORT)
    bench.hang_up()
    bench.now_s += 10
    assert not bench.run.overdue
    assert bench.run.result().status == "ok"


def test_program_that_is_reported_in_time_did_not_run_out_of_it(bench: Bench) -> None:
    bench.say(REPORT)  # the end of the pipe has not been read yet
    bench.now_s += 10
    bench.run.enforce_clock()
    assert bench.run.ended
    assert bench.run.result().status == "ok"
