r"""A front of the model's own tokenizer for mathematical text: what is said stays, how it is written is made uniform.

Two parts, each usable alone:

- `normalize_math_text`, a small table. It maps typographic variants to what models have seen most: ASCII digits and
  spaces, LaTeX commands for operators, `^{}` and `_{}` for raised and lowered characters. It never changes the value
  or the order of numbers, and doing it twice changes nothing. Greek letters, sets, arrows, en dashes (ranges), roots
  and LaTeX itself (`\left(` ...) are left alone.
- `MathTokenizer`, which cuts between letters and digits, so that no token holds both, whatever the vocabulary.
  How digits are grouped among themselves is left to the model's tokenizer: Qwen2 takes them one at a time, Llama 3 up
  to three from the left. Right-aligned groups can help arithmetic (Singh & Strouse 2024, arXiv:2402.14903), but
  a model reads what it was trained to read: cutting against its training was not tried here.

Control tokens cannot come out of either: `EngineTokenizer` knows them by name only, and no rule here makes one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from mathlete.ryanstream.model.tokenizer import EngineTokenizer

_SPACES = "\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_NOTHING = "\u00ad\u200b\u2060\ufeff"  # soft hyphen, zero-width space, word joiner, byte order mark

# One character each. A "·" between digits may be a decimal point, so it is not here but in `_rewrite_dot`.
_CHARACTERS = {
    "\u2212": "-", "\uff0d": "-", "\ufe63": "-", "\u2010": "-", "\u2011": "-",
    "\uff0b": "+", "\uff1d": "=", "\uff1c": "<", "\uff1e": ">", "\uff0a": "*", "\uff0f": "/", "\uff05": "%",
    "\u2044": "/", "\u2215": "/", "\u2026": "...",
    "\u2018": "'", "\u2019": "'", "\u201b": "'", "\u2032": "'",
    "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u2033": "''",
    "\u2028": "\n", "\u2029": "\n",
}  # fmt: skip
# Operators become commands; a command is kept apart from what follows.
_COMMANDS = {
    "×": r"\times", "÷": r"\div", "⋅": r"\cdot", "·": r"\cdot", "±": r"\pm", "∓": r"\mp", "≤": r"\leq", "≥": r"\geq",
    "≦": r"\leq", "≧": r"\geq", "≠": r"\neq", "≈": r"\approx", "≡": r"\equiv", "∞": r"\infty", "⋯": r"\cdots",
}  # fmt: skip
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₕₖₗₘₙₚₛₜᵢⱼ", "0123456789+-=()aeoxhklmnpstij", strict=True))
_FRACTIONS = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞↉"


_FULL_WIDTH_LETTERS = (*range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))
_TABLE = {
    **{ord(character): text for character, text in _CHARACTERS.items()},
    **{ord(space): " " for space in _SPACES},
    **{code: chr(code - 0xFEE0) for code in _FULL_WIDTH_LETTERS},
}
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_INVISIBLE = re.compile(f"[{_NOTHING}]+")
_BUILT_FRACTION = re.compile(f"([{''.join(_RAISED)}]+)[\u2044/]([{''.join(_LOWERED)}]+)")
_RUN = re.compile(f"(?P<raised>[{''.join(_RAISED)}]+)|(?P<lowered>[{''.join(_LOWERED)}]+)|(?P<part>[{_FRACTIONS}])")
_COMMAND = re.compile(f"([{''.join(_COMMANDS)}])(?=(.?))", re.DOTALL)
_SIZED_FRACTION = re.compile(r"(?<!\\)\\[dtc]frac(?![A-Za-z])")
_LETTER_MEETS_DIGIT = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")


def normalize_math_text(text: str) -> str:
    r"""The text with typographic variants made uniform; see the module's own description.

    The rules: spaces of any width become plain ones and invisible characters go (not between two digits, which they
    hold apart); digits of any script, full-width letters and operators, minus signs, slashes, quotes, primes and the
    ellipsis become ASCII; raised and lowered runs become `^{...}` and `_{...}`; fractions such as ½ become
    `\frac{1}{2}`; × ÷ ⋅ ± ≤ ≥ ≠ ≈ ≡ ∞ and others become LaTeX commands; `\dfrac`, `\tfrac`, `\cfrac` become `\frac`.
    """
    if not text.isascii():
        text = _BUILT_FRACTION.sub(lambda m: _fraction(_spelled(m[1], _RAISED), _spelled(m[2], _LOWERED)), text)
        text = _FOREIGN_DIGIT.sub(lambda m: str(unicodedata.digit(m[0])), text.translate(_TABLE))
        text = _RUN.sub(_rewrite_run, text)
        text = _INVISIBLE.sub(_keep_between_digits, text)  # raised and lowered digits are apart by now
        text = _COMMAND.sub(_rewrite_command, text)
    return _SIZED_FRACTION.sub(r"\\frac", text)


class MathTokenizer:
    """Encodes mathematical text with a model's tokenizer; no token holds a letter and a digit."""

    def __init__(self, tokenizer: EngineTokenizer) -> None:
        """Put itself before `tokenizer`, which decodes as it always does."""
        self._tokenizer = tokenizer

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Ids by name, which no text can produce."""
        return self._tokenizer.control_tokens

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it is, never a control token; for a uniform one, `normalize_math_text` it first.

        Byte-level tokenizers of the Qwen2 and Llama 3 kind cut between letters and digits themselves: there the ids
        are those of the tokenizer.
        """
        return [token_id for part in _LETTER_MEETS_DIGIT.split(text) for token_id in self._tokenizer.encode(part)]


def _keep_between_digits(match: re.Match[str]) -> str:
    before, after = match.string[match.start() - 1 : match.start()], match.string[match.end() : match.end() + 1]
    return match[0] if before.isdecimal() and after.isdecimal() else ""


def _rewrite_run(match: re.Match[str]) -> str:
    if match["raised"]:
        return f"^{{{_spelled(match['raised'], _RAISED)}}}"
    if match["lowered"]:
        return f"_{{{_spelled(match['lowered'], _LOWERED)}}}"
    numerator, denominator = unicodedata.normalize("NFKC", match["part"]).split("\u2044")
    return _fraction(numerator, denominator)


def _rewrite_command(match: re.Match[str]) -> str:
    """A command and the space after it, unless there is one or nothing follows. "·" between digits stays."""
    before, after = match.string[match.start() - 1 : match.start()], match[2]
    if match[1] == "·" and before.isdecimal() and after.isdecimal():
        return match[0]
    return _COMMANDS[match[1]] + (" " if after and not after.isspace() else "")


def _spelled(run: str, table: Mapping[str, str]) -> str:
    return "".join(table[character] for character in run)


def _fraction(numerator: str, denominator: str) -> str:
    return rf"\frac{{{numerator}}}{{{denominator}}}"
