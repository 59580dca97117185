import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_check import complaints, inspect

from mathlete.report.prose import render_excerpt, render_prose, render_statement


def test_markdown_and_mathematics_together() -> None:
    shown = render_prose("## Plan\n\n**Bold** with $a_1 * b_1$ and $c_1 * d_1$:\n\n- one\n- two\n\n`x_1 $y$`")
    assert '<p class="heading">Plan</p>' in shown and "<strong>Bold</strong>" in shown
    assert shown.count("<math") == 2 and shown.count("<li>") == 2 and "<em>" not in shown
    assert "<code>x_1 $y$</code>" in shown


@pytest.mark.parametrize(
    "text",
    [
        "So\n\\[\nx = 1\n+ 2\n- 3\n# 4\n\\]\nholds.",
        "$$\nx = 1\n\n+ 2\n$$",
        "1. first\n   \\[ x = \\begin{cases} 1 \\\\ 2 \\end{cases} \\]\n2. second",
        "    \\[ indented \\]",
        "\\begin{align*}\na &= b \\\\\n* c &= d\n\\end{align*}.",
    ],
)
def test_display_mathematics_is_one_block_whatever_is_inside(text: str) -> None:
    shown = render_prose(text)
    assert shown.count('display="block"') == 1 and '<p class="heading">' not in shown and "<ul>" not in shown


def test_fenced_python_is_coloured_and_other_code_is_not() -> None:
    shown = render_prose("```python\nfor x in range(3):  # loop\n    print('<b>')\n```\n\n```text\nfor x\n```")
    assert '<span class="k">for</span>' in shown and '<span class="c"># loop</span>' in shown
    assert "&lt;b&gt;" in shown and '<pre class="code"><code>for x</code></pre>' in shown


def test_a_fence_cut_off_by_the_token_limit_is_still_code() -> None:
    assert '<span class="k">import</span>' in render_prose("```python\nimport sympy\nx = (1 +")


@pytest.mark.parametrize(
    "text",
    [
        "[click](javascript:alert(1)) <javascript:alert(1)> ![x](http://evil.example/x.png)",
        "<script>alert(1)</script>\n\n<div onclick=x>\n\n<!-- -->",
        "[a]: http://evil.example\n\n[a]",
        '```"><script>alert(1)</script>\ncode\n```',
        "http://evil.example and $\\href{http://evil.example}{x}$",
        "| a | b |\n|:-:|--:|\n| <b>x</b> | y |",
    ],
)
def test_prose_brings_in_no_markup_of_its_own(text: str) -> None:
    assert complaints(render_prose(text)) == []
    assert complaints(render_statement(text)) == []


def test_a_statement_is_not_markdown() -> None:
    shown = render_statement("Let a*b and c*d be # 1.\n- one $x$\n\nSecond \\$5 paragraph.")
    assert "a*b and c*d be # 1." in shown and shown.count("<math") == 1
    assert shown.count('<div class="para">') == 2 and "Second $5 paragraph." in shown


def test_emphasis_and_escapes_of_latex_in_a_statement() -> None:
    shown = render_statement("A \\emph{nice} 50\\% of \\textbf{<all>} \\{1\\} \\textsc{x} \\foo{y}.")
    assert "A <em>nice</em> 50% of <strong>&lt;all&gt;</strong> {1} <span>x</span> \\foo{y}." in shown


def test_a_figure_is_folded_away() -> None:
    shown = render_statement('Look: [asy]\ndraw((0,0)--(1,1)); label("$x$");\n[/asy] What is $x$?')
    assert shown.count("<details") == 1 and shown.count("<math") == 1 and "label(&quot;$x$&quot;)" in shown


def test_an_excerpt_is_short_and_keeps_formulas_whole() -> None:
    statement = "Let $x$ be a number and " + "word " * 50 + "$\\frac{1}{2}$"
    shown = render_excerpt(statement, 60)
    assert len(inspect(shown).text) <= 61 and shown.endswith("…") and "<math" in shown
    assert inspect(render_excerpt("Short.", 60)).text == "Short."
    assert all(render_excerpt("a $x$, $y$ b", limit).endswith("…") for limit in range(5))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="$\\[](){}*_#`~<>&|-+1. \n\tab\"'!:=^", max_size=120))
def test_any_text_is_harmless(text: str) -> None:
    for shown in (render_prose(text), render_statement(text), render_excerpt(text, 20)):
        assert complaints(shown) == []


@pytest.mark.parametrize(
    "unit", ["$", "\\(", "\\[", "$x ", "*", "`", "\\boxed{", "> ", "- ", "[", "\\begin{align}", "|a|\n", "~~"]
)
def test_long_hostile_text_takes_no_long_time(unit: str) -> None:
    started = time.perf_counter()
    render_prose(unit * (24_000 // len(unit)))
    assert time.perf_counter() - started < 5
