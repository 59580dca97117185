"""Problems asked for one by one are worked on together; who gives up is not waited for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError

import pytest

from mathlete.adapters.batching import Batches

PATIENCE_S = 60


class Worker:
    """Doubles numbers, when it may."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go_on = threading.Event()
        self.has_begun = threading.Event()
        self.stopped = threading.Event()

    def work(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.has_begun.set()
        while not (self.may_go_on.wait(0.01) or self.stopped.is_set()):
            pass
        if 13 in items:
            raise ValueError("13 brings bad luck")
        return [2 * item for item in items]


def test_what_is_asked_meanwhile_is_one_batch() -> None:
    worker = Worker()
    batches = Batches(worker.work, worker.stopped.set, gather_s=0.05)
    first = batches.ask(1)
    assert worker.has_begun.wait(PATIENCE_S)
    others = [batches.ask(number) for number in (2, 3, 4)]
    worker.may_go_on.set()
    assert [future.result(PATIENCE_S) for future in (first, *others)] == [2, 4, 6, 8]
    assert worker.batches == [[1], [2, 3, 4]]
    batches.close()


def test_kinds_are_kept_apart() -> None:
    worker = Worker()
    worker.may_go_on.set()
    batches = Batches(worker.work, worker.stopped.set, gather_s=0.3)
    futures = [batches.ask(number, number % 2) for number in (1, 2, 3)]
    assert [future.result(PATIENCE_S) for future in futures] == [2, 4, 6]
    assert worker.batches == [[1, 3], [2]]
    batches.close()


def test_each_who_asked_gets_the_error_and_the_next_batch_goes_on() -> None:
    worker = Worker()
    worker.may_go_on.set()
    batches = Batches(worker.work, worker.stopped.set, gather_s=0.3)
    unlucky = [batches.ask(number) for number in (12, 13)]
    for future in unlucky:
        with pytest.raises(ValueError, match="13 brings bad luck"):
            future.result(PATIENCE_S)
    assert batches.ask(5).result(PATIENCE_S) == 10
    batches.close()


def test_a_batch_is_stopped_when_all_have_left_it() -> None:
    worker = Worker()
    batches = Batches(worker.work, worker.stopped.set, gather_s=0.3)
    one, two = batches.ask(1), batches.ask(2)
    assert worker.has_begun.wait(PATIENCE_S)
    waiting = batches.ask(3)
    batches.give_up(one)
    assert not worker.stopped.is_set()  # somebody still waits for the batch
    batches.give_up(waiting)
    batches.give_up(two)
    assert worker.stopped.wait(PATIENCE_S)
    assert batches.ask(4).result(PATIENCE_S) == 8
    assert worker.batches == [[1, 2], [4]]
    batches.close()


def test_closing_ends_what_is_worked_on_and_forgets_the_rest() -> None:
    worker = Worker()
    batches = Batches(worker.work, worker.stopped.set, gather_s=0.0)
    first = batches.ask(1)
    assert worker.has_begun.wait(PATIENCE_S)
    second = batches.ask(2)
    batches.close()
    batches.close()
    for future in (first, second):
        with pytest.raises(CancelledError):
            future.result(PATIENCE_S)
    assert worker.batches == [[1]]
