"""Text with mathematics as HTML: problem statements, and what a model writes.

Statements are plain text with LaTeX. Models write a light Markdown besides; raw HTML, links and
images are off, so that their text can bring in nothing of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from mathlete.report.latex import match_math, split_math, to_mathml
from mathlete.report.markup import Html, clean, join, shorten, tag
from mathlete.report.program import render_program

_FIGURE = re.compile(r"\[asy\](.*?)\[/asy\]", re.DOTALL)
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_STYLED = re.compile(r"\\(emph|text[a-z]{2})\{([^{}]*)\}")
_ESCAPED = re.compile(r"\\([%&#_{}])")
_TAIL = re.compile(r"[ \t]*[.,;:]?[ \t]*")


def render_statement(text: str) -> Html:
    """A problem's statement: paragraphs, mathematics, and Asymptote figures folded away as source."""
    pieces = _FIGURE.split(clean(text))  # text, figure, text, figure, ..., text
    blocks: list[str] = []
    for index, piece in enumerate(pieces):
        if index % 2:
            figure = [tag("summary", "Figure, as Asymptote source"), tag("pre", piece.strip())]
            blocks.append(tag("details", *figure, class_="figure"))
        else:
            blocks.extend(
                tag("div", _inline(part), class_="para") for part in _PARAGRAPH_BREAK.split(piece) if part.strip()
            )
    return join(blocks)


def render_excerpt(text: str, max_chars: int) -> Html:
    """The first words of a statement on one line; a formula is shown whole or not at all."""
    parts: list[str] = []
    left = max_chars
    for piece in split_math(_FIGURE.sub(" ", clean(text))):
        length = len(piece) if isinstance(piece, str) else len(piece.latex) // 2
        if length > left:
            parts.append(_text(shorten(piece, left)) if isinstance(piece, str) else "…")
            break
        parts.append(_text(piece) if isinstance(piece, str) else to_mathml(piece.latex))
        left -= length
    return join(parts)


def render_prose(text: str) -> Html:
    """What a model wrote: emphasis, lists, headings, tables, code, mathematics."""
    return Html(_MARKDOWN.render(clean(text)))


def _inline(text: str) -> Html:
    return join(
        _text(piece) if isinstance(piece, str) else to_mathml(piece.latex, piece.display)
        for piece in split_math(text.strip("\n"))
    )


def _text(piece: str) -> Html:
    """A piece without mathematics; LaTeX's emphasis and escapes are known, other commands stay as they are."""
    parts = _STYLED.split(piece)  # text, command, argument, text, command, argument, ..., text
    shown: list[str] = [_ESCAPED.sub(r"\1", parts[0])]
    for command, argument, following in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        name = {"emph": "em", "textit": "em", "textsl": "em", "textbf": "strong"}.get(command, "span")
        shown += [tag(name, _ESCAPED.sub(r"\1", argument)), _ESCAPED.sub(r"\1", following)]
    return join(shown)


def _math_inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    span = match_math(state.src, state.pos)
    if span is None or span.end > state.posMax:
        return False
    if not silent:
        token = state.push("math", "", 0)
        token.content = span.latex
        token.meta = {"display": span.display}
    state.pos = span.end
    return True


def _math_block(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """Display mathematics on lines of its own: what is inside must not be read as lists or headings."""
    span = match_math(state.src, state.bMarks[start_line] + state.tShift[start_line])
    if span is None or not span.display:
        return False
    line = start_line
    while line < end_line and state.eMarks[line] < span.end:
        line += 1
    if line >= end_line:
        return False
    tail = state.src[span.end : state.eMarks[line]]
    if not _TAIL.fullmatch(tail):
        return False
    if not silent:
        token = state.push("math", "", 0)
        token.block = True
        token.content = span.latex
        token.meta = {"display": True}
        state.line = line + 1
    return True


def _render_math(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Mapping[str, Any]
) -> str:
    token = tokens[index]
    return to_mathml(token.content, token.meta["display"])


def _render_fence(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Mapping[str, Any]
) -> str:
    words = tokens[index].info.split()
    return render_program(tokens[index].content, words[0] if words else "")


def _render_heading_open(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Mapping[str, Any]
) -> str:
    return '<p class="heading">'  # not <h1>: the page's own outline must stay whole


def _render_heading_close(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Mapping[str, Any]
) -> str:
    return "</p>\n"


def _markdown() -> MarkdownIt:
    options = {"html": False, "linkify": False, "typographer": False, "breaks": True, "maxNesting": 12}
    markdown = MarkdownIt("commonmark", options)
    markdown.enable("table")
    # An indented line is indented mathematics far more often than code, and "---" under a line is a rule.
    markdown.disable(["html_block", "html_inline", "link", "image", "autolink", "reference", "code", "lheading"])
    markdown.block.ruler.before("fence", "math", _math_block, {"alt": ["paragraph", "blockquote", "list"]})
    markdown.inline.ruler.before("escape", "math", _math_inline)
    markdown.add_render_rule("math", _render_math)
    markdown.add_render_rule("fence", _render_fence)
    markdown.add_render_rule("heading_open", _render_heading_open)
    markdown.add_render_rule("heading_close", _render_heading_close)
    return markdown


_MARKDOWN = _markdown()
