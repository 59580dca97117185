"""What the tracker of equations tells of a text, and that it never depends on how the text came in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.proof_sampler.equations import START, EquationState, EquationTracker, contradictions_in
from mathlete.proof_sampler.integer_arithmetic import integer_value

TRACKER = EquationTracker()

FALSE = [
    ("12 \\times 13 = 154.", "12 \\times 13 = 154, but it is 156"),
    ("So $12 \\cdot 13 = 154$ apples.", "156"),
    ("We have \\(2^{10} = 1000\\)", "1024"),
    ("100 - 2 + 3 = 95\n", "101"),
    ("84 / 4 = 20;", "21"),
    ("12,000 + 1{,}000 = 12,000.", "13000"),
    ("-3 + 5 = 3.", "2"),
    ("x = 2 * 3 = 7.", "6"),
    ("2 * 3 = 7 = 7.", "6"),
]

RIGHT_OR_OPEN = [
    "12 * 13 = 156.",
    "12 * 13 = 100 + 56.",
    "12 * 13 = 156.0",
    "12 * 13 = 154 + 2.",
    "12 * 13 = \\frac{312}{2}",
    "12 * 13 = 12^2+12.",
    "12 * 13 = 15x",
    "Then 12 * 13 = 154, 000 or so",
    "Is 12 * 13 = 154? No.",
    "Suppose 2 + 2 = 5. Then",
    "If 2 + 2 = 5, then",
    "Modulo 7, 3 * 5 = 1.",
    "We work in base 6. 5 + 1 = 10.",
    "Then 2 + 2 = 5, a contradiction.",
    "Then 2 + 2 = 5. This is impossible.",
    "12 * 13 = 154. Wait, that is wrong.",
    "half of 10 + 2 = 7.",
    "f(2) + 1 = 4.",
    "n 2 + 3 = 6.",
    "pages 5-10 = 6.",
    "24 / 4 / 2 = 12.",
    "2 hours 20 - 10 = 130.",
    "14, 400 / 80 = 180.",
    "60 * 240 = 14, 400.",
    "7 / 2 = 3.",
    "$13! = 13$ ! + 2.",
    "```\n2 + 2 = 5\n```\n",
    "2 ** 3 = 9.",
    "2^3 XOR 1, 2 + 3 = 1.",
    "Let $a * b = a+b+ab$.\n\nThen $2 * 3 = 11$.",
    "Suppose for contradiction that it holds.\n\nThen $2+2=5$.",
    "A student claims:\n\n$$3+4=8.$$",
    "In $\\mathbb Z_{11}$ all is well.\n\n$6\\cdot2=1$",
]


def final(text: str) -> EquationState:
    return TRACKER.feed(START, text.encode())


@pytest.mark.parametrize(("text", "detail"), FALSE)
def test_tells_of_false_arithmetic(text: str, detail: str) -> None:
    (found,) = TRACKER.finish(final(text)).contradictions

    assert found.kind == "arithmetic"
    assert detail in found.detail
    assert 0 <= found.start < found.end <= len(text.encode()) + 1


@pytest.mark.parametrize("text", RIGHT_OR_OPEN)
def test_tells_of_nothing_else(text: str) -> None:
    assert TRACKER.finish(final(text)).contradictions == ()


def test_a_number_is_only_judged_when_it_is_complete() -> None:
    assert final("12 * 13 = 154").contradictions == ()
    assert len(final("12 * 13 = 154. ").contradictions) == 1
    assert len(TRACKER.finish(final("12 * 13 = 154")).contradictions) == 1


@pytest.mark.parametrize(
    ("text", "num_contradictions"),
    [
        ("So x = 3. Hence x = 5.", 1),
        ("So $x = 3$.\nTherefore, we get \\(x = 5\\).\n", 1),
        ("So x = 3. Hence x = 3.", 0),
        ("So x = 3. Hence y = 5.", 0),
        ("So x = 3.\n\nHence x = 5.", 0),
        ("So x = 3 or x = 5.", 0),
        ("So x = 3. In the other case we get x = 5.", 0),
        ("If y > 0 then x = 3. So x = 5.", 0),
        ("So x = 3. Suppose instead y < 0. Hence x = 5.", 0),
        ("So x = 3, x = 5.", 0),
        ("Let x = 3. Let x = 5.", 0),
        ("Hence 4x = 12. So x = 3.", 0),
        ("So a \\times b = 40. So c \\times b = 25.", 0),
    ],
)
def test_values_that_contradict_each_other(text: str, num_contradictions: int) -> None:
    found = TRACKER.finish(final(text)).contradictions

    assert [contradiction.kind for contradiction in found] == ["value"] * num_contradictions


def test_words_stay_when_the_text_goes_on() -> None:
    text = "So 2 + 2 = 5.\n"

    assert set(contradictions_in(text)) <= set(contradictions_in(text + "\nNext, 3 + 3 = 7.\n"))
    assert len(contradictions_in(text + "\nNext, 3 + 3 = 7.\n")) == 2


PIECES = [
    "12",
    "*",
    " ",
    "13",
    "=",
    "154",
    "156",
    ".",
    ",",
    "\n",
    "so x",
    "hence x",
    " = 5",
    "$",
    "```\n",
    "if",
    "not",
    "é",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)


@given(texts, st.lists(st.integers(min_value=1, max_value=7), min_size=1))
def test_any_way_of_cutting_gives_the_same(text: str, sizes: list[int]) -> None:
    data = text.encode()
    state, position = START, 0
    for size in sizes * (1 + len(data)):
        if position >= len(data):
            break
        state = TRACKER.feed(state, data[position : position + size])
        position += size

    assert state == TRACKER.feed(START, data)
    assert hash(state) == hash(TRACKER.feed(START, data))


@given(st.binary(max_size=300))
def test_any_bytes_are_taken(data: bytes) -> None:
    assert TRACKER.feed(START, data).num_bytes == len(data)


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from("+-*"),
    st.sampled_from([". ", ",\n", "$\n", "\\) ", "\n"]),
)
def test_true_arithmetic_is_never_told(a: int, b: int, operator: str, ending: str) -> None:
    value = {"+": a + b, "-": a - b, "*": a * b}[operator]
    for text in (
        f"So ${a} {operator} {b} = {value}{ending}",
        f"{a}{operator}{b}={value}{ending}",
        f"{a} {operator} {b} = {value:,}{ending}",
    ):
        assert contradictions_in(text) == ()


@given(st.integers(1, 10**4), st.integers(1, 10**4), st.integers(1, 999), st.integers(0, 60))
def test_true_statements_are_never_told_at_any_place(a: int, b: int, split: int, cut: int) -> None:
    """Whatever comes later: a prefix of a true statement is never told of, at any cut of its bytes."""
    product = a * b
    for tail in (
        f"{product - split} + {split}.",
        f"{product}.0.",
        f"{2 * product} / 2.",
        f"\\frac{{{2 * product}}}{{2}}.",
    ):
        text = f"So {a} \\times {b} = {tail} And on."
        assert TRACKER.feed(START, text.encode()[:cut]).contradictions == ()
        assert final(text).contradictions == ()


def test_long_texts_take_linear_time() -> None:
    state = START
    for piece in ("1+" * 50_000, "= " * 50_000, "(" * 100_000, ". " * 20_000, "so x = 3 " * 5_000):
        state = TRACKER.feed(state, piece.encode())
    assert len(state.pending) <= 2_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("2^{10}", 1024),
        ("-2+3", 1),
        ("-2^2", None),
        ("7/2", None),
        ("84 \\div 4", 21),
        ("8/4/2", None),
        ("2^3^2", None),
        ("9^9^9", None),
        ("2^1000", None),
        ("1/0", None),
        ("(" * 50 + "1" + ")" * 50, None),
        ("9" * 40, None),
        ("2x", None),
        ("", None),
        ("3 4", None),
        ("٣+1", None),
    ],
)
def test_integer_values(text: str, value: int | None) -> None:
    assert integer_value(text) == value
