import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_check import complaints, inspect

from mathlete.report.latex import MAX_LATEX_CHARS, MathSpan, split_math, to_mathml


def formulas(text: str) -> list[str]:
    return [piece.latex for piece in split_math(text) if isinstance(piece, MathSpan)]


def plain(text: str) -> str:
    return "".join(piece if isinstance(piece, str) else "@" for piece in split_math(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("let $x$ be", ["x"]),
        ("$$a$$ and \\(b\\) and \\[c\\]", ["a", "b", "c"]),
        ("so \\boxed{\\frac{1}{2}}.", ["\\boxed{\\frac{1}{2}}"]),
        ("$ x + 1 $ spaced", [" x + 1 "]),
        ("\\begin{align*} a &= b \\end{align*}", ["\\begin{align*} a &= b \\end{align*}"]),
        ("$n$th and $2n-1$ and $5$", ["n", "2n-1", "5"]),
        ("$f(x) = x$ if $x > 0$", ["f(x) = x", "x > 0"]),
        ("$\\text{the number of all the apples} = 3$", ["\\text{the number of all the apples} = 3"]),
        ("$2 \\mod 5$, $3 mod 7$, $\\sin x + cos x$", ["2 \\mod 5", "3 mod 7", "\\sin x + cos x"]),
        ("$\\$5$ is a price in mathematics", ["\\$5"]),
        (
            "$x^4+ax^3+bx^2+cx+d=0$ and $0.abcd,$ and $12 \\text{ km}$",
            ["x^4+ax^3+bx^2+cx+d=0", "0.abcd,", "12 \\text{ km}"],
        ),
        ("$\\left[\\begin{matrix} a \\\\ b \\end{matrix} + \\begin{matrix} c \\end{matrix}\\right]$", None),
        ("$10^{-3}$ and $100!$ and $3,5$", ["10^{-3}", "100!", "3,5"]),
    ],
)
def test_mathematics_is_found(text: str, expected: list[str] | None) -> None:
    assert formulas(text) == (expected or [text.strip("$")])


@pytest.mark.parametrize(
    "text",
    [
        "$5 and $7",
        "It costs $5, and the tax is $2.",
        "sold for $2 per egg, so she makes $18 a day.",
        "from $5 to 7$.",
        "$5-$7 a head",
        "$10 - $3 = $7",
        "US$5 or C$7",
        "$1,000.50 profit (in US$)",
        "($5) or ($7)",
        "between $ 5 and $ 7",
        "one $ alone",
        "costs $ and the others pay more than$ that",
        "$$",
        "$ $",
        "a $5\n\nnew paragraph$ x",
        "\\$5 and \\$7",
        "\\( never closed",
        "\\boxed{ never closed",
        "\\begin{align} never closed",
        "\\\\[4pt] is a line break",
    ],
)
def test_money_and_stray_delimiters_are_text(text: str) -> None:
    assert formulas(text) == []


def test_money_beside_mathematics() -> None:
    assert formulas("pays $5 for $x$ eggs and $3 for $y$") == ["x", "y"]
    assert plain("pays \\$5 for $x$") == "pays $5 for @"


@pytest.mark.parametrize(
    "latex",
    [
        "\\frac{a}{b} + \\sqrt[3]{x}",
        "\\begin{cases} 1 & x > 0 \\\\ 2 & \\text{else} \\end{cases}",
        "\\begin{aligned} a &= b \\\\ c &\\iff d \\end{aligned}",
        "\\begin{gather*} a \\\\ b \\end{gather*}",
        "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
        "a \\equiv b \\pmod{7} \\text{ and } \\lcm(a, b) \\notag",
        "\\left\\lfloor \\frac{2000}{7} \\right\\rfloor",
    ],
)
def test_what_models_write_is_typeset(latex: str) -> None:
    shown = to_mathml(latex, display=True)
    assert "<math" in shown and "<code" not in shown
    text = inspect(shown).text
    assert "\\" not in text and "&" not in text
    assert complaints(shown) == []
    ElementTree.fromstring(shown)  # well-formed


def test_tables_boxes_and_numbers_become_what_browsers_draw() -> None:
    assert inspect(to_mathml("\\begin{aligned} a &= b \\\\ c &= d \\end{aligned}")).text == "a=bc=d"
    assert 'class="aligned"' in to_mathml("\\begin{align*} a &= b \\end{align*}")
    assert 'class="boxed"' in to_mathml("\\boxed{42}")
    assert "<mtext>,</mtext><mn>000</mn>" in to_mathml("2{,}000") and "<mtext>,</mtext>" in to_mathml("12,345")
    assert "<mo>⟺</mo>" in to_mathml("a \\iff b")


@pytest.mark.parametrize("latex", ["\\frac", "{{{", "x^y^z", "", "   ", "\\left(", "{" * 900 + "}" * 900])
def test_what_cannot_be_typeset_is_shown_as_it_is(latex: str) -> None:
    shown = to_mathml(latex)
    assert shown.startswith("<code") and inspect(shown).text == latex.strip()


def test_overlong_mathematics_is_shown_as_it_is() -> None:
    assert to_mathml("x" * MAX_LATEX_CHARS).startswith("<math")
    assert to_mathml("x" * (MAX_LATEX_CHARS + 1)).startswith("<code")


@pytest.mark.parametrize(
    "latex",
    [
        "\\text{<img src=x onerror=alert(1)>}",
        "\\text{</math><script>alert(1)</script>}",
        "\\mbox{&lt;script&gt;&#60;script&#62;}",
        "\\href{javascript:alert(1)}{click}",
        "\\style{background:url(https://evil.example)}{x}",
        "\\class{problem}{x}",
        '\\color{red" onload="alert(1)}{x}',
        "\\hspace{99999em} \\rule{9999pt}{9999pt} \\Huge x",
        "a < b > c & d ' \" `",
        "\\operatorname{<b>}",
        "\\unicode{<script>}",
        "\\<script>alert(1)\\</script>",
    ],
)
def test_hostile_latex_brings_in_nothing(latex: str) -> None:
    for shown in (to_mathml(latex), to_mathml(latex, display=True)):
        assert complaints(shown) == []
        assert "9999" not in "".join(
            value or "" for tag, a in inspect(shown).elements for k, value in a.items() if k != "title"
        )
        ElementTree.fromstring(shown)


LATEX_PIECES = st.sampled_from(
    "\\frac \\text \\href \\style \\class \\color \\hspace \\begin{array} \\end{array} \\left( \\right) \\boxed \\sqrt "
    "\\unicode { } < > & ^ _ \\\\ $ $$ \\( \\) \\[ \\] \" ' <script> onerror= javascript: &lt; x 1 , . \\, "
    "\\not \\tag".split()
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.lists(LATEX_PIECES, max_size=25).map("".join), st.text(max_size=60)), st.booleans())
def test_any_latex_is_harmless_and_well_formed(latex: str, display: bool) -> None:
    shown = to_mathml(latex, display)
    assert complaints(shown) == []
    ElementTree.fromstring(shown)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.lists(LATEX_PIECES, max_size=25).map(" ".join), st.text(max_size=80)))
def test_splitting_loses_nothing_but_delimiters(text: str) -> None:
    pieces = list(split_math(text))
    kept = sum(len(piece) if isinstance(piece, str) else piece.end - piece.start for piece in pieces)
    assert kept == len(text) - _num_unescaped_dollars(text, pieces)


def _num_unescaped_dollars(text: str, pieces: list[str | MathSpan]) -> int:
    """Backslashes that stood before a dollar outside mathematics and were dropped."""
    restored = "".join(text[piece.start : piece.end] if isinstance(piece, MathSpan) else piece for piece in pieces)
    return len(text) - len(restored)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["math500", "amc23", "aime2024", "gsm8k_test"])
def test_real_statements_are_typeset(shared_dir: Path, name: str) -> None:
    lines = (shared_dir / "problems" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    found = [latex for line in lines for latex in formulas(json.loads(line)["problem"])]
    failed = [latex for latex in found if "<code" in to_mathml(latex)]
    assert failed == []
    assert bool(found) == (name != "gsm8k_test")  # prices only
