"""A worker without Ray: what it says of what it does, to a head that may hear it twice."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mathlete.cluster.messages import Beginning, Given, Orders, Report
from mathlete.cluster.worker import Worker, WorkerSpec
from mathlete.core.errors import EngineError, ModelError
from mathlete.core.problem import Problem
from mathlete.core.trace import TraceEvent
from mathlete.run_config import RunConfig

CONFIG = RunConfig("evaluate", None, "m", 60.0, attempts=2, max_in_flight=4, pillars=("reasoning",), max_tokens=200)


def given(number: int) -> Given:
    return Given(number, Problem(f"p{number}", f"What is {number} + {number}?"), None)


def start(loader: str = "scripted_cluster:load") -> Worker:
    return Worker(WorkerSpec(CONFIG, (), loader))


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = start()
    assert made.load().facts["engine"] == "scripted"
    yield made
    made.close()


def test_it_takes_problems_and_says_what_happens(worker: Worker) -> None:
    worker.begin(Beginning(CONFIG, 30.0, 7.0))
    events: list[TraceEvent] = []
    orders, wanted = Orders(), 0
    end_s = time.monotonic() + 30
    while time.monotonic() < end_s:
        report = worker.exchange(orders, 0.2)
        again = worker.exchange(orders, 0.0)  # as when an answer was lost
        assert again.events[: len(report.events)] == report.events and again.first == report.first
        events += again.events
        if again.outcome is not None:
            break
        wanted += again.wants or report.wants
        new = () if report.num_taken >= 3 or not (report.wants or again.wants) else (given(report.num_taken + 1),)
        ends = sum(event.kind == "problem_finished" for event in events)
        orders = Orders(len(events), new, num_to_come=0, no_more=ends == 3)
    assert again.outcome is not None and again.outcome.reason == "complete"
    assert wanted >= 3
    kinds = [event.kind for event in events]
    assert kinds.count("problem_finished") == 3 and kinds.count("attempt_finished") == 6
    assert all(event.at_s >= 7.0 for event in events), "on the run's clock"


def test_it_waits_to_be_asked_again_when_it_has_said_that_it_wants(worker: Worker) -> None:
    worker.begin(Beginning(CONFIG, 30.0, 0.0))
    while not worker.exchange(Orders(), 0.2).wants:
        pass
    start_s = time.monotonic()
    assert worker.exchange(Orders(), 0.3).wants
    assert time.monotonic() - start_s >= 0.3, "no news, no answer"


def test_it_ends_with_what_is_there(worker: Worker) -> None:
    worker.begin(Beginning(CONFIG, 30.0, 0.0))
    while not worker.exchange(Orders(), 0.2).wants:
        pass
    worker.exchange(Orders(given=(given(1),)), 0.0)
    events: list[TraceEvent] = []
    report = worker.exchange(Orders(stop=True), 0.2)
    end_s = time.monotonic() + 30
    while report.outcome is None and time.monotonic() < end_s:
        report = worker.exchange(Orders(stop=True), 0.2)
    events += report.events
    assert report.outcome is not None and report.outcome.reason in ("interrupted", "complete")
    assert [event.problem_id for event in events if event.kind == "problem_finished"] in (["p1"], [])


def test_why_it_cannot_load_is_told() -> None:
    worker = start("scripted_cluster:refuse")
    with pytest.raises(ModelError, match="no model"):
        worker.load()
    worker.close()
    worker = start("scripted_cluster:nobody")
    with pytest.raises(EngineError, match="nobody"):
        worker.load()
    worker.close()


def test_what_goes_wrong_while_it_works_is_told() -> None:
    worker = start("scripted_cluster:break_down")
    worker.load()
    worker.begin(Beginning(CONFIG, 30.0, 0.0))
    while not worker.exchange(Orders(), 0.2).wants:
        pass
    report: Report | None = None
    end_s = time.monotonic() + 30
    while (report is None or report.failure is None) and time.monotonic() < end_s:
        report = worker.exchange(Orders(given=(given(1),)), 0.2)
    assert report is not None and report.failure == "RuntimeError: the bus fell off"
    worker.close()
