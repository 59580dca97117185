from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.core.problem import AnswerKind
from mathlete.proof_sampler.answer_format import AnswerFormat, AnswerState
from mathlete.verify.integers import parse_integer

ALPHABET = b"0123456789 ,{}\\!-"
INTERVALS = st.tuples(st.integers(-1200, 1200), st.integers(0, 120_000)).map(lambda pair: (pair[0], sum(pair)))


def follow(form: AnswerFormat, text: str) -> AnswerState | None:
    state: AnswerState | None = form.start
    for byte in text.encode():
        if state is None:
            return None
        state = form.step(state, byte)
    return state


def is_right(form: AnswerFormat, text: str) -> bool:
    state = follow(form, text)
    return state is not None and form.may_close(state)


@pytest.mark.parametrize(
    "text", ["5", "0", "99999", " 42 ", "007", "12,345", "12{,}345", "12\\,345", "1,\\!234", "1\\!234", "025"]
)
def test_numbers_that_may_be_written(text: str) -> None:
    assert is_right(AnswerFormat(0, 99_999), text)
    assert parse_integer(text, AnswerKind()).value == int("".join(c for c in text if c.isdigit()))


@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "-1", "100000", "3.5", "\\frac{3}{4}", "12,34", "1,2345", "1234,567", "0,123", "123,456", "1 2",
     "000001", "+5", "   5", "5   ", "1,{,}234", "12,", "12\\", "--1", "\\text{no}"],
)  # fmt: skip
def test_what_may_not_be_written(text: str) -> None:
    assert not is_right(AnswerFormat(0, 99_999), text)


def test_only_what_can_still_become_admissible_is_begun() -> None:
    form = AnswerFormat(0, 998)
    assert follow(form, "99") is not None and follow(form, "998") is not None
    assert follow(form, "999") is None and follow(form, "1,") is None
    assert follow(AnswerFormat(500, 700), "4") is None and not is_right(AnswerFormat(500, 700), "5")
    negative = AnswerFormat(-12, -3)
    assert is_right(negative, "-12") and is_right(negative, "-3")
    assert follow(negative, "1") is None and follow(negative, "-13") is None and not is_right(negative, "-1")


@given(INTERVALS, st.integers(-130_000, 130_000))
@settings(max_examples=500)
def test_an_integer_may_be_written_exactly_when_it_is_admissible(interval: tuple[int, int], value: int) -> None:
    form = AnswerFormat(*interval)
    admissible = AnswerKind("integer", *interval).admits(value)
    assert is_right(form, str(value)) == admissible
    if abs(value) >= 1000:
        assert is_right(form, f"{value:,}") == admissible


@given(INTERVALS, st.lists(st.sampled_from(ALPHABET), max_size=40))
@settings(max_examples=500)
def test_what_is_complete_is_read_as_an_admissible_integer(interval: tuple[int, int], choices: list[int]) -> None:
    """A walk that takes whichever bytes are allowed; wherever it may stop, the extractor reads a number."""
    form, kind = AnswerFormat(*interval), AnswerKind("integer", *interval)
    state, text = form.start, ""
    for byte in choices:
        after = form.step(state, byte)
        if after is not None:
            state, text = after, text + chr(byte)
        if form.may_close(state):
            assert parse_integer(text, kind).value is not None, text
        assert leads_out(form, state), text


def leads_out(form: AnswerFormat, state: AnswerState) -> bool:
    """Whether the number can be completed from here."""
    todo, seen = [state], {state}
    while todo:
        place = todo.pop()
        if form.may_close(place):
            return True
        for byte in ALPHABET:
            after = form.step(place, byte)
            if after is not None and after not in seen:
                seen.add(after)
                todo.append(after)
    return False


def test_there_are_few_states() -> None:
    """So that masks of tokens can be kept for them."""
    form = AnswerFormat(0, 99_999)
    todo, seen = [form.start], {form.start}
    while todo:
        place = todo.pop()
        for byte in ALPHABET:
            after = form.step(place, byte)
            if after is not None and after not in seen:
                seen.add(after)
                todo.append(after)
    assert len(seen) < 100


def test_kinds() -> None:
    assert AnswerFormat.of(AnswerKind("expression")) is None
    assert AnswerFormat.of(AnswerKind("proof")) is None
    form = AnswerFormat.of(AnswerKind("integer", 1, 6))
    assert form is not None and is_right(form, "6") and not is_right(form, "7")
    with pytest.raises(ValueError, match="low"):
        AnswerFormat(2, 1)
