"""Prints docs/engine-step.svg: one step of the engine, from requests to tokens. For `make docs`, and for the tests.

Plain SVG, no script; its colours follow the reader's light or dark setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 920, 610

STYLE = """
  text { font: 14px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: var(--ink) }
  .head { font-weight: 600; font-size: 15px } .small { font-size: 12px; fill: var(--soft) }
  .mono { font: 12px ui-monospace, SFMono-Regular, Menlo, monospace } .middle { text-anchor: middle }
  .box { fill: var(--card); stroke: var(--line); stroke-width: 1.2 }
  .shared { fill: var(--shared); stroke: var(--line) } .own { fill: var(--own); stroke: var(--line) }
  .new { fill: var(--new); stroke: var(--line) } .free { fill: none; stroke: var(--line); stroke-dasharray: 3 3 }
  .arrow { stroke: var(--soft); stroke-width: 1.6; fill: none; marker-end: url(#tip) }
  .back { stroke: var(--soft); stroke-width: 1.6; fill: none; stroke-dasharray: 6 4; marker-end: url(#tip) }
  svg { --ink: #1b1f24; --soft: #59636e; --line: #8c959f; --page: #ffffff; --card: #f6f8fa;
        --shared: #b6d4fe; --own: #c7ebc9; --new: #ffd8a8 }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6edf3; --soft: #9aa4b0; --line: #6e7681; --page: #0d1117; --card: #161b22;
          --shared: #1f4e8c; --own: #23663a; --new: #8a5416 } }
"""

BLOCK = 22  # side of a KV block


@dataclass(frozen=True, slots=True)
class Row:
    """A request in the plan: its name; blocks that are shared, its own, and written now; what comes of it."""

    name: str
    num_shared: int
    num_own: int
    num_new: int
    note: str


ROWS = (
    Row("problem 1, attempt 1", 4, 3, 1, "1 token: decode"),
    Row("problem 1, attempt 2", 4, 2, 1, "1 token: decode"),
    Row("problem 1, attempt 3", 4, 4, 1, "1 token: decode, about to end (FINISHING)"),
    Row("problem 2, attempt 1", 0, 1, 3, "48 tokens: a chunk of its prompt"),
)


def text(x: float, y: float, content: str, kind: str = "") -> str:
    """A line of text with its baseline at y."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(content)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str = "box", radius: float = 6) -> str:
    """A rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class="{kind}"/>'


def arrow(path: str, kind: str = "arrow") -> str:
    """A line with a tip."""
    return f'<path d="{path}" class="{kind}"/>'


def card(x: float, y: float, width: float, height: float, title: str, lines: list[str]) -> str:
    """A titled box."""
    parts = [box(x, y, width, height), text(x + 12, y + 22, title, "head")]
    parts += [text(x + 12, y + 42 + 17 * i, line, "small") for i, line in enumerate(lines)]
    return "\n".join(parts)


def plan() -> str:
    """The middle: requests of this step and the KV blocks they hold."""
    x, y = 250, 64
    parts = [box(x, y, 420, 216), text(x + 12, y + 22, "2  StepPlan: who computes which tokens", "head")]
    for number, row in enumerate(ROWS):
        top = y + 38 + 42 * number
        parts.append(text(x + 12, top + 15, row.name, "small"))
        left = x + 158
        kinds = ["shared"] * row.num_shared + ["own"] * row.num_own + ["new"] * row.num_new
        parts += [box(left + place * (BLOCK + 3), top, BLOCK, BLOCK, kind, 3) for place, kind in enumerate(kinds)]
        parts.append(text(left, top + 35, row.note, "small"))
    return "\n".join(parts)


def legend() -> str:
    """What the colours mean."""
    items = (("shared", "blocks shared by siblings"), ("own", "own blocks"), ("new", "where this step writes"))
    parts, x = [], 300.0
    for kind, meaning in items:
        parts += [box(x, 292, 14, 14, kind, 3), text(x + 20, 304, meaning, "small")]
        x += 46 + 6.4 * len(meaning)
    return "\n".join(parts)


def layers() -> str:
    """The lower half: what is computed for the rows of the plan."""
    names = (
        ("embed", ["one row", "a token"]),
        ("norm + qkv", ["int8 / int4", "product"]),
        ("attention", ["over paged", "keys, values"]),
        ("out + add", ["int8 / int4", "product"]),
        ("norm + up", ["SwiGLU", "fused"]),
        ("down + add", ["int8 / int4", "product"]),
    )
    x, y, width = 40.0, 372.0, 98.0
    parts = [box(24, 332, 872, 116), text(36, 354, "3  ModelRunner: one forward pass over all rows", "head")]
    for number, (name, lines) in enumerate(names):
        left = x + number * (width + 16)
        parts.append(box(left, y, width, 62))
        parts.append(text(left + width / 2, y + 18, name, "middle"))
        parts += [text(left + width / 2, y + 36 + 15 * i, line, "small middle") for i, line in enumerate(lines)]
        parts.append(arrow(f"M{left + width:g},{y + 31:g} h13"))
    left = x + len(names) * (width + 16)
    parts += [box(left, y, 156, 62), text(left + 78, y + 18, "norm + head", "middle")]
    parts += [text(left + 78, y + 36, "only rows that are", "small middle")]
    parts += [text(left + 78, y + 51, "due a token", "small middle")]
    loop_start, loop_end = x + 5 * (width + 16) + width / 2, x + (width + 16) + width / 2
    parts.append(arrow(f"M{loop_start:g},434 v7 H{loop_end:g} v-4", "back"))
    parts.append(text(640, 354, "dashed: the way back, once a layer", "small"))
    return "\n".join(parts)


def picture() -> str:
    """The whole of the file."""
    body = [
        text(24, 34, "One step of the engine", "head"),
        text(250, 34, "step() does this once; every request that has caught up gets one token", "small"),
        card(24, 64, 190, 216, "1  Scheduler", [
            "waiting: who needs blocks", "running: who holds some", "", "order: priority, then fair",
            "share over problems;", "those about to end first", "", "no room: the last in order",
            "gives its blocks back",
        ]),
        plan(),
        card(706, 64, 190, 216, "KV cache", [
            "blocks of 16 tokens,", "counted references", "", "full blocks are found again",
            "by parent and 16 token ids", "", "a shared block is copied", "before it is written", "",
            "bf16 or int8",
        ]),
        legend(),
        arrow("M214,172 h33"),
        arrow("M706,172 h-33"),
        arrow("M270,280 v48"),
        layers(),
        card(24, 484, 280, 100, "4  Sampling", [
            "constraint mask, forced tokens", "temperature, top-k, min-p, top-p", "one uniform number of (seed, place)",
        ]),
        card(332, 484, 270, 100, "5  Endings", [
            "end of text, stop strings, length,", "constraint terminated;", "logits that are no numbers: it alone",
        ]),
        card(630, 484, 266, 100, "6  News", [
            "token, logprob, entropy, top tokens", "confidence of each token", "the end, and why",
        ]),
        arrow("M164,448 v33"),
        arrow("M304,534 h25"),
        arrow("M602,534 h25"),
        arrow("M896,534 h12 V46 H119 v15", "back"),
    ]  # fmt: skip
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'aria-label="One step of the engine: scheduler, plan, forward pass, sampling, endings, news">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0,0 L8,4 L0,8 z" style="fill: var(--soft)"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" style="fill: var(--page)"/>',
            *body,
            "</svg>",
        ]
    )


if __name__ == "__main__":
    print(picture())
