"""Every ceiling that an answer meets before work is done on it, in one place. Knows numbers only.

Answers are hostile input: a few characters can ask for a number that does not fit into memory. So length, nesting,
digits, exponents, factorials and the number of operations are bounded before anything is computed, and what needs a
computer algebra system runs in a process that is killed after `DEADLINE_S`. Beyond a ceiling there is no verdict.
"""

from __future__ import annotations

MAX_ANSWER_CHARS = 512
"""One integer as written. Longer ones are refused unread; this also bounds the digits of a number."""
MAX_FORM_CHARS = 4_096
"""An answer of any form: expression, set, matrix."""
MAX_ELEMENTS = 64
"""Elements of one set, tuple, union or matrix."""

MAX_NESTING = 32
MAX_OPERATIONS = 64
MAX_BITS = 32_768
"""Size of any numerator or denominator on the way."""
MAX_MODULAR_BITS = 1_024
"""Size of a modulus, and of an exponent under one."""
MAX_FACTORIAL = 2_100
MAX_POWER_OF_TEN = 9_000
"""Of a number in scientific notation."""

MAX_EXPRESSION_CHARS = 600
"""From the first character of an expression to its last."""
MAX_LITERAL_DIGITS = 60
MAX_SYMBOLS = 6
"""Different symbols of one expression."""
MAX_DEGREE = 40
"""Exponent of anything that has a symbol in it."""
MAX_TOTAL_DEGREE = 60
"""Product of the exponents over one another, and sum over factors: what expanding would give."""

MAX_MONOMIALS = 400
"""Of an expanded polynomial."""
MAX_MONOMIAL_PRODUCTS = 100_000
"""Of monomials, for one comparison."""
MAX_RADICAND = 10**10
"""Under a square root that is taken apart into primes."""

DEADLINE_S = 2.0
"""For one question to a computer algebra system."""
MAX_QUESTIONS = 16
"""To a computer algebra system, for one comparison."""
