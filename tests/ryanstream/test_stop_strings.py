"""Stop strings over bytes, whatever way tokens cut them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert _push_all(["abc", "b"], [b"abc"])[0] == _push_all(["abc", "b"], [b"a", b"b", b"c"])[0] == StopMatch("b", 2, 1)


def test_without_stops_nothing_matches() -> None:
    assert _push_all([], [b"abc"])[0] is None
