"""Proofs checked by threads: nothing waits, nothing is lost, and nothing stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from mathlete.core.protocols import StepChecked
from mathlete.core.selection import Evidence
from mathlete.verify.lean.background import LeanInBackground


@dataclass
class Blocking:
    """A checker that waits, for a proof that says so, until it is closed."""

    released: threading.Event = field(default_factory=threading.Event)
    begun: list[str] = field(default_factory=list)
    num_closed: int = 0

    def check(self, statement: str, proof: str) -> Evidence:
        self.begun.append(proof)
        if proof == "wait":
            assert self.released.wait(20)
        if proof == "fail":
            raise RuntimeError("a fault of ours")
        return Evidence("lean", statement, "PROVED", detail=proof)

    def close(self) -> None:
        self.num_closed += 1
        self.released.set()


@pytest.fixture
def blocking() -> Blocking:
    return Blocking()


Start = Callable[..., LeanInBackground]


@pytest.fixture
def start(blocking: Blocking) -> Iterator[Start]:
    opened: list[LeanInBackground] = []

    def begin(num_threads: int = 1) -> LeanInBackground:
        opened.append(LeanInBackground(blocking, num_threads))
        return opened[-1]

    yield begin
    for checker in opened:
        checker.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "lean-check"]


def polled(checker: LeanInBackground, num: int) -> list[StepChecked]:
    found: list[StepChecked] = []
    until_s = time.monotonic() + 20
    while len(found) < num:
        assert time.monotonic() < until_s
        found += checker.poll()
        time.sleep(0.002)
    return found


def begun(blocking: Blocking, num: int) -> None:
    until_s = time.monotonic() + 20
    while len(blocking.begun) < num:
        assert time.monotonic() < until_s
        time.sleep(0.002)


def test_proofs_are_checked_in_their_order(start: Start) -> None:
    checker = start()
    for name in "abc":
        checker.submit(name, f"statement {name}", f"proof {name}")
    found = polled(checker, 3)
    assert [item.check_id for item in found] == ["a", "b", "c"]
    assert [item.evidence[0].detail for item in found] == ["proof a", "proof b", "proof c"]
    assert list(checker.poll()) == []
    checker.submit("a", "again", "proof")
    assert polled(checker, 1)[0].evidence[0].claim == "again"


def test_nothing_waits_and_others_go_on_beside(start: Start, blocking: Blocking) -> None:
    checker = start(2)
    checker.submit("slow", "", "wait")
    began_s = time.monotonic()
    checker.submit("quick", "", "proof")
    assert [item.check_id for item in polled(checker, 1)] == ["quick"]
    assert time.monotonic() - began_s < 5
    blocking.released.set()
    assert [item.check_id for item in polled(checker, 1)] == ["slow"]


def test_what_is_cancelled_is_not_heard_of(start: Start, blocking: Blocking) -> None:
    checker = start()
    checker.submit("running", "", "wait")
    checker.submit("waiting", "", "never")
    checker.submit("kept", "", "proof")
    begun(blocking, 1)
    checker.cancel("running")
    checker.cancel("waiting")
    checker.cancel("unknown")
    checker.submit("running", "the second", "proof")  # the name may be used again
    blocking.released.set()
    found = polled(checker, 2)
    assert [(item.check_id, item.evidence[0].claim) for item in found] == [("kept", ""), ("running", "the second")]
    assert blocking.begun == ["wait", "proof", "proof"]


def test_a_fault_of_ours_is_raised_where_it_is_heard(start: Start) -> None:
    checker = start()
    checker.submit("a", "", "fail")
    with pytest.raises(RuntimeError, match="a fault of ours"):
        polled(checker, 1)


def test_closing_ends_what_runs_and_takes_nothing_more(start: Start, blocking: Blocking) -> None:
    checker = start()
    checker.submit("running", "", "wait")
    checker.submit("waiting", "", "never")
    begun(blocking, 1)
    checker.close()
    checker.close()
    assert blocking.num_closed == 1 and blocking.begun == ["wait"]
    assert list(checker.poll()) == []
    with pytest.raises(ValueError, match="after close"):
        checker.submit("b", "", "proof")


def test_closing_does_not_wait_for_one_that_does_not_end(blocking: Blocking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mathlete.verify.lean.background._CLOSING_S", 0.1)
    monkeypatch.setattr(blocking, "close", lambda: None)
    checker = LeanInBackground(blocking)
    checker.submit("a", "", "wait")
    begun(blocking, 1)
    began_s = time.monotonic()
    checker.close()
    assert time.monotonic() - began_s < 5
    blocking.released.set()


def test_wrong_use_is_refused(start: Start, blocking: Blocking) -> None:
    with pytest.raises(ValueError, match="num_threads"):
        LeanInBackground(blocking, 0)
    checker = start()
    checker.submit("a", "", "wait")
    with pytest.raises(ValueError, match="in use"):
        checker.submit("a", "", "proof")
