"""A program that a model wrote and what it printed.

Knows how to colour Python and how to show an outcome. Does not know attempts.
"""

from __future__ import annotations

from collections.abc import Iterable

from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

from mathlete.core.code import RunStatus, ToolResult
from mathlete.report.markup import Html, clean, join, shorten_middle, tag

MAX_COLOURED_CHARS = 20_000
_LONG_WAIT_S = 0.05
_RESTARTED = "Its session had died: it ran in a fresh one, without what earlier programs had defined."
_LEXER = PythonLexer(ensurenl=False, stripnl=False)
_PYTHON_NAMES = frozenset({"python", "py", "python3", "sage", "sympy"})
_CLASSES = (
    (Comment, "c"),
    (Keyword, "k"),
    (Operator.Word, "k"),
    (String, "s"),
    (Number, "m"),
    (Name.Function, "f"),
    (Name.Class, "f"),
    (Name.Builtin, "b"),
)
_OUTCOMES: dict[RunStatus, str] = {
    "ok": "ran",
    "error": "failed",
    "timeout": "ran out of time",
    "memory": "ran out of memory",
    "output_limit": "printed too much and was ended",
    "killed": "was killed",
}


def render_program(code: str, language: str = "python") -> Html:
    """Source text in a box; coloured when it is Python of reasonable length."""
    text = clean(code).strip("\n")
    if language.lower() in _PYTHON_NAMES and len(text) <= MAX_COLOURED_CHARS:
        inside = join(_coloured(text))
    else:
        inside = join([text])
    return tag("pre", tag("code", inside), class_="code")


def render_result(result: ToolResult, max_chars: int) -> Html:
    """How a program ended and what it wrote, each stream cut in its middle beyond `max_chars`."""
    heading = [tag("strong", "Program " + _OUTCOMES.get(result.status, result.status)), f" in {result.elapsed_s:.2f} s"]
    if result.waited_s >= _LONG_WAIT_S:
        heading.append(f", after waiting {result.waited_s:.2f} s for a free worker")
    if result.isolation:
        heading.append(tag("span", " · isolated by " + ", ".join(result.isolation), class_="quiet"))
    streams = [("output", result.stdout), ("errors", result.stderr)]
    boxes = [
        tag("div", tag("p", name, class_="label"), tag("pre", shorten_middle(text, max_chars)))
        for name, text in streams
        if text.strip()
    ]
    if not boxes:
        boxes = [tag("p", "It printed nothing.", class_="quiet")]
    state = "ok" if result.status == "ok" else "bad"
    note = tag("p", _RESTARTED, class_="quiet") if result.session_restarted else ""
    return tag("div", tag("p", *heading, class_="outcome"), note, *boxes, class_=f"result {state}")


def _coloured(code: str) -> Iterable[str]:
    for kind, text in _LEXER.get_tokens(code):
        name = next((name for parent, name in _CLASSES if kind in parent), None)
        yield text if name is None else tag("span", text, class_=name)
