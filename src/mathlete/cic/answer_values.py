"""Answers as exact numbers, for rules that compare values. Anything that is no plain number has no value.

Knows integers, decimals, exponents and fractions of them. Does not know LaTeX, units or expressions: what is equal to
what was settled when the answer was extracted.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

# Longer texts and larger exponents are not read as numbers: a few characters must not make a number of gigabytes.
MAX_DIGITS = 1000
MAX_EXPONENT = 400

_INTEGER = r"[+-]?[0-9]+"
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,4}))?")
_FRACTION = re.compile(rf"({_INTEGER})/([0-9]+)")


@lru_cache(maxsize=4096)
def answer_value(answer: str) -> Fraction | None:
    """The number that a text is, exactly; None for any other text ("nan", "infinity", "5 hours", "1/0")."""
    text = answer.strip()
    if len(text) > MAX_DIGITS:
        return None
    if fraction := _FRACTION.fullmatch(text):
        denominator = int(fraction[2])
        return Fraction(int(fraction[1]), denominator) if denominator else None
    decimal = _DECIMAL.fullmatch(text)
    if decimal is None or (decimal[1] and abs(int(decimal[1])) > MAX_EXPONENT):
        return None
    return Fraction(text)
