"""Answers as exact numbers."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.answer_values import MAX_DIGITS, MAX_EXPONENT, answer_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", Fraction(42)),
        (" -7 ", Fraction(-7)),
        ("+3", Fraction(3)),
        ("2.50", Fraction(5, 2)),
        (".5", Fraction(1, 2)),
        ("3.", Fraction(3)),
        ("-6/8", Fraction(-3, 4)),
        ("1e3", Fraction(1000)),
        ("2.6666666666666665", Fraction("2.6666666666666665")),
        (str(10**40), Fraction(10**40)),
    ],
)
def test_numbers_are_exact(text: str, value: Fraction) -> None:
    assert answer_value(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "nan", "inf", "-Infinity", "None", "5 hours", "1/0", "1_000", "1,000", "0x1f", "1/-2", "--1", "1e", "²"],
)
def test_other_texts_have_no_value(text: str) -> None:
    assert answer_value(text) is None


def test_a_few_characters_make_no_number_of_gigabytes() -> None:
    assert answer_value("1e999999999") is None
    assert answer_value(f"1e{MAX_EXPONENT + 1}") is None
    assert answer_value(f"1e-{MAX_EXPONENT}") == Fraction(1, 10**MAX_EXPONENT)
    assert answer_value("9" * (MAX_DIGITS + 1)) is None
    assert answer_value("9" * MAX_DIGITS) == 10**MAX_DIGITS - 1


@given(st.text(max_size=12))
def test_no_text_is_refused_with_an_error(text: str) -> None:
    value = answer_value(text)
    assert value is None or value == Fraction(text.strip())
