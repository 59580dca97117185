"""Compression distance: bounds, symmetry, what it can tell apart, and its bias on short strings."""

from __future__ import annotations

import random
import statistics

import pytest
from cic_pools import attempt
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.ncd import MAX_TRACE_BYTES, _ordered_ncd, cohesion, compressed_length, ncd, trace_of
from mathlete.core.attempt import Attempt, Turn

texts = st.binary(max_size=200)
WORDS = "let so then hence angle prime integer sum product divides equals therefore circle triangle root".split()


def prose(noise: random.Random, num_words: int) -> bytes:
    return " ".join(f"{noise.choice(WORDS)} {noise.randrange(1000)}" for _ in range(num_words)).encode()


@given(texts, texts)
def test_distances_are_bounded_and_symmetric(x: bytes, y: bytes) -> None:
    assert 0 <= ncd(x, y) <= 1
    assert ncd(x, y) == ncd(y, x)


def test_the_formula() -> None:
    x, y = prose(random.Random(1), 50), prose(random.Random(2), 80)
    first, second = sorted((x, y))
    cx, cy, cxy = compressed_length(x), compressed_length(y), compressed_length(first + second)
    assert ncd(x, y) == (cxy - min(cx, cy)) / max(cx, cy)
    assert compressed_length(b"") == 0


def test_equal_texts_are_near_and_unrelated_ones_far() -> None:
    noise = random.Random(0)
    x, y = prose(noise, 300), prose(noise, 300)
    edited = x.replace(b"angle", b"corner", 3)
    assert ncd(x, x) < 0.05
    assert ncd(x, x) < ncd(x, edited) < 0.3 < 0.6 < ncd(x, y)


def test_nothing_is_equal_to_nothing_and_far_from_something() -> None:
    assert ncd(b"", b"") == 0
    assert ncd(b"", b"So the answer is 3.") == 1


@pytest.mark.parametrize("num_digits", [1, 2, 5, 16, 64, 256])
def test_pitfall_short_strings_do_not_all_look_alike(num_digits: int) -> None:
    """With whole .xz files the mean of such pairs is 0.00 to 0.52; see the table of the module."""
    noise = random.Random(num_digits)
    numbers = ["".join(noise.choice("0123456789") for _ in range(num_digits)).encode() for _ in range(40)]
    pairs = [(x, y) for x, y in zip(numbers[::2], numbers[1::2], strict=True) if x != y]
    assert statistics.fmean(ncd(x, y) for x, y in pairs) > 0.75


def test_cohesion_is_one_less_the_mean_distance() -> None:
    x, y, z = (prose(random.Random(seed), 60) for seed in range(3))
    assert cohesion([x, y, z]) == pytest.approx(1 - (ncd(x, y) + ncd(x, z) + ncd(y, z)) / 3)
    assert cohesion([x, x]) == pytest.approx(1 - ncd(x, x))


def test_cohesion_needs_two_texts() -> None:
    assert cohesion([]) is None
    assert cohesion([b"one"]) is None
    assert cohesion([b"one", b"", b""]) is None
    assert cohesion([b"one", b"", b"one"]) is not None


@given(st.lists(texts, max_size=6), st.randoms(use_true_random=False))
def test_cohesion_is_bounded_and_knows_no_order(traces: list[bytes], noise: random.Random) -> None:
    phi = cohesion(traces)
    assert phi is None or 0 <= phi <= 1
    assert cohesion(noise.sample(traces, len(traces))) == phi


def test_one_more_trace_costs_only_its_own_pairs() -> None:
    noise = random.Random(5)
    traces = [prose(noise, 40) for _ in range(9)]
    cohesion(traces[:8])
    before = _ordered_ncd.cache_info().misses
    cohesion(traces)
    assert _ordered_ncd.cache_info().misses - before == 8
    cohesion(traces)
    assert _ordered_ncd.cache_info().misses - before == 8


def test_a_trace_is_the_end_of_what_the_model_wrote() -> None:
    assert trace_of(attempt(0, "1")) == b""
    long = attempt(0, "1", text="x" * 10_000 + "the end")
    assert len(trace_of(long)) == MAX_TRACE_BYTES and trace_of(long).endswith(b"the end")
    wide = attempt(0, "1", text="é" * 10_000)
    assert len(trace_of(wide)) == MAX_TRACE_BYTES
    assert trace_of(attempt(0, "1", text="lone \ud800 surrogate")) == b"lone ? surrogate"
    turns = (Turn("one", code="print(1)", tool_text="```output\n1\n```"), Turn("two"))
    assert trace_of(Attempt("p#0", "p", 0, "code", 1, 0.8, "1", None, turns, 1, 1.0)) == b"one\ntwo"
