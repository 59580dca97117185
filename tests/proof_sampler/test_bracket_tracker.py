from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latex_reference import is_valid

from mathlete.proof_sampler.bracket_states import START, States
from mathlete.proof_sampler.bracket_tracker import BracketTracker

MAX_DEPTH = 4
TRACKER = BracketTracker(max_depth=MAX_DEPTH)

# Pieces of mathematical Markdown, right and wrong ones, so that random texts are often nearly right.
PIECES = [
    *"{}$`()[]|\\\n <^_.,5ax*", "\n\n", "$$", "```", "``", "\\\\", "\\{", "\\}", "\\$", "\\(", "\\)", "\\[", "\\]",
    "```py\n", "\n```\n", "\\left", "\\right", "\\left(", "\\right)", "\\right.", "\\begin{cases}", "\\end{cases}",
    "\\begin{list}", "\\end{list}", "\\begin", "\\end", "{cases}", "\\boxed{", "\\boxed", "\\text{", "\\frac",
    "\\frac{", "}{", "\\le", "ft", "\\langle", "$x$", "$5", "$x", " x", "<think>", "</think>", "\\bo", "xed", "\\en",
    "d{list}", "é", "\t",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@st.composite
def valid_texts(draw: st.DrawFn, depth: int = 3) -> str:
    """Texts that are right by construction, at most `depth` deep."""
    inner = valid_texts(depth - 1) if depth else st.just("x")
    plain = st.sampled_from(
        ["a", " ", "[0, 1)", "1) ", ":)", "\n", "\\$5", "\\{", "x^2", "\\alpha", "\\\\", "é", "|", "'"]
    )
    shapes = ["{}", "\\[ {} \\]", "\\({}\\)"] if depth == 3 else ["{}"]
    shapes += [
        "{{{}}}",
        "\\frac{{{}}}{{2}}",
        "\\boxed{{{}}}",
        "\\left[ {} \\right)",
        "\\begin{{cases}}{}\\end{{cases}}",
    ]
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        content = draw(plain) if draw(st.booleans()) else draw(st.sampled_from(shapes)).format(draw(inner))
        parts.append(content)
    return "".join(parts)


def follow(text: bytes, tracker: BracketTracker = TRACKER, cuts: list[int] | None = None) -> States:
    """The readings after a text that comes in pieces cut at `cuts`, or byte by byte."""
    states: States = (START,)
    places = range(1, len(text)) if cuts is None else sorted({cut % (len(text) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(text)], strict=True):
        states = tracker.feed(states, text[start:end])
    return states


@given(TEXTS)
@settings(max_examples=1500)
def test_what_is_called_right_the_reference_calls_right_and_the_other_way_round(text: str) -> None:
    raw = text.encode()
    states = follow(raw)
    assert (bool(states) and TRACKER.may_end(states)) == is_valid(raw, MAX_DEPTH)


@given(TEXTS, st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=300)
def test_how_a_text_is_cut_makes_no_difference(text: str, cuts: list[int]) -> None:
    raw = text.encode()
    assert set(follow(raw, cuts=cuts)) == set(follow(raw))


@given(valid_texts())
@settings(max_examples=300)
def test_a_text_that_is_right_is_followed_to_its_end(text: str) -> None:
    tracker = BracketTracker()
    states = follow(text.encode(), tracker)
    assert states and tracker.may_end(states)
    assert is_valid(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        r"The half-open intervals $[0, 1)$, $(0, 1]$ and ]0, 1[ are fine, and so is \(f(x]\).",
        "1) first\na) second :) and :( too",
        "It costs $5, they paid $10 and $2.50: $17.50 in all, i.e. 17.5 in $.",
        "She earns $18 a day.",
        "Let the savings be $x.\n\nThen $y$ is known.",
        r"Let $x$ be $5$, so $x^2 = 25$ and $$x^3 = 125.$$",
        r"$\left\{ x \middle| x > 0 \right\}$, $\left. \frac{a}{b} \right|_0^1$ and $\left\langle u, v \right\rangle$",
        r"\[ \begin{aligned} a &= b \\[2pt] c &= d \end{aligned} \]",
        r"\begin{align*} a &= \begin{pmatrix} 1 \\ 2 \end{pmatrix} \end{align*}",
        "```python\nprint('$\\\\frac{', {1: \"}\"})  # \\right ) ]\n```\nSo `f'{x}'` and `\\end{x}` print `$`.",
        "```python\nx = 1\n```\n```output\n}{\n```\nThe answer is $\\boxed{1}$.",
        "it's the ` of `` TeX's ``quotes''",
        r"$|x| < 3 \le y$ and $a \mid b$; $f\colon \{1, 2\} \to \mathbb{R}$",
        r"The set {1, 2, 3} has \frac{1}{2} of \textbf{Let $x$ be} 3 } elements",
        r"$x = \text{the number of \$ if $y$ is}\ 3$",
        "<think>\n$ { \\right \\[ \n\n</think>\nSo $1$.",
        r"\begin{itemize} \item costs $5, $x$ \item {free} } \end{itemize}",
        "",
    ],
)  # fmt: skip
def test_right_texts(text: str) -> None:
    tracker = BracketTracker()
    states = follow(text.encode(), tracker)
    assert states and tracker.may_end(states) and is_valid(text.encode())


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (r"$x^{2}}$", "}"),
        (r"$\frac{1}{2$", "$"),
        (r"\[ \right) \]", ")"),
        (r"\right.", "."),
        (r"\begin{align} \end{cases}", "c"),
        (r"\end{align}", "{"),
        (r"$\left( x$", "$"),
        ("$$x$ and", " "),
        (r"\( \[", "["),
        (r"\[ x \)", ")"),
        (r"$\frac{x}{2} is" + "\n\n", "\n"),
        ("$\\frac12\n```python", "`"),
        (r"$2^{3}}$", "}"),
        (r"\left{ x \right}", "{"),
        (r"\left\begin{cases}", "{"),
        (r"\begin{a b}", " "),
        ("{" * 33, ""),
        (r"\[" + "{" * 32, "{"),
    ],
)  # fmt: skip
def test_what_can_never_be_right_is_refused_at_once(text: str, refused: str) -> None:
    """`refused` is the byte where it happens; "" when nothing is refused."""
    tracker = BracketTracker()
    states: States = (START,)
    for i, byte in enumerate(text.encode()):
        states = tracker.feed(states, bytes([byte]))
        if not states:
            assert text[i] == refused
            return
    assert refused == ""


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{5", r"$\frac12", "$$x$", r"\[x", r"\begin{cases}", "```python\nx", "```python", r"\textbf{a", r"\left",
        r"\begin", "<think> x", r"\left(x", r"\left(x\right", "$x^2 is",
    ],
)  # fmt: skip
def test_a_text_may_not_end_while_something_is_open(text: str) -> None:
    tracker = BracketTracker()
    states = follow(text.encode(), tracker)
    assert states and not tracker.may_end(states) and not is_valid(text.encode())


@given(TEXTS)
@settings(max_examples=200)
def test_what_is_wrong_in_a_given_text_is_forgiven(text: str) -> None:
    states = TRACKER.feed_leniently((START,), text.encode())
    assert states
    if follow(text.encode()):
        assert set(states) == set(follow(text.encode()))


@given(TEXTS)
@settings(max_examples=200)
def test_a_forgiving_tracker_refuses_nothing(text: str) -> None:
    tracker = BracketTracker(MAX_DEPTH, forgiving=True)
    states = follow(text.encode(), tracker)
    assert states and tracker.may_end(states)


def test_order_inside_a_piece_counts() -> None:
    opened = TRACKER.feed((START,), b"$\\frac{1")
    assert TRACKER.feed(opened, b"}{2}") and not TRACKER.feed(opened, b"}}{2")


@pytest.mark.parametrize("piece", ["it costs $5 or `x or $7 maybe `\n", "a $b `c ", "$`", "It is $5 and `code` "])
def test_a_text_that_can_be_read_in_many_ways_takes_no_longer(piece: str) -> None:
    """Readings that become the same are followed once: else each `$` would double the work."""
    start = time.process_time()
    states = BracketTracker().feed((START,), (piece * 2000).encode())
    assert len(states) < 30 and time.process_time() - start < 2.0
