"""One program in flight, told by messages that the test writes itself: no process, no waiting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mathlete.core.code import CodeLimits
from mathlete.sandbox import program_run
from mathlete.sandbox.program_run import GRACE_S, Job, ProgramRun, ProgramStreams

REPORT = {"exit_code": 0, "reason": None, "elapsed_s": 9.99, "max_rss_bytes": 1 << 20, "keeps": False}


@dataclass
class Bench:
    """A program in flight, the program's end of its stdout, and a clock that stands still."""

    run: ProgramRun
    out: int
    out_w: int
    now_s: float = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    (out, out_w), (err, err_w) = os.pipe(), os.pipe()
    for descriptor in (out, err):
        os.set_blocking(descriptor, False)
    job = Job("a", "", CodeLimits(wall_s=10, output_bytes=5), submitted_s=97.0)
    made = Bench(ProgramRun(job, ProgramStreams(out, err)), out, out_w)
    monkeypatch.setattr(program_run, "time", made)
    made.run.hear({"layers": ["rlimit"]})
    made.run.hear({"started": True})
    yield made
    made.run.release()
    os.close(out_w)
    os.close(err_w)


def test_waiting_is_told_apart_from_running(bench: Bench) -> None:
    bench.now_s += 5
    bench.run.hear(REPORT)
    result = bench.run.result()
    assert (result.status, result.waited_s, result.elapsed_s) == ("ok", 3.0, 9.99)
    assert (result.isolation, result.session_restarted) == (("rlimit",), False)


def test_supervisor_has_a_moment_to_keep_the_clock_before_the_pool_does(bench: Bench) -> None:
    assert bench.run.deadline_s == bench.now_s + 10 + GRACE_S


def test_first_verdict_stands(bench: Bench) -> None:
    assert bench.run.condemn("timeout")
    assert not bench.run.condemn("killed")
    bench.run.hear({**REPORT, "exit_code": -9})
    assert bench.run.result().status == "timeout"


def test_output_is_cut_where_it_exceeds_its_ceiling(bench: Bench) -> None:
    os.write(bench.out_w, b"12345")
    bench.run.read(bench.out)
    assert bench.run.verdict is None
    os.write(bench.out_w, b"6")
    bench.run.hear(REPORT)  # what is left in the stream is read with the result
    result = bench.run.result()
    assert (result.status, result.stdout) == ("output_limit", "12345")


def test_program_whose_supervisor_vanished_is_lost_only_before_its_start(bench: Bench) -> None:
    assert not bench.run.lost
    assert bench.run.result().status == "killed"
    assert bench.run.result().elapsed_s == 0.0
