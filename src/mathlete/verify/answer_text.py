r"""Answers as text: wrappers taken off, spellings brought together, and cut where brackets allow it.

Knows LaTeX, Unicode and programs' spellings and which bracket belongs to which; does not know what any piece means
(`answer_forms.py` does). All passes are linear in the text, which the caller has bounded.
"""

from __future__ import annotations

import re

from mathlete.verify.ceilings import MAX_NESTING

_WRAPPERS = ("**", "$$", "$", "`", "__", "*", "_")
_SPELLINGS = {
    "−": "-", "–": "-", "∞": r"\infty ", "∪": r"\cup ", "∈": r"\in ", "≤": r"\le ", "≥": r"\ge ", "±": r"\pm ",
    "√": r"\sqrt ", "²": "^2", "³": "^3", "·": r"\cdot ", "×": r"\times ", "π": r"\pi ", "÷": "/", "…": r"\ldots ",
    "{,}": "", r"\left": "", r"\right": "", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\$": "\N{DOLLAR SIGN}",
    r"\leqslant": r"\le ", r"\geqslant": r"\ge ", r"\leq": r"\le ", r"\geq": r"\ge ", r"\displaystyle": "",
    r"\!": "", r"\,": " ", r"\;": " ", r"\:": " ", r"\ ": " ", "~": " ", r"\lor": r"\text{or}", r"\dots": r"\ldots ",
    r"\cdots": r"\ldots ", "...": r"\ldots ", r"\emptyset": r"\varnothing ", "∅": r"\varnothing ",
}  # fmt: skip
_SPELLED = re.compile(
    "|".join(
        re.escape(spelling) + ("(?![A-Za-z])" if re.fullmatch(r"\\[A-Za-z]+", spelling) else "")
        for spelling in sorted(_SPELLINGS, key=len, reverse=True)
    )
)
_PROGRAM_NAMES = re.compile(
    r"(?<![\\A-Za-z_])(?:math\.|np\.|sympy\.)?(sqrt|sin|cos|tan|cot|sec|csc|ln|log|pi|oo)(?![A-Za-z])"
)
_TIGHT_COMMA = re.compile(r"(?<=[0-9]),\\!\s*(?=[0-9]{3})")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BARE_ROOT = re.compile(r"\\sqrt\s*([0-9]+|[A-Za-z](?![A-Za-z]))")
_THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3})+)(?![\d,])", re.ASCII)
_MARK = re.compile(r"\\begin\{[A-Za-z*]*\}|\\end\{[A-Za-z*]*\}|\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}"}
_CLOSING = frozenset(_OPENING.values())


def tidied(raw: str) -> str:
    r"""Without what surrounds an answer (Markdown, dollar signs, \boxed, a full stop), in one spelling."""
    text = raw.strip()
    for _ in range(MAX_NESTING):
        before = text
        if re.search(r"[^.]\.$", text):
            text = text[:-1].rstrip()
        for wrapper in _WRAPPERS:
            inner = text[len(wrapper) : -len(wrapper)]
            if len(text) > 2 * len(wrapper) and text.startswith(wrapper) and text.endswith(wrapper):
                text = inner.strip() if wrapper not in inner.replace(r"\$", "") or wrapper == "*" else text
        for left, right in ((r"\(", r"\)"), (r"\[", r"\]")):
            if text.startswith(left) and text.endswith(right) and text.count(left) == 1:
                text = text[2:-2].strip()
        if (box := _BOX.match(text)) is not None and closing_place(text, box.end() - 1) == len(text) - 1:
            text = text[box.end() : -1].strip()
        if text == before:
            break
    text = _TIGHT_COMMA.sub("", text)
    text = _SPELLED.sub(lambda match: _SPELLINGS[match.group()], text.replace(r"\\", "\0")).replace("\0", r"\\")
    text = _PROGRAM_NAMES.sub(lambda match: r"\infty " if match[1] == "oo" else rf"\{match[1]} ", text)
    return _with_braces(_BARE_ROOT.sub(r"\\sqrt{\1}", text)).strip()


def _with_braces(text: str) -> str:
    r"""With "\sqrt(...)" as "\sqrt{...}"."""
    pieces: list[str] = []
    open_roots: list[bool] = []  # for each open bracket, whether it is that of a root
    after_root = False
    for match in _MARK.finditer(text):
        mark = match.group()
        if mark in _OPENING:
            is_root = after_root and mark == "("
            open_roots.append(is_root)
            mark = "{" if is_root else mark
        elif mark in _CLOSING and open_roots and open_roots.pop():
            mark = "}"
        after_root = mark == r"\sqrt" or (after_root and mark.isspace())
        pieces.append(mark)
    return "".join(pieces)


def without_thousands(text: str) -> str:
    """With "1,234" as "1234"."""
    return _THOUSANDS.sub(lambda match: match[1] + match[2].replace(",", ""), text)


def closing_place(text: str, start: int) -> int | None:
    """Where the bracket that opens at `start` is closed, by a bracket of any kind: the index of the closer's end."""
    depth = 0
    for match in _MARK.finditer(text, start):
        depth += _step(match.group())
        if depth == 0:
            return match.end() - 1
    return None


def enclosed(text: str) -> tuple[str, str, str] | None:
    """(opening, inside, closing) when one pair of brackets surrounds all of `text`; "[0, 1)" counts."""
    opening = next((mark for mark in (r"\{", "(", "[", "{") if text.startswith(mark)), None)
    if opening is None or closing_place(text, 0) != len(text) - 1:
        return None
    closing = r"\}" if text.endswith(r"\}") else text[-1]
    return opening, text[len(opening) : len(text) - len(closing)].strip(), closing


def split_outside(text: str, separator: re.Pattern[str]) -> list[str]:
    """The pieces between separators that stand outside all brackets.

    Args:
        text: what is cut.
        separator: tried at every place outside brackets.
    """
    pieces: list[str] = []
    depth, start, position = 0, 0, 0
    while position < len(text):
        cut = separator.match(text, position) if depth == 0 else None
        if cut is not None and cut.end() > position:
            pieces.append(text[start:position].strip())
            start = position = cut.end()
            continue
        match = _MARK.match(text, position)
        assert match is not None  # its last branch takes any character
        depth += _step(match.group())
        position = match.end()
    pieces.append(text[start:].strip())
    return pieces


def _step(mark: str) -> int:
    if mark in _OPENING or mark.startswith(r"\begin{"):
        return 1
    return -1 if mark in _CLOSING or mark.startswith(r"\end{") else 0
