r"""How mathematicians, models and programs spell numbers: text in, tokens of `arithmetic.py` out.

Knows LaTeX commands, separators of thousands, units and words. Does not know what they mean together.
One pass of one regular expression over a text that the caller has bounded.
"""

from __future__ import annotations

import re

from mathlete.verify.arithmetic import Token, TokenKind

_FONTS = "text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mathtt|operatorname|mbox|rm|bf|boxed|fbox"
_UNIT_POWER = r"(?:\s*\^\s*(?:[23](?![0-9])|\{\s*[23]\s*\}))?"  # as in cm^2
_TIMES_TEN = r"(?:[eE][+-]?[0-9]{1,4}(?![0-9A-Za-z.]))?"  # as in 1.2e3
_THOUSANDS = r"(?:,\\!|,|\{,\}|\\[,;:!])[0-9]{3}"

_TOKEN = re.compile(
    rf"""
      (?P<space>\s+|~|\\[,;:!>\ ]|\\(?:quad|qquad|left|right|displaystyle|limits|[bB]igg?[lr]?)(?![A-Za-z]))
    | (?P<number>[1-9][0-9]{{0,2}}(?:{_THOUSANDS})+(?![0-9])(?:\.[0-9]+)?|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+){_TIMES_TEN})
    | (?P<modulo>%(?=\s*[0-9(]))
    | (?P<unit>\^\s*(?:\{{\s*\\circ\s*\}}|\\circ(?![A-Za-z]))|°|\\degree(?![A-Za-z])|\\?%)
    | (?P<text>\\(?:{_FONTS})\s*\{{(?P<content>[^{{}}]*)\}})(?P<textpower>{_UNIT_POWER})
    | (?P<font>\\(?:{_FONTS})(?![A-Za-z]))
    | (?P<command>\\[A-Za-z]+|\\.)
    | (?P<word>[A-Za-z]{{2,}}){_UNIT_POWER}
    | (?P<char>\*\*|.)
    """,
    re.VERBOSE | re.DOTALL,
)

_OPERATORS = {
    **{text: "*" for text in (r"\cdot", r"\times", r"\ast", "*", "×", "·", "⋅")},
    **{text: "/" for text in (r"\div", "/", "÷")},
    **{text: "-" for text in ("-", "−", "–")},
    **{text: "^" for text in ("^", "**")},
    **{text: "frac" for text in (r"\frac", r"\dfrac", r"\tfrac", r"\cfrac")},
    **{text: "binom" for text in (r"\binom", r"\dbinom", r"\tbinom")},
    **{text: "gcd" for text in (r"\gcd", "gcd")},
    **{text: "lcm" for text in (r"\lcm", "lcm")},
    **{text: "mod" for text in (r"\bmod", r"\mod", "mod")},
    **{text: text.lstrip("\\") for text in ("+", "!", r"\sqrt", r"\pmod")},
}
_SEPARATORS = frozenset(
    [",", ";", "or", "and", "to", r"\cup", r"\lor", r"\vee", r"\land", r"\wedge", r"\pm", r"\mp", "±", r"\ldots"]
)
_LABELS = {"=": "=", r"\equiv": "≡", "≡": "≡", ":": ":", r"\colon": ":", "is": ":", "are": ":", "equals": "="}
_OPENING = frozenset(["(", "[", "{", r"\{", r"\(", r"\["])
_ENDING = frozenset([")", "]", "}", r"\}", r"\)", r"\]"])
_LABEL_ENDINGS = (":", "=", " is", " are", " equals")


def tokenize(text: str) -> list[Token]:
    """The tokens of `text`; white space and fonts are gone, everything unknown is a "symbol"."""
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None  # its last branch takes any character
        position = match.end()
        if match["number"] is not None:
            digits = re.sub(r"[^0-9.eE+-]", "", match["number"])
            tokens.append(Token("number", digits, comma="," in match["number"].replace("{,}", "")))
        elif match["modulo"] is not None:
            tokens.append(Token("operator", "mod"))
        elif match["unit"] is not None:
            tokens.append(Token("unit", match["unit"]))
        elif match["text"] is not None:
            if any(character.isdigit() for character in match["content"]):
                position = match.end("text")
            tokens.extend(_text_tokens(match["content"]))
        elif match["word"] is not None:
            tokens.append(_named(match["word"].lower(), "word"))
        elif match["space"] is None and match["font"] is None:
            tokens.append(_named(match["command"] or match["char"], "symbol"))
    return tokens


def _text_tokens(content: str) -> list[Token]:
    r"""Of the inside of \text{...}: arithmetic when there is a digit in it, words otherwise."""
    if any(character.isdigit() for character in content):
        return [Token("open", "{"), *tokenize(content), Token("close", "}")]
    words = " ".join(content.lower().split())
    if not words:
        return []
    if words in _SEPARATORS or words in _OPERATORS:
        return [_named(words, "text")]
    token = Token("text", words)
    return [token, Token("label", ":")] if f" {words}".endswith(_LABEL_ENDINGS) else [token]


def _named(text: str, otherwise: TokenKind) -> Token:
    if text in _OPERATORS:
        return Token("operator", _OPERATORS[text])
    if text in _SEPARATORS:
        return Token("separator", text)
    if text in _LABELS:
        return Token("label", _LABELS[text])
    if text in _OPENING:
        return Token("open", text)
    if text in _ENDING:
        return Token("close", text)
    return Token(otherwise, text)
