r"""Mathematics in text: where it is, and LaTeX turned into MathML.

Knows delimiters, and which of latex2mathml's elements and attributes a browser may see. The
converter copies what is inside `\text{...}`, `\href{...}` or `\style{...}` into its output
unescaped, so its output is never used as text: its tree is walked and written anew from a list of
harmless names. What cannot be converted is shown as the LaTeX it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element

from mathlete.report.markup import Html, clean, escape, join, tag

MAX_LATEX_CHARS = 2_000
_MAX_SPAN_CHARS = 6_000
_MAX_DEPTH = 60
_ELEMENTS = frozenset(
    "mrow mi mn mo mtext mspace ms mfrac msqrt mroot mstyle msub msup msubsup munder mover munderover "
    "mmultiscripts mprescripts none mtable mtr mtd mphantom mpadded merror".split()
)
_LENGTH = re.compile(r"-?(?:[0-4](?:\.\d{1,4})?|\.\d{1,4})(?:em|ex)|0|-?\d(?:\.\d+)?pt")
_TRUTH = re.compile("true|false")
_ATTRIBUTES = {
    "stretchy": _TRUTH,
    "fence": _TRUTH,
    "largeop": _TRUTH,
    "movablelimits": _TRUTH,
    "accent": _TRUTH,
    "displaystyle": _TRUTH,
    "form": re.compile("prefix|infix|postfix"),
    "mathvariant": re.compile("normal"),
    "scriptlevel": re.compile(r"\+?[0-3]"),
    "columnspan": re.compile(r"[1-9]"),
    "linethickness": _LENGTH,
    "width": _LENGTH,
    "lspace": _LENGTH,
    "rspace": _LENGTH,
    "minsize": _LENGTH,
    "maxsize": _LENGTH,
}
# What the converter does not know, in terms of what it does.
_REWRITINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(begin|end)\{(?:aligned|eqnarray)\*?\}(?:\[[tcb]\])?", r"\\\1{align*}"),
        (r"\\(begin|end)\{align(?:ed)?at\*?\}(?:\{\d*\})?", r"\\\1{align*}"),
        (r"\\(begin|end)\{(?:gather(?:ed)?|multline)\*?\}", r"\\\1{matrix}"),
        (r"\\(begin|end)\{[dr]cases\*?\}", r"\\\1{cases}"),
        (r"\\(?:begin|end)\{equation\*?\}|\\label\{[^{}]*\}", ""),
        (r"\\(?:notag|nonumber|hfill|allowbreak|middle|displaylines|ensuremath)(?![A-Za-z])", ""),
        (r"\\(lcm|arg|ord|sgn|lcd)(?![A-Za-z])", r"\\operatorname{\1}"),
        (r"\\over(?:arc|paren)(?![A-Za-z])", r"\\overset{\\frown}"),
        (r"\\textsuperscript(?![A-Za-z])", r"^\\text"),
        (r"\\textdollar(?![A-Za-z])", r"\\$"),
    ]
)
_THOUSANDS_COMMA = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_RELATION = re.compile("[\u2190-\u21ff\u27f0-\u27ff\u2900-\u297f\u2223-\u2226\u22a5]")
_CANDIDATE = re.compile(r"\\\\|\\\$|\$|\\\(|\\\[|\\boxed\{|\\fbox\{|\\begin\{")
_CLOSERS = {r"\(": r"\)", r"\[": r"\]"}
_ENVIRONMENT = re.compile(
    r"\\begin\{((?:align|gather|equation|multline|eqnarray|alignat)(?:ed|at)?\*?|array|cases|[pbvBV]?matrix)\}"
)
_MONEY = re.compile(r"\s?\d[\d,]*(?:\.\d+)?[,.;:!?)]*\s")
_COMMAND_OR_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|operatorname)\*?\s*\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"(?<!\S)[(\"']*([A-Za-z]{2,})(?=[\s,.;:!?)'\"]|$)")
_FUNCTION_NAMES = frozenset("mod gcd lcm sin cos tan cot sec csc log ln exp max min deg det dim lim".split())


@dataclass(frozen=True, slots=True)
class MathSpan:
    """Mathematics in a text.

    Attributes:
        start: index of its first delimiter.
        end: index after its last delimiter.
        latex: what is between them.
        display: whether it stands on its own line.
    """

    start: int
    end: int
    latex: str
    display: bool


def match_math(text: str, start: int) -> MathSpan | None:
    r"""The mathematics that begins exactly at `start`, if any.

    Delimiters: `$..$`, `$$..$$`, `\(..\)`, `\[..\]`, `\boxed{..}` and top-level environments such
    as `align*`. Sums of money are not mathematics: see `_is_inline_math`.
    """
    if text.startswith("$$", start):
        return _delimited(text, start, "$$", "$$", display=True)
    if text.startswith("$", start):
        return _dollars(text, start)
    opener = text[start : start + 2]
    if opener in _CLOSERS:
        return _delimited(text, start, opener, _CLOSERS[opener], display=opener == r"\[")
    if text.startswith((r"\boxed{", r"\fbox{"), start):
        end = _closing_brace(text, text.index("{", start))
        return None if end is None else MathSpan(start, end, text[start:end], display=False)
    environment = _ENVIRONMENT.match(text, start)
    if environment is None:
        return None
    closer = rf"\end{{{environment[1]}}}"
    found = text.find(closer, environment.end(), start + _MAX_SPAN_CHARS)
    end = found + len(closer)
    return None if found < 0 else MathSpan(start, end, text[start:end], display=True)


def split_math(text: str) -> Iterator[str | MathSpan]:
    """The text in order, cut into plain pieces and mathematics. A backslashed dollar loses its backslash."""
    done = 0
    position = 0
    while found := _CANDIDATE.search(text, position):
        position = found.end()
        if found[0] == r"\$":
            yield text[done : found.start()]
            done = found.start() + 1
        elif found[0] != r"\\" and (span := match_math(text, found.start())) is not None:
            yield text[done : span.start]
            yield span
            done = position = span.end
    yield text[done:]


@lru_cache(maxsize=20_000)
def to_mathml(latex: str, display: bool = False) -> Html:
    """LaTeX as MathML, or as `<code>` when it is too long or cannot be converted. Never raises."""
    source = clean(latex).strip()
    content = _convert(source, display)
    if content is None:
        shown = tag("code", source, class_="latex", title="Shown as written: this LaTeX could not be typeset")
        return tag("div", shown, class_="display") if display else shown
    if display:
        return tag("div", tag("math", content, display="block", title=source), class_="display")
    return tag("math", content, title=source)


def _convert(source: str, display: bool) -> Html | None:
    if not source or len(source) > MAX_LATEX_CHARS:
        return None
    for pattern, replacement in _REWRITINGS:
        source = pattern.sub(replacement, source)
    if r"\text" not in source:
        source = _THOUSANDS_COMMA.sub(lambda _: r"\text{,}", source)  # a comma in a number is no separator
    try:
        tree = convert_to_element(source, display="block" if display else "inline")
        return join(_write(child, 0) for child in tree)
    except Exception:  # the converter raises whatever its parser trips over; the caller shows the source instead
        return None


def _write(element: Element, depth: int) -> Html:
    """The element written anew, with harmless names only; children of others stand in their place."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    text = escape(html.unescape(element.text)) if element.text else Html()
    inside = join([text, *(_write(child, depth + 1) for child in element)])
    name = "mrow" if element.tag == "menclose" else element.tag
    if name not in _ELEMENTS:
        return inside
    attributes = {
        key: value for key, value in element.attrib.items() if key in _ATTRIBUTES and _ATTRIBUTES[key].fullmatch(value)
    }
    if name == "mi" and _RELATION.fullmatch(inside):
        name = "mo"  # the converter takes some arrows for identifiers, which get no space around them
    if name == "mo" and inside in (".", ",", ";", ":"):
        attributes["lspace"] = "0"  # browsers set a full stop at the end of a formula as if it were an operator
    return tag(name, inside, class_=_classes(element) or None, **attributes)


def _classes(element: Element) -> str:
    """Classes for what MathML Core leaves to the style sheet: boxes, strokes, bold, columns."""
    classes = []
    if element.tag == "menclose":
        classes.append("boxed" if element.get("notation") in ("box", "roundedbox") else "struck")
    if "bold" in element.get("mathvariant", ""):
        classes.append("bold")
    if (align := element.get("columnalign")) in ("left", "right"):
        classes.append(f"to-{align}")
    if element.tag == "mtable" and element.get("columnspacing", "").startswith("0em"):
        classes.append("aligned")
    if element.tag == "mtable" and ("solid" in element.get("columnlines", "") + element.get("rowlines", "")):
        classes.append("ruled")
    return " ".join(classes)


def _delimited(text: str, start: int, opener: str, closer: str, display: bool) -> MathSpan | None:
    begin = start + len(opener)
    found = text.find(closer, begin, begin + _MAX_SPAN_CHARS)
    if found < 0 or not text[begin:found].strip():
        return None
    return MathSpan(start, found + len(closer), text[begin:found], display)


def _dollars(text: str, start: int) -> MathSpan | None:
    end = start + 1
    limit = min(len(text), start + _MAX_SPAN_CHARS)
    while end < limit and text[end] != "$":
        end += 2 if text[end] == "\\" else 1
    if end >= limit:
        return None
    content = text[start + 1 : end]
    if not _is_inline_math(content, text[end + 1 : end + 2]):
        return None
    return MathSpan(start, end + 1, content, display=False)


def _is_inline_math(content: str, following: str) -> bool:
    """Whether what stands between two dollars is mathematics rather than prose between two prices.

    Pandoc's rule first (no space inside the delimiters, no digit after), loosened for `$ x $`; then: what
    begins with a number that ends there and goes on with a word, or has three words of prose, is not.
    """
    if not content.strip() or "\n\n" in content or following.isdigit():
        return False
    if content[0].isspace() != content[-1].isspace():
        return False
    words: list[str] = _WORD.findall(_COMMAND_OR_TEXT.sub(" ", content))
    words = [word for word in words if word not in _FUNCTION_NAMES]
    if _MONEY.match(content) and words:
        return False
    if content[0].isspace() and words:
        return False
    return sum(word.islower() and len(word) > 2 for word in words) < 3


def _closing_brace(text: str, opening: int) -> int | None:
    depth = 0
    for index in range(opening, min(len(text), opening + _MAX_SPAN_CHARS)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index + 1
    return None
