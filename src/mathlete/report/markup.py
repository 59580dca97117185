"""HTML that escapes by default: text becomes markup only through `escape` and `tag`.

Knows how to write elements and attributes. Does not know what they mean. `Html` marks a string as
safe; adding or formatting such strings gives plain text again, so that a slip escapes twice
rather than not at all.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"meta", "link", "br", "hr", "col"})
# What cannot be shown or would mislead: C0 and C1 controls (tab and newline apart), lone surrogates (no UTF-8),
# direction overrides (a program that reads otherwise than it runs, CVE-2021-42574), and non-characters.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


class Html(str):
    """Markup that is safe as it stands."""

    __slots__ = ()


def clean(text: str) -> str:
    """The text with one kind of line end, and a replacement character for whatever cannot be printed."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def escape(text: str) -> Html:
    """Untrusted text as markup; `Html` passes unchanged."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(clean(text), quote=True))


def join(parts: Iterable[str], separator: str = "") -> Html:
    """The parts one after another, each escaped unless it is `Html`."""
    return Html(escape(separator).join(escape(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str | int | float | bool | None) -> Html:
    """An element. Children and attribute values are escaped.

    In attribute names a trailing underscore is dropped and others become hyphens (`class_`,
    `aria_label`). True writes a bare attribute; None and False write none.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}{_value(value)}"
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def shorten(text: str, limit: int) -> str:
    """The text, its end replaced by an ellipsis when it is longer than `limit`; cut between words if it has some."""
    if len(text) <= limit:
        return text
    kept = text[: max(0, limit - 1)]
    words = kept.rsplit(None, 1)
    return (words[0] if len(words) == 2 and len(words[0]) > limit // 2 else kept).rstrip() + "…"


def shorten_middle(text: str, limit: int) -> str:
    """The text, its middle replaced by a note when it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    kept = limit // 2
    return f"{text[:kept]}\n\n[… {len(text) - 2 * kept:,} characters left out of this page …]\n\n{text[-kept:]}"


def _value(value: str | int | float | bool) -> str:
    return "" if value is True else f'="{escape(str(value))}"'


def counted(number: int, noun: str) -> str:
    """As in "1 attempt" and "1,204 attempts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
