"""Two answers: the same, different, or not known. `tests/verify/test_algebra_process.py` has what needs SymPy."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.verify.equivalence import Equivalence, equivalent


def verdict(left: str, right: str) -> str:
    found, mirrored = equivalent(left, right), equivalent(right, left)
    assert found.verdict == mirrored.verdict
    return found.verdict


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("**73**", "73"),  # Math-Verify issue 76
        ("$73$", r"\boxed{73}"),
        (r"\boxed{\boxed{\frac{1}{2}}}", "0.5"),
        (r"\( 42 \)", "42."),
        (r"\text{Answer: }42", "The answer is 42"),
        ("10,\\!080", "10080"),
        (r"11,\! 111,\! 111,\! 100", "11111111100"),
        ("1{,}234", "1,234"),
        (r"\dfrac{84}{2}", r"\frac{42}1"),
        (r"\frac43", "4/3"),
        (r"1\frac{4}{5}", "9/5"),
        (r"0.\overline{3}", r"\frac{1}{3}"),
        (r"0.1\overline{6}", "1/6"),
        (".35625", "0.35625"),
        ("1.2e3", r"1.2 \times 10^3"),
        (r"2^{100} \bmod 7", "2"),
        (r"\binom{10}{3}", "120"),
        (r"\gcd(12, 18)", "6"),
        ("100!/98!", "9900"),
        (r"11 \sqrt{5} + 11", r"11(1+\sqrt5)"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        (r"\sqrt{12}", "2sqrt(3)"),
        (r"\sqrt{\frac{1}{2}}", r"\frac{\sqrt 2}{2}"),
        ("√2", r"2^{1/2}"),
        ("6 - 5i", "-5i + 6"),
        ("(1+i)^2", "2i"),
        (r"18+2\pi", "2(9 + pi)"),
        (r"\frac{20000}{\pi}", "20000/π"),
        ("(a+5)(b+2)", "ab+2a+5b+10"),
        (r"x^3+3x-6", "-6 + x(x^2+3)"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        (r"90^\circ", "90"),
        (r"90^\circ", "90 degrees"),
        (r"90^\circ", r"\frac{\pi}{2}"),
        (r"50\%", "50"),
        (r"\$32,\!348", "32348"),
        (r"$\$36$", "36"),
        (r"864 \mbox{ inches}^2", "864"),
        (r"15\mbox{ cm}^2", "15 cm^2"),
        (r"\text{seven}", "7"),
        (r"\text{(C)}", "C"),
        (r"\text{Evelyn}", "evelyn"),
        ("x=5", "5"),
        ("5 = x", "x = 5"),
        ("f(x) = 2x + 3", "2x+3"),
        ("y = 2x + 3", "2x - y + 3 = 0"),
        ("3x - y + 13 = 0", "-6x + 2y = 26"),
        ("5x - 7y + 11z + 4 = 0", r"\sqrt{2}(5x-7y+11z+4) = 0"),
        ("(1,-16,-4,43)", r"\left(1, -2^4, -4, 43\right)"),
        ("(12,102)", "(12, 102)"),
        ("1,-2", "-2, 1"),
        ("3, 5, 7", r"\{7, 5, 3\}"),
        ("1 and -2", r"-2 \text{ or } 1"),
        (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1-\sqrt5, 1+\sqrt5\}"),
        (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
        ("x = 1 or x = -2", "-2, 1"),
        (r"\varnothing", r"\{\}"),
        ("(3,4]", r"3 < x \le 4"),
        (r"x \in [-2,7]", r"[-2, 7]"),
        ("x > 5", r"(5, \infty)"),
        (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty) ∪ (-∞,2)"),
        (r"(0,2) \cup [2,4)", "(0,4)"),
        (r"(0,1) \cup (\frac12, 3]", "(0,3]"),
        (
            r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
            r"\begin{bmatrix}-\frac13 \\ \frac23 \\ \frac53\end{bmatrix}",
        ),
        ("4210_{5}", "4210_5"),
    ],
)
def test_the_same(left: str, right: str) -> None:
    assert verdict(left, right) == "SAME"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1/2004!", "1/2006!"),  # Math-Verify issue 14
        (r"\frac{1}{2004!} + \sqrt{2}", r"\frac{1}{2006!} + \sqrt{2}"),
        ("3x-y+13=0", "3x+4y+14=0"),  # Math-Verify issue 60
        ("x + y = 1", "x + 2y = 2"),
        ("0.33", r"\frac13"),
        ("3.14", r"\pi"),
        ("1.4142135623", r"\sqrt2"),
        ("42", "-42"),
        (r"2^{100} \bmod 7", "3"),
        ("p - q", "q - p"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "(1,2,3)"),
        ("(1,2)", "12"),
        ("[0, 100]", "100"),
        ("(3,4]", "(3,4)"),
        ("[0,1)", "[0,1]"),
        (r"(0,2) \cup (2,4)", "(0,4)"),
        ("1, 2", "1, 3"),
        ("1, 2", "1"),
        (r"\infty", r"-\infty"),
        (r"\infty", "4"),
        (r"\text{odd}", r"\text{even}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
        ("3.466666666666667", "11"),
    ],
)
def test_different(left: str, right: str) -> None:
    assert verdict(left, right) == "DIFFERENT"


@pytest.mark.parametrize(
    ("left", "right", "failure"),
    [
        ("", "", "unparsable"),
        ("___", "___", "unparsable"),  # equal texts that mean nothing prove nothing
        (r"\foo{", r"\foo{", "unparsable"),
        (r"\frac{1}{0}", r"\frac{1}{0}", "unparsable"),
        ("3:5", "3:5", "unparsable"),
        (r"1 + 2 + \cdots + 10", "55", "unparsable"),
        ("3.1415...", r"\pi", "unparsable"),
        (r"x \ne 2", r"x \ne 2", "unparsable"),
        ("9" * 5000, "9" * 5000, "too_large"),
        ("3000!", "3000!", "too_large"),
        ("2^{2^{2^{2^{2^2}}}}", "1", "too_large"),
        ("(a+b+c+d+f+g)^{40}", "1", "too_large"),
        (r"\sqrt{2+\sqrt{3}}", r"\frac{\sqrt6+\sqrt2}{2}", "missing"),  # without an algebra
        (r"\sin x", r"\sin x", "missing"),
        ("2k + 2", "2n + 2", None),
        ("x = 5", "n = 5", None),
        ("f(x) = x", "g(x) = x", None),
        ("0x = 0", "x = 0", None),
        ("x^2 = 4", "x = 2", None),
        ("3x - y + 13 = 0", "0", None),
        (r"50\%", "0.5", None),
        ("15 cm", "15 mm", None),
        ("52_8", "52", None),
        ("52_8", "42", None),
        ("0.1666666666666667", "1/6", None),
        ("(1,234)", "1234", None),
        ("(1, 2)", "1, 2", None),
        ("x = 1, y = 2", "2, 1", None),
        ("there are infinitely many", "infinitely many", None),
        ("infinite", "4", None),
        ("12 m/s", "12", None),
    ],
)
def test_not_known(left: str, right: str, failure: str | None) -> None:
    found = equivalent(left, right)
    assert (found.verdict, found.failure) == ("UNKNOWN", failure)
    assert verdict(left, right) == "UNKNOWN"


@given(st.fractions(), st.fractions())
@settings(max_examples=100, deadline=None)
def test_fractions_as_latex_agree_with_fractions(left: Fraction, right: Fraction) -> None:
    texts = [rf"\frac{{{value.numerator}}}{{{value.denominator}}}" for value in (left, right)]
    assert verdict(*texts) == ("SAME" if left == right else "DIFFERENT")
    assert equivalent(texts[0], str(left)).verdict == "SAME"


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_a_verdict(left: str, right: str) -> None:
    assert isinstance(equivalent(left, right), Equivalence)


@pytest.mark.parametrize(
    "piece",
    ["(", r"\frac", r"\boxed{", "9^", r"\sqrt(1", "1,", "$1$", r"\begin{pmatrix}", "or ", r"\pm", "x^40*", "=", "**"],
)
def test_hostile_texts_are_cheap(piece: str) -> None:
    text = (piece * 4096)[:4096]
    started = time.monotonic()
    assert equivalent(text, "1").verdict == "UNKNOWN"
    assert time.monotonic() - started < 2
