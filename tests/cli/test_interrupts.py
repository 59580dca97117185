"""Signals that ask for an end, in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from mathlete.session.interrupts import Interrupts


@pytest.fixture(autouse=True)
def handlers_are_given_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def send(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_with_nothing_to_end_in_order_the_first_one_stops() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():
        send(signal.SIGTERM)


def test_once_asks_and_twice_stops() -> None:
    asked: list[str] = []
    with Interrupts() as interrupts:
        interrupts.stop = lambda: asked.append("stop")
        assert not interrupts.requested
        send(signal.SIGINT)
        assert interrupts.requested and asked == ["stop"]
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
    assert asked == ["stop"]


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            send(signal.SIGHUP)
            assert not interrupts.requested
    finally:
        signal.signal(signal.SIGHUP, before)
