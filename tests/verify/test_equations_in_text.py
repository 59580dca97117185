"""Which claims a text makes: what is taken, with its place, and what must be left alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.verify.equations_in_text import MAX_CLAIMS, MAX_TEXT_CHARS, claims_in
from mathlete.verify.formula_zones import zones

TAKEN = [
    ("2+3 = 5", ["2+3 = 5"]),
    ("So 12 * 4 = 48 apples.", ["12 * 4 = 48"]),
    ("1. 5 + 3 = 8\n2) 4 x 3 = 12\n- 5 + 3 = 8", ["5 + 3 = 8", "4 x 3 = 12", "5 + 3 = 8"]),
    ("She pays $3 + $4 = $7.", ["$3 + $4 = $7"]),
    ("In total $5 \\cdot 3 = 15$ of them", [r"5 \cdot 3 = 15"]),
    (r"\[ 2+3 = 5 = 10/2 \]", ["2+3 = 5", "5 = 10/2"]),
    (r"\(2^3 = 8\), \(3 < 2+2\)", ["2^3 = 8", "3 < 2+2"]),
    (r"$$\begin{aligned} 2+3 &= 5 \\ &= 6 - 1 \end{aligned}$$", []),  # in an environment that is not known: unread
    ("\\begin{align*}\n(x+1)^2 &= x^2+2x+1 \\\\\n&= x(x+2)+1\n\\end{align*}", 2),
    (r"$2^{10} \equiv 2 \pmod 7$", [r"2^{10} \equiv 2 \pmod 7"]),
    ("**Total:** 2 + 3 = **5**.", ["2 + 3 = **5"]),
    (r"so \boxed{2+3 = 5}", []),
    (r"$\boxed{2+3 = 5}$", ["2+3 = 5"]),
    ("n = 2 * 3 + 1 = 7", ["2 * 3 + 1 = 7"]),
    ("5 + 3 = 8 (apples), and so 2 * 8 = 16", ["5 + 3 = 8", "2 * 8 = 16"]),
    ("There are 3000 ÷ (5+1) = 500 women", ["3000 ÷ (5+1) = 500"]),
    ("(so 2 + 3 = 5)", ["2 + 3 = 5"]),
    (r"$\frac{200(199)}{2} = 19900$", [r"\frac{200(199)}{2} = 19900"]),
]

LEFT_ALONE = [
    "Let $x = 3$.",
    "where $n = 2k+1$ is odd",
    "$y := x + 1$",
    "if $x^2 = x + 2$ then",
    "suppose that $a + b = b + a + 1$",
    "$f(x) = 2x + 1$ and f(2) = 5, f(2) + 1 = 6",
    "```\nx = 2 + 3 == 6\n2 + 2 = 5\n```",
    "`2 + 2 = 5` is code",
    r"$\pi \approx 3 + 0.14$, $1/3 \approx 0.3$, 1/3 ≈ 0.3",
    "60 minutes = 1 hour; 2 * 60 minutes = 2 hours",
    "1/2 of 10 + 2 = 7, half of 10 + 2 = 7, twice 5 + 1 = 11",
    "5 apples + 3 = 8",
    "5 = 7",
    "Week 3 = 5 * 2",
    "3:30 + 2 = 5:30",
    "5 * 3 kg = 15",
    "0.999... + 1 = 2 and 1 + 2 + ... + 10 = 55",
    r"$1 + 2 + \dots + 10 = 55$, $0.33\ldots = 1/3$",
    "10 choose 2 + 1 = 46 and log 10 + 1 = 2",
    "14, 400 / 80 = 180 and 60 * 240 = 14, 400",
    r"$101_2 + 1 = 6$ in base two",
    "2 * 3 = 6 thousand",
    "2,5 + 1 = 3,5",
    r"$\sum_{k=1}^{3} k = 6$",
    r"$13!(15 \cdot 14 - 1) = 13$ ! $\cdot 209$",
    r"$\operatorname{erf}(0.20) = 1 - 0.2227$",
    r"f($3$) + 1 = 4",
    "2 hours 20 - 10 = 130",
    "Adding, (1) + (2) = 5 and equation 1 + 2 = 5",
    "the atoms / metre 3 = 2 * 5",
    "= 3 and a half, 7 / 2 = 3 and 1 / 2",
    "[asy] draw(2 + 2 = 5); [/asy]",
]


@pytest.mark.parametrize(("text", "expected"), TAKEN)
def test_takes_claims_with_their_places(text: str, expected: list[str] | int) -> None:
    claims = claims_in(text)

    assert all(text[claim.start : claim.end] == claim.text for claim in claims)
    if isinstance(expected, int):
        assert len(claims) == expected
    else:
        assert [claim.text for claim in claims if claim.doubt in (None, "modular")] == expected


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_leaves_alone_what_is_no_claim(text: str) -> None:
    assert [claim.text for claim in claims_in(text) if claim.doubt is None] == []


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("If 2 + 2 = 5 then anything follows.", "condition"),
        ("Is 12*13 = 154?", "question"),
        ("We get 2 + 2 = 5, a contradiction.", "contradiction"),
        ("A common mistake is 1/2 + 1/3 = 2/5.", "contradiction"),
        ("Modulo 7 we have 3 * 5 = 1.", "modular"),
        ("On a clock, 11 + 3 = 2.", "modular"),
        ("10 / 3 = 4 when rounded up", "approximate"),
        ("A student claims:\n\n$$3+4=8.$$", "reported"),
        ("That is not so:\n\n$$3+4=8.$$", "contradiction"),
        ("We add:\n\n$$3+4=8.$$", None),
        ("Suppose it holds.\n\nThen $2+2=5$.", "supposition"),
        ("In $\\mathbb Z_{11}$ we have\n\n$6\\cdot2=1$", "modular"),
        ("Define $x\\times y=xy+1$.\n\nSo $2\\times3=7$.", "operation"),
        ("Here $l \\times w = A$.\n\nSo $2\\times3=7$.", None),
        ("The operation $*$ is new.\n\nSo $2 * 3 = 7$.", "operation"),
        ("With $a * b = ab+1$ on all sides, $2 + 3 = 7$.", None),
        ("12 * 13 = 154.", None),
    ],
)
def test_knows_what_is_doubtful(text: str, doubt: str | None) -> None:
    assert [claim.doubt for claim in claims_in(text) if len(claim.left) > 1 and claim.left[0].kind == "number"] == [
        doubt
    ]


@pytest.mark.parametrize(
    ("setting", "step", "doubt"),
    [
        ("We work modulo 7.", r"So $5\cdot3=1$", "modular"),
        ("Find it in base 8.", "Then $5+4=11$", "modular"),
        ("Assume the contrary.", "Then $2+2=5$", "supposition"),
        ("Let $a * b = a+b+ab$.", "Then $2 * 3 = 11$.", "operation"),
        (r"Let $a \star b$ be the larger one.", "Then $2 * 3 = 11$.", "operation"),
    ],
)
@pytest.mark.parametrize("between", ["\n\n", "\n\n" + "Some words stand here, and then 1 + 1 = 2. " * 100 + "\n\n"])
def test_a_step_is_read_with_its_context(setting: str, step: str, doubt: str | None, between: str) -> None:
    (claim,) = claims_in(step, setting + between)

    assert claim.doubt == doubt
    assert step[claim.start : claim.end] == claim.text


@pytest.mark.parametrize(
    "words",
    [
        "What remainder of the money is left at 5 p.m.?",
        "The triangles are congruent, and $F_1 = 1$.",
        "Let $a + b = 7$.",
    ],
)
def test_words_of_many_meanings_count_close_by_only(words: str) -> None:
    (claim,) = claims_in("Then $5+4=11$", words + " And so on." * 30)

    assert claim.doubt is None


@given(
    st.lists(
        st.sampled_from(["2+2=5", " So ", "$", "\\[", "\\]", "a * b = a", "mod 3", "suppose", ":", "\n\n", "```\n"])
    ),
    st.integers(min_value=0, max_value=40),
)
def test_a_step_with_its_context_says_what_the_whole_says(pieces: list[str], cut: int) -> None:
    text = "".join(pieces)
    whole = [(claim.start, claim.text, claim.doubt) for claim in claims_in(text) if claim.start >= cut]

    found = [(claim.start + cut, claim.text, claim.doubt) for claim in claims_in(text[cut:], text[:cut])]

    assert found == whole


def test_money_is_no_formula() -> None:
    text = "From $5 to $9 is $4, and $x+1$ is a formula; \\$3 too"

    assert [(zone.kind, text[zone.start : zone.end]) for zone in zones(text) if zone.kind == "latex"] == [
        ("latex", "x+1")
    ]


@given(st.text(alphabet=st.sampled_from(list("0123456789+-*/^=<>()[]{}$\\|!,. \n`abxfrac_&%°٣五")) | st.characters()))
def test_any_text_gives_claims_inside_it(text: str) -> None:
    for claim in claims_in(text):
        assert 0 <= claim.start < claim.end <= len(text)
        assert claim.text == text[claim.start : claim.end]


@given(st.lists(st.sampled_from(["$", "$$", "\\[", "\\]", "\\(", "\\)", "```\n", "`", "\n\n", "2+2=5 ", "a", "[asy]"])))
def test_zones_are_in_order_and_do_not_overlap(pieces: list[str]) -> None:
    text = "".join(pieces)
    end = 0
    for zone in zones(text):
        assert end <= zone.start <= zone.end <= len(text)
        end = zone.end


@pytest.mark.parametrize(
    "piece",
    ["$", "\\[", "(", "{", "1+", "2=", "\\frac{", "`", "\\begin{align}", "= ", "x", "\n", "|", "٣", "1,", "$1 "],
)
def test_hostile_repetition_takes_no_time(piece: str) -> None:
    text = (piece * MAX_TEXT_CHARS)[:MAX_TEXT_CHARS]
    started = time.process_time()

    claims = claims_in(text)

    assert len(claims) <= MAX_CLAIMS
    assert time.process_time() - started < 10


def test_a_longer_text_is_not_read() -> None:
    assert claims_in("2 + 2 = 5\n" * (MAX_TEXT_CHARS // 10 + 1)) == ()
