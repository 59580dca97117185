"""The exact normal form against SymPy, its slow twin."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.verify.algebra import SympyAlgebra
from mathlete.verify.answer_values import read_expression
from mathlete.verify.arithmetic import Refusal
from mathlete.verify.expressions import Expression, Number, Symbol, Term
from mathlete.verify.polynomials import Expansion, degree, letters_in

pytest.importorskip("sympy")

leaves = st.one_of(
    st.integers(-9, 9).map(lambda n: Number(Fraction(n))),
    st.sampled_from(["x", "y", "pi"]).map(Symbol),
    st.sampled_from([2, 3, 12, Fraction(1, 2)]).map(lambda n: Term("sqrt", (Number(Fraction(n)),))),
)
trees = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.tuples(st.sampled_from("+*/"), parts, parts).map(lambda t: Term(t[0], t[1:])),
        parts.map(lambda part: Term("neg", (part,))),
        st.tuples(parts, st.integers(0, 3)).map(lambda t: Term("^", (t[0], Number(Fraction(t[1]))))),
    ),
    max_leaves=4,
)


def expanded(expression: str | Expression) -> tuple[Expansion, object]:
    expansion = Expansion()
    tree = read_expression(expression).expression if isinstance(expression, str) else expression
    return expansion, expansion.expand(tree)


@given(trees, trees, trees)
@settings(max_examples=40, deadline=None)
def test_the_normal_form_agrees_with_sympy(a: Expression, b: Expression, c: Expression) -> None:
    product = Term("*", (a, Term("+", (b, c))))
    spread = Term("+", (Term("*", (a, b)), Term("*", (c, a))))
    expansion = Expansion()
    try:
        left, right, other = (expansion.expand(tree) for tree in (product, spread, Term("*", (a, b))))
    except Refusal:
        return  # a division by zero, or too much work
    assert expansion.is_same(left, right)
    assert SympyAlgebra().is_identical(product, spread)
    assert expansion.is_same(left, other) == SympyAlgebra().is_identical(product, Term("*", (a, b)))


@pytest.mark.parametrize(
    ("left", "right", "proportional"),
    [
        ("3x - y + 13", "-6x + 2y - 26", True),
        ("3x - y + 13", "3x + 4y + 14", False),
        (r"x + \sqrt{2}", r"\sqrt{2} x + 2", True),
        (r"\pi x + \pi", "x + 1", True),
        ("x", "xy", False),
        ("0", "x - x", True),
        ("0", "x", False),
        (r"\frac{x}{2} + \frac13", "3x + 2", True),
    ],
)
def test_proportional(left: str, right: str, proportional: bool) -> None:
    expansion = Expansion()
    parts = [expansion.expand(read_expression(text).expression) for text in (left, right)]
    assert expansion.is_proportional(*parts) is proportional
    assert expansion.is_proportional(*reversed(parts)) is proportional


def test_letters_and_degree() -> None:
    _, quotient = expanded(r"\pi x^2 y + \sqrt{3} i y + 1")
    assert letters_in(quotient) == {"x", "y"}
    assert degree(quotient) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"\sqrt{2 + \sqrt{3}}", "not_an_integer"),
        (r"\sqrt{x}", "not_an_integer"),
        (r"\sin x", "not_an_integer"),
        ("2^x", "not_an_integer"),
        (r"\sqrt{10000000000000061}", "not_an_integer"),
        (r"\frac{x}{x - x}", "unparsable"),
        ("(a+b+c+d+f+g)^{40}", "too_large"),
    ],
)
def test_what_has_no_normal_form_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refusal) as refused:
        expanded(text)
    assert refused.value.reason == reason
