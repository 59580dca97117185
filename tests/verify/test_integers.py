import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.core.problem import AnswerKind
from mathlete.verify.integers import answers_equal, parse_integer

KIND = AnswerKind()
ANY = AnswerKind(low=-(10**40), high=10**40)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("42", 42),
        ("-5", -5),
        ("−5", -5),
        ("+5", 5),
        ("-0", 0),
        ("012", 12),
        ("42.0", 42),
        ("42.", 42),
        ("1,234", 1234),
        ("1,234,567", 1234567),
        ("1{,}234", 1234),
        (r"1\,234", 1234),
        (r"10,\!236", 10236),
        ("$42$", 42),
        ("$$42$$", 42),
        (r"\(42\)", 42),
        (r"\[ 42 \]", 42),
        ("(42)", 42),
        ("[42]", 42),
        (r"\{42\}", 42),
        ("**73**", 73),  # Math-Verify issue 76
        ("`42`", 42),
        (r"\text{ 42 }", 42),
        (r"\mathbf{2^{10}}", 1024),
        (r"\boxed{42}", 42),
        (r"\left(2^{5}\right)", 32),
        (r"\dfrac{84}{2}", 42),
        (r"\frac84", 2),
        (r"\frac{84}2", 42),
        ("84/2", 42),
        ("0.5 * 84", 42),
        (r"1.2 \times 10^{3}", 1200),
        ("2^{10}", 1024),
        ("2^{10} - 1", 1023),
        ("2**10", 1024),
        ("2^{2^3}", 256),
        ("-2^2", -4),
        ("(-2)^2", 4),
        ("2^{-1} * 84", 42),
        ("7!", 5040),
        ("100!/98!", 9900),
        (r"3 \cdot 4", 12),
        ("2 - 3 - 4", -5),
        ("2 + 3 × 4", 14),
        (r"\binom{10}{3}", 120),
        (r"\binom{100000}{2}", 4999950000),
        (r"\sqrt{49}", 7),
        (r"\sqrt[3]{8}", 2),
        (r"\lfloor 7/2 \rfloor", 3),
        (r"\left|-5\right|", 5),
        ("2(21)", 42),
        ("1e5", 100_000),
        ("1.2E+3", 1200),
        (r"\gcd(12, 18)", 6),
        ("lcm(4, 6, 10)", 60),
        (r"\operatorname{gcd}(2^{100}, 12)", 4),
        ("2^100 % 7", 2),
        ("2^100 mod 7", 2),
        (r"2004! \bmod 2003", 0),
        ("forty-two", 42),
        (r"\text{One hundred and five}", 105),
        ("two thousand twenty-five", 2025),
        ("minus five", -5),
        ("_73_", 73),
        (r"2^{100} \bmod 7", 2),
        (r"7^{2^{1000}} \bmod 1000", 601),
        ("5 mod 7", 5),
        ("100 (mod 7)", 2),
        (r"2^{100} + 3 \pmod{7}", 5),
        (r"2^{100} \cdot 3 \bmod 7", 6),
        (r"4 \cdot \frac{1}{2} \bmod 4", 2),  # reducing the parts first would give 0
        (r"(2^{100} \bmod 7) + 40", 42),
        ("x = 42", 42),
        ("f(3) = 42", 42),
        ("a_1 = 42", 42),
        ("m+n = 113+29 = 142", 142),
        (r"x \equiv 5 \pmod{7}", 5),
        (r"\text{x = 42}", 42),
        (r"\text{Answer: } 42", 42),
        ("Answer: 42", 42),
        ("42^\\circ", 42),
        ("42^{\\circ}", 42),
        (r"42\%", 42),
        (r"\$42", 42),
        ("$42", 42),
        (r"42 \text{ units}", 42),
        (r"42\text{ cm}^2", 42),
        (r"80 \text{ square inches}", 80),
        ("42 apples", 42),
        ("42 cm^2", 42),
    ],
)
def test_one_exact_integer(raw: str, value: int) -> None:
    extraction = parse_integer(raw, ANY)
    assert (extraction.value, extraction.problem) == (value, None)
    assert extraction.answer == str(value)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("", "missing"),
        ("  ", "missing"),
        ("{}", "unparsable"),
        ("x", "unparsable"),
        ("2n", "unparsable"),
        ("42 xy", "unparsable"),
        ("42 pi", "unparsable"),
        (r"\pi", "unparsable"),
        ("52_8", "unparsable"),
        ("2 3", "unparsable"),
        ("1 234", "unparsable"),
        ("(42]", "unparsable"),
        ("٤٢", "unparsable"),
        ("4²", "unparsable"),
        ("nan", "unparsable"),
        (r"\infty", "unparsable"),
        (r"\approx 42", "unparsable"),
        (r"\text{about } 42", "unparsable"),
        (r"42 \text{ thousand}", "unparsable"),
        (r"\frac{1}{0}", "unparsable"),
        ("5 mod 0", "unparsable"),
        ("0^0", "unparsable"),
        ("(-3)!", "unparsable"),
        ("3x-y+13=0", "unparsable"),  # an equation, not the answer 0
        ("3x+4y+14=0", "unparsable"),
        ("1 + 2 + ... + 10", "unparsable"),  # which numbers the dots stand for is a guess
        (r"1 + 2 + \cdots + 10", "unparsable"),
        (r"1 + 2 + \ldots + 10", "ambiguous"),
        ("two dozen", "unparsable"),
        ("twenty forty", "unparsable"),
        ("one of them", "unparsable"),
        ("1e99999", "unparsable"),
        ("1e9999", "too_large"),
        ("2e", "unparsable"),
        ("gcd(12)", "ambiguous"),
        (r"\gcd(12,180)", "ambiguous"),  # thousands?
        (r"3\frac{1}{2}", "ambiguous"),  # 3.5 or 1.5
        ("1/2004!", "not_an_integer"),
        ("3, 5", "ambiguous"),
        ("3 or 5", "ambiguous"),
        (r"3 \text{ or } 5", "ambiguous"),
        (r"5 \pm 3", "ambiguous"),
        ("(1,2)", "ambiguous"),
        ("(1,234)", "ambiguous"),
        ("[3, 5)", "ambiguous"),
        (r"\{1, 2\}", "ambiguous"),
        ("1,2345", "ambiguous"),
        ("12,345,67", "ambiguous"),
        ("0,123", "ambiguous"),
        ("x=3, y=5", "ambiguous"),
        ("3:5", "ambiguous"),
        ("2+3=6", "ambiguous"),
        ("42 or more", "ambiguous"),
        ("7!!", "ambiguous"),
        (r"1 + 2 \bmod 2", "ambiguous"),
        (r"2^{-1} \bmod 7", "ambiguous"),
        ("1.5", "not_an_integer"),
        ("41.99999999", "not_an_integer"),
        ("1/2", "not_an_integer"),
        ("1/2004!", "not_an_integer"),  # Math-Verify issue 14 calls these two equal
        ("1/2006!", "not_an_integer"),
        (r"\sqrt{2}", "not_an_integer"),
        ("2^{1/2}", "not_an_integer"),
        (r"1/2 \bmod 7", "not_an_integer"),
        ("9^{9^{9}}", "too_large"),
        ("2^{1000000}", "too_large"),
        ("3000!", "too_large"),
        (r"\binom{100000}{50000}", "too_large"),
        ("(" * 100 + "1" + ")" * 100, "too_large"),
        ("1/" * 100 + "1", "too_large"),
        ("9" * 513, "too_large"),
    ],
)
def test_everything_else_is_refused(raw: str, problem: str) -> None:
    extraction = parse_integer(raw, ANY)
    assert (extraction.value, extraction.problem, extraction.answer) == (None, problem, None)


def test_the_interval_is_closed_and_nothing_is_moved_into_it() -> None:
    assert parse_integer("0", KIND).value == 0
    assert parse_integer("99999", KIND).value == 99_999
    assert [parse_integer(raw, KIND).problem for raw in ("-1", "100000", "2^{64}")] == ["out_of_range"] * 3
    assert parse_integer("-1", AnswerKind(low=-1, high=0)).value == -1


FORMS = [
    "{}",
    "{:,}",
    "${}$",
    r"\text{{ {} }}",
    "{}.0",
    "x = {}",
    "**{}**",
    "{} units",
    r"\frac{{{}}}{{1}}",
    "({}) + 0",
]


@given(st.integers(-(10**12), 10**12), st.sampled_from(FORMS))
def test_every_form_comes_back(value: int, form: str) -> None:
    assert parse_integer(form.format(value), ANY).value == value


@settings(max_examples=300)
@given(
    st.recursive(
        st.integers(0, 20).map(str),
        lambda e: st.tuples(e, st.sampled_from("+-*"), e).map("({0[0]} {0[1]} {0[2]})".format),
        max_leaves=12,
    )
)
def test_arithmetic_agrees_with_python(expression: str) -> None:
    extraction = parse_integer(expression, AnswerKind(low=-(10**40), high=10**40))
    assert extraction.value == eval(expression)  # the strategy writes digits, brackets and + - * only


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 500))
def test_powers_under_a_modulus_agree_with_python(base: int, exponent: int, modulus: int) -> None:
    extraction = parse_integer(f"({base + 1}^{{{exponent}}}) \\bmod {modulus}", ANY)
    assert extraction.value == pow(base + 1, exponent, modulus)


@given(st.integers(-99, 99), st.integers(1, 99))
def test_a_fraction_counts_only_when_it_is_whole(numerator: int, denominator: int) -> None:
    value = Fraction(numerator, denominator)
    expected = value.numerator if value.denominator == 1 else None
    assert parse_integer(f"\\frac{{{numerator}}}{{{denominator}}}", ANY).value == expected


PIECES = st.sampled_from(
    [
        "9",
        "99",
        "2^{",
        "^",
        "!",
        "(",
        ")",
        "{",
        "}",
        "\\frac",
        "\\binom",
        "\\sqrt",
        "mod ",
        "\\pmod",
        "+",
        "-",
        "*",
        "/",
    ]
    + ["\\text{", "x", "=", ",", ":", "$", "**", " ", "cm", ".", "\\", "[", "]", "^\\circ", "is ", "\x00", "𝟜"]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=80).map("".join)))
def test_hostile_text_never_raises(raw: str) -> None:
    extraction = parse_integer(raw, KIND)
    assert (extraction.value is None) == (extraction.problem is not None)


@pytest.mark.parametrize(
    "raw",
    [
        "+".join(["1/(2^{32000}-1)"] * 30),
        "*".join(["2099!"] * 60),
        r" \bmod ".join(["(2^{1000}-1)^{2^{1000}}"] * 20),
        "(" * 30 + r"1 \bmod (2^{1000}-3)" + r") \bmod (2^9-1)" * 30,
        "9" * 500 + "^" + "9" * 10,
        "^".join("9" * 60),
    ],
)
def test_costly_expressions_meet_a_ceiling(raw: str) -> None:
    start = time.process_time()
    parse_integer(raw, KIND)
    assert time.process_time() - start < 1.0


def test_answers_are_equal_as_numbers() -> None:
    assert answers_equal("42", "42")
    assert answers_equal("042", " 42 ")
    assert not answers_equal("42", "43")
    assert not answers_equal("x", "x")
    assert not answers_equal("1/2004!", "1/2006!")
    assert not answers_equal("9" * 10_000, "9" * 10_000)
