"""Stop strings over bytes, whatever way tokens cut them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from driving import drive
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.request import RequestEnd
from mathlete.ryanstream.runner import SampledToken
from mathlete.ryanstream.scheduler import SchedulerConfig, StepPlan
from mathlete.ryanstream.stopping import StopMatch, StopMatcher

ALPHABET = "ab`é∑"


def _cut(text: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


def _push_all(stops: list[str], pieces: list[bytes]) -> tuple[StopMatch | None, bytes]:
    """The match, and the text as far as it had been pushed by then."""
    matcher, seen = StopMatcher(stops), b""
    for piece in pieces:
        seen += piece
        match = matcher.push(piece)
        if match is not None:
            return match, seen
    return None, seen


def _first_by_definition(stops: list[str], text: bytes) -> StopMatch | None:
    """The stop whose end comes first; of those that end there, the longest."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop.encode())]
        if ending:
            stop = max(ending, key=lambda s: len(s.encode()))
            return StopMatch(stop, end, end - len(stop.encode()))
    return None


@given(
    st.lists(st.text(ALPHABET, min_size=1, max_size=4), min_size=1, max_size=3, unique=True),
    st.text(ALPHABET, max_size=20),
    st.lists(st.integers(0, 60), max_size=12),
)
def test_the_match_does_not_depend_on_the_cut(stops: list[str], text: str, places: list[int]) -> None:
    expected = _first_by_definition(stops, text.encode())
    match, seen = _push_all(stops, _cut(text.encode(), places))
    assert match == expected
    if match is not None:
        assert seen[match.start : match.end] == match.stop.encode()


@pytest.mark.parametrize("pieces", [[b"x\xe2", b"\x88", b"\x91y"], [b"x\xe2\x88\x91y"], [b"x", b"\xe2\x88", b"\x91y"]])
def test_a_cut_inside_a_character(pieces: list[bytes]) -> None:
    match, _ = _push_all(["∑"], pieces)
    assert match == StopMatch("∑", 4, 1)


def test_a_shorter_stop_inside_a_longer_ends_first_in_one_token_too() -> None:
    for pieces in ([b"abc"], [b"a", b"b", b"c"]):
        assert _push_all(["abc", "b"], pieces)[0] == StopMatch("b", 2, 1)


def test_without_stops_nothing_matches() -> None:
    assert _push_all([], [b"abc"])[0] is None


class SayingRunner:
    """A model that says the given tokens one after the other."""

    def __init__(self, token_ids: list[int]) -> None:
        self.token_ids = token_ids

    def execute(self, plan: StepPlan) -> list[tuple[SampledToken, ...]]:
        return [
            (SampledToken(self.token_ids[len(entry.request.output_ids)], -1.0, 1.0),) if entry.samples else ()
            for entry in plan.entries
        ]


@pytest.mark.parametrize(
    ("sampling", "num_tokens", "end"),
    [
        (SamplingParams(stop=("∑",)), 3, RequestEnd("stop", "∑", 4)),
        (SamplingParams(stop=("∑",), include_stop=False), 3, RequestEnd("stop", "∑", 1)),
        (SamplingParams(stop=("yz",), max_tokens=4), 4, RequestEnd("stop", "yz", 6)),  # the stop, not the length
        (SamplingParams(max_tokens=2), 2, RequestEnd("length")),
        (SamplingParams(stop=("q",), stop_token_ids=(2,)), 3, RequestEnd("stop")),
        (SamplingParams(stop=("q",)), 5, RequestEnd("stop")),  # by the model's own end of text
    ],
)
def test_the_engine_ends_a_request(sampling: SamplingParams, num_tokens: int, end: RequestEnd) -> None:
    token_bytes = [b"x\xe2", b"\x88", b"\x91y", b"z?", b""]
    runner = SayingRunner([0, 1, 2, 3, 4])
    engine = Engine(runner, 4, [4], token_bytes, SchedulerConfig(max_model_len=64))  # type: ignore[arg-type]
    engine.add("a", [3, 0, 1, 2], sampling)  # the prompt holds the stop string; only what is drawn is searched
    output = drive(engine).outputs["a"]
    assert output.request.output_ids == list(range(num_tokens))
    assert output.end == end
