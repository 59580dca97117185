"""Decoding an event fast gives what decoding it by the standard library gives."""

from __future__ import annotations

import math
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.lab.event_payload import decode_payload, decode_payload_slowly, encode_payload
from recorded_runs import run_events

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def same(first: Any, second: Any) -> bool:
    """Equal and of the same types, NaN included."""
    return repr(first) == repr(second)


@pytest.mark.parametrize("event", run_events(), ids=lambda event: event.kind)
def test_events_of_a_run(event: Any) -> None:
    payload = encode_payload(event.data)
    assert decode_payload(event.kind, payload) == decode_payload_slowly(payload) == event.data
    assert isinstance(payload, bytes) == (event.kind == "turn_finished")


@given(st.sampled_from(["num_tokens", "num_discarded"]), st.integers(), st.floats(), st.text())
def test_turns(name: str, whole: int, number: float, text: str) -> None:
    data = {"turn": {"text": text, name: whole, "logprobs": [number, 0.1], "result": {"elapsed_s": number}}}
    payload = encode_payload(data)
    assert same(decode_payload("turn_finished", payload), data)
    assert same(decode_payload("turn_finished", payload), decode_payload_slowly(payload))


@given(st.sampled_from(["index", "seed", "num_tokens", "num_discarded", "round"]), st.integers(), st.floats())
def test_attempts(name: str, whole: int, number: float) -> None:
    data = {"attempt": {name: whole, "features": {"a": number}, "answer": "1\ud800"}}
    assert same(decode_payload("attempt_finished", encode_payload(data)), data)
    started = {"seed": whole, "temperature": number}
    assert same(decode_payload("attempt_started", encode_payload(started)), started)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_other_kinds(data: dict[str, Any]) -> None:
    assert same(decode_payload("decision", encode_payload(data)), data)


@pytest.mark.parametrize("whole", [2**63 - 1, -(2**63), 2**64, -(2**63) - 1, 10**300])
def test_whole_numbers_stay_whole(whole: int) -> None:
    data = {"attempt": {"seed": whole}}
    assert same(decode_payload("attempt_finished", encode_payload(data)), data)


def test_numbers_that_are_not_finite() -> None:
    data = {"turn": {"logprobs": [math.nan, math.inf, -math.inf]}}
    assert same(decode_payload("turn_finished", encode_payload(data)), data)


@pytest.mark.parametrize("kind", ["turn_finished", "decision"])
def test_what_is_broken(kind: str) -> None:
    payload = encode_payload({"turn": {"text": "x" * 5_000}})
    assert isinstance(payload, bytes)
    for broken in ('{"turn": ', "", payload[:-3], payload[:10] + b"\x00" * 4 + payload[14:], zlib.compress(b"\xff{")):
        with pytest.raises((ValueError, zlib.error)):
            decode_payload(kind, broken)
