r"""The smallest pieces of running mathematics, with their places: LaTeX inside a formula, or plain sentences.

Knows spellings only. What a sequence of tokens means is read in `expressions.py`; which of them belong to one
equation is decided in `equations_in_text.py`. Two ways of reading, because letters mean different things: in LaTeX
"ab" is a product, in a sentence it is a word. One pass of one regular expression over a text that the caller has
bounded; only ASCII digits are digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MathTokenKind = Literal[
    "number", "symbol", "operator", "function", "open", "close", "relation", "separator", "row", "modulus", "word",
    "currency", "unit", "other",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class MathToken:
    r"""One piece of text and where it stands.

    Attributes:
        kind: what it can be part of. "row" is LaTeX's line break in an aligned formula; "modulus" announces one
            ("\pmod"); a "word" may surround an equation; an "other" spoils whatever it touches.
        text: canonical spelling, such as "*" for \\times.
        start: index of its first character in the whole text.
        end: index behind its last character.
    """

    kind: MathTokenKind
    text: str
    start: int
    end: int


_THOUSANDS = r"(?:,\\!|,|\{,\}|\\,)[0-9]{3}"
_NUMBER = rf"[1-9][0-9]{{0,2}}(?:{_THOUSANDS})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
_INDEX = r"_\s*(?:[A-Za-z0-9]|\{[A-Za-z0-9,+\-\s]{1,12}\})"
_ACCENTED = r"\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"  # without the signs of multiplication and division
_FONTS = "text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mathtt|operatorname|mbox|hbox"

_LATEX = re.compile(
    rf"""
      (?P<space>\s+|~|&|\\[,;:!>\ ]|\\(?:quad|qquad)(?![A-Za-z])(?=\s*(?:\\text|$))
        |\\(?:left|right|displaystyle|limits|[bB]igg?[lr]?|nonumber|hfill)(?![A-Za-z]))
    | (?P<row>\\\\(?:\[[0-9a-z. ]{{0,9}}\])?|\\cr(?![A-Za-z]))
    | (?P<number>(?:{_NUMBER})(?P<base>\s*_|\.{{2,}}|\s*\\[cl]?dots|,[0-9])?)
    | (?P<dots>\.{{2,}}|…)
    | (?P<degree>\^\s*(?:\{{\s*\\circ\s*\}}|\\circ(?![A-Za-z]))|°|\\degree(?![A-Za-z]))
    | (?P<text>\\(?:{_FONTS})\s*\*?\{{(?P<content>[^{{}}]*)\}})
    | (?P<greek>\\(?:alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|rho
        |sigma|tau|phi|varphi|chi|psi|omega)(?![A-Za-z])(?:{_INDEX})?)
    | (?P<box>\\(?:boxed|fbox)\s*\{{)
    | (?P<command>\\[A-Za-z]+|\\.)
    | (?P<letters>[A-Za-z]+(?:{_INDEX})?)
    | (?P<char>\*\*|<=|>=|!=|<<|>>|==|:=|[=-]+>|.)
    """,
    re.VERBOSE | re.DOTALL,
)

_PLAIN = re.compile(
    rf"""
      (?P<line>\s*\n\s*(?:(?:[-*+•]|[0-9]{{1,2}}[.)])\s+)?|^\s*(?:[-*+•]|[0-9]{{1,2}}[.)])\s+)
    | (?P<space>\s+|(?<![0-9)\]])\*\*|\*\*(?![0-9(\[]))
    | (?P<dots>\.{{2,}}|…|/-(?![0-9(]))
    | (?P<number>(?:{_NUMBER}))(?P<glued>[A-Za-z_]+[A-Za-z0-9_]*|\.\.+|…|:[0-9]|,[0-9])?
    | (?P<factorial>(?<=[0-9)])!(?=\s|$))
    | (?P<stop>[.](?![0-9])|[?!](?=\s|$)|[,;:](?![0-9]))
    | (?P<word>[A-Za-z_{_ACCENTED}][A-Za-z0-9_'’{_ACCENTED}]*(?:-[A-Za-z]+)*)
    | (?P<command>\\(?:times|cdot|div|frac|dfrac|tfrac|sqrt)(?![A-Za-z])|\\\$)
    | (?P<char>\*\*|<=|>=|!=|<<|>>|==|:=|[=-]+>|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_TIMES = re.compile(r"[ \t]*[xX][ \t]*(?=\\?\$?[ \t]*[0-9.])|[ \t]+[xX][ \t]+(?=\()")

_SIGNS: dict[str, tuple[MathTokenKind, str]] = {
    **{text: ("operator", text) for text in ("+", "-", "*", "/", "^", "!", "_", "|")},
    **{text: ("operator", "*") for text in (r"\cdot", r"\times", r"\ast", "×", "·", "⋅", "∗")},
    **{text: ("operator", "/") for text in (r"\div", "÷")},
    **{text: ("operator", "-") for text in ("−", "–")},
    "**": ("operator", "^"),
    r"\bmod": ("operator", "mod"),
    r"\pmod": ("modulus", "pmod"),
    r"\mod": ("modulus", "mod"),
    **{text: ("function", "frac") for text in (r"\frac", r"\dfrac", r"\tfrac", r"\cfrac")},
    **{text: ("function", "binom") for text in (r"\binom", r"\dbinom", r"\tbinom")},
    **{rf"\{name}": ("function", name) for name in ("sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "ln", "log")},
    r"\pi": ("symbol", "pi"),
    "π": ("symbol", "pi"),
    **{text: ("open", text) for text in ("(", "[", "{", r"\lfloor", r"\lceil", r"\lvert")},
    **{text: ("close", text) for text in (")", "]", "}", r"\rfloor", r"\rceil", r"\rvert")},
    r"\lbrace": ("other", "{"),
    **{text: ("relation", "=") for text in ("=", "==")},
    **{text: ("relation", "<=") for text in (r"\le", r"\leq", r"\leqslant", "≤", "<=")},
    **{text: ("relation", ">=") for text in (r"\ge", r"\geq", r"\geqslant", "≥", ">=")},
    **{text: ("relation", "<") for text in ("<", r"\lt")},
    **{text: ("relation", ">") for text in (">", r"\gt")},
    **{text: ("relation", "equiv") for text in (r"\equiv", "≡")},
    **{text: ("relation", "other") for text in (r"\approx", "≈", r"\sim", r"\simeq", r"\cong", r"\doteq", r"\propto")},
    **{text: ("relation", "other") for text in (r"\neq", r"\ne", "≠", "!=", ":=", r"\coloneqq", "<<", ">>", r"\in")},
    **{
        text: ("separator", text)
        for text in (",", ";", ":", ".", "?", r"\quad", r"\qquad", r"\implies", r"\Rightarrow", "⇒")
    },
    **{text: ("separator", text) for text in (r"\iff", r"\Leftrightarrow", r"\Longrightarrow", r"\therefore", "→")},
    **{text: ("separator", text) for text in (r"\to", r"\rightarrow", r"\Longleftrightarrow", r"\longrightarrow", "∴")},
    **{text: ("separator", text) for text in (r"\hspace", r"\because", r"\land", r"\wedge", "->", "=>", "-->", "==>")},
    r"\$": ("currency", "$"),
    "$": ("currency", "$"),
    "€": ("currency", "$"),
    "£": ("currency", "$"),
}


def latex_tokens(text: str, start: int, end: int) -> list[MathToken]:
    """Tokens of the formula `text[start:end]`; white space, alignment marks and fonts are gone."""
    tokens: list[MathToken] = []
    position = start
    while position < end:
        match = _LATEX.match(text, position, end)
        assert match is not None  # its last branch takes any character
        tokens.extend(_latex_token(match))
        position = match.end()
    return tokens


def _latex_token(match: re.Match[str]) -> Iterator[MathToken]:
    start, end = match.span()
    if match["number"] is not None:
        based = match["base"] is not None  # 123_5 is no decimal number, 0.33... none that ends
        yield MathToken("other" if based else "number", _digits(match["number"]), start, end)
    elif match["row"] is not None:
        yield MathToken("row", "row", start, end)
    elif match["degree"] is not None:
        yield MathToken("unit", "degree", start, end)
    elif match["text"] is not None:
        yield _of_text(match["content"].strip(), start, end)
    elif match["box"] is not None:
        yield MathToken("open", "{", start, end)
    elif match["greek"] is not None:
        yield MathToken("symbol", "".join(match["greek"].split()), start, end)
    elif match["letters"] is not None:
        yield from _of_letters(match["letters"], start, end)
    elif match["dots"] is not None:
        yield MathToken("other", "...", start, end)
    elif match["space"] is None:
        yield _sign(match["command"] or match["char"], start, end)


def _of_text(content: str, start: int, end: int) -> MathToken:
    """Of the inside of a font command: arithmetic is not looked for in it."""
    if content in ("mod", "mod ", "(mod", "modulo"):
        return MathToken("modulus", "mod", start, end)
    if any(character.isdigit() for character in content):
        return MathToken("other", content, start, end)
    return MathToken("word", content.lower(), start, end)


def _of_letters(letters: str, start: int, end: int) -> Iterator[MathToken]:
    """A product of single letters; more than three in a row are a word that lost its backslash."""
    run, _, index = letters.partition("_")
    run = run.rstrip()
    if run == "mod":
        yield MathToken("modulus", "mod", start, end)
    elif len(run) > 3 or run in ("sin", "cos", "tan", "log", "ln", "gcd", "lcm", "max", "min", "exp"):
        yield MathToken("other", run, start, end)
    else:
        for offset, letter in enumerate(run[:-1]):
            yield MathToken("symbol", letter, start + offset, start + offset + 1)
        name = run[-1] + ("_" + "".join(index.split()).strip("{}") if index else "")
        yield MathToken("symbol", name, start + len(run) - 1, end)


def plain_tokens(text: str, start: int, end: int) -> list[MathToken]:
    """Tokens of the sentence or sentences in `text[start:end]`; every letter belongs to a word."""
    tokens: list[MathToken] = []
    position = start
    while position < end:
        match = _PLAIN.match(text, position, end)
        assert match is not None  # its last branch takes any character
        position = match.end()
        if match["number"] is not None:
            times = _TIMES.match(text, match.end("number"), end)
            if times is not None:
                position = times.end()
                tokens.append(MathToken("number", _digits(match["number"]), match.start(), match.end("number")))
                tokens.append(MathToken("operator", "*", match.end("number"), position))
                continue
        token = _plain_token(match)
        if token is not None:
            tokens.append(token)
        if match["char"] == ")" and (times := _TIMES.match(text, position, end)) is not None:
            tokens.append(MathToken("operator", "*", position, times.end()))
            position = times.end()
    return tokens


def _plain_token(match: re.Match[str]) -> MathToken | None:
    start, end = match.span()
    if match["number"] is not None:
        if match["glued"] is not None:
            return MathToken("other", match[0], start, end)  # 5th, 3kg, 3:30
        return MathToken("number", _digits(match["number"]), start, end)
    if match["line"] is not None or match["stop"] is not None:
        return MathToken("separator", "\n" if match["line"] is not None else match["stop"], start, end)
    if match["word"] is not None:
        return MathToken("word", match["word"].lower(), start, end)
    if match["factorial"] is not None:  # or the end of a sentence
        return MathToken("other", "!", start, end)
    if match["dots"] is not None:
        return MathToken("other", "...", start, end)
    if match["space"] is not None:
        return None
    return _sign(match["command"] or match["char"], start, end)


def _sign(text: str, start: int, end: int) -> MathToken:
    kind, canonical = _SIGNS.get(text, ("other", text))
    return MathToken(kind, canonical, start, end)


def _digits(number: str) -> str:
    return re.sub(r"[^0-9.]", "", number)
