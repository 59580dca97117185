"""What a report may contain, as a browser would see it: a list of elements and attributes, and nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser

HTML = set(
    "html head meta title link style script body header main section div p span a h1 h2 h3 ul ol li dl dt dd table "
    "caption thead tbody tr th td details summary pre code strong em button bdi figure figcaption br hr "
    "blockquote".split()
)
SVG = set("svg g path rect text title a".split())
MATH = set(
    "math mrow mi mn mo mtext mspace ms mfrac msqrt mroot mstyle msub msup msubsup munder mover munderover "
    "mmultiscripts mprescripts none mtable mtr mtd mphantom mpadded merror".split()
)
ATTRIBUTES = set(
    "class id href title role aria-label aria-hidden aria-pressed tabindex scope hidden type data-show data-state "
    "charset name content http-equiv rel lang open start align style colspan "
    "viewbox preserveaspectratio d x y width height rx "
    "display displaystyle stretchy fence largeop movablelimits accent form mathvariant scriptlevel columnspan "
    "linethickness lspace rspace minsize maxsize".split()
)
# Alignment of Markdown tables; the content security policy leaves it without effect.
STYLE = re.compile(r"text-align:(left|right|center)")


class Inspector(HTMLParser):
    """Collects what a page consists of."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self.inside or self.inside[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def inspect(page: str) -> Inspector:
    inspector = Inspector()
    inspector.feed(page)
    inspector.close()
    return inspector


def complaints(page: str) -> list[str]:
    """Each element or attribute of a page (or fragment) that hostile text could have brought in."""
    found = []
    for tag, attributes in inspect(page).elements:
        if tag not in HTML | SVG | MATH:
            found.append(f"element <{tag}>")
        for name, value in attributes.items():
            if name not in ATTRIBUTES:
                found.append(f"attribute {name} of <{tag}>")
            if name == "href" and not (value or "").startswith(("#", "data:image/svg+xml,")):
                found.append(f"href {value!r}")
            if name == "href" and (value or "").startswith("data:") and tag != "link":
                found.append(f"data: link on <{tag}>")
            if name == "style" and not STYLE.fullmatch(value or ""):
                found.append(f"style {value!r}")
    return found
