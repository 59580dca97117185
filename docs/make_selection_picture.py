"""Prints docs/selection-calibration.svg: how often answers were right that `triad` gave some chance. For `make docs`.

The figures are those of the shipped weights' file, of problems that the fit did not see; the bars are Wilson's 95 %
intervals. Plain SVG, no script.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from make_engine_picture import STYLE, text

from mathlete.cic.choice_model import shipped_model
from mathlete.lab.calibration import Bin

WIDTH, HEIGHT = 560, 470
LEFT, TOP, SIDE = 64, 54, 360  # of the square in which both axes go from 0 to 1
LARGEST, SMALLEST = 15, 3  # radius of a bin's mark

MARKS = """
  .mark { fill: var(--shared); stroke: var(--ink); stroke-width: 1 } .grid { stroke: var(--line); stroke-width: .5 }
  .bar { stroke: var(--ink); stroke-width: 1.2 }
  .ideal { stroke: var(--soft); stroke-width: 1.4; stroke-dasharray: 5 4 }
"""


def place(stated: float, right: float) -> tuple[float, float]:
    """Where a point of the square lies in the picture."""
    return LEFT + SIDE * stated, TOP + SIDE * (1 - right)


def line(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    """A line between two points of the picture."""
    return f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}" class="{kind}"/>'


def axes() -> str:
    """The grid, its numbers, the diagonal and what the axes mean."""
    parts = []
    for tenth in range(0, 11, 2):
        value = tenth / 10
        parts.append(line(place(value, 0), place(value, 1), "grid"))
        parts.append(line(place(0, value), place(1, value), "grid"))
        parts.append(text(place(value, 0)[0] - 9, TOP + SIDE + 20, f"{value:.1f}", "small"))
        parts.append(text(LEFT - 28, place(0, value)[1] + 4, f"{value:.1f}", "small"))
    parts.append(line(place(0, 0), place(1, 1), "ideal"))
    parts.append(text(LEFT + 92, TOP + SIDE + 44, "chance that triad gave its answer"))
    parts.append(text(LEFT, TOP - 10, "share of these answers that was right"))
    return "\n".join(parts)


def marks(bins: list[Mapping[str, Any]]) -> str:
    """A disc for each bin, its area the number of problems, on a bar from end to end of its interval."""
    most = max(item["count"] for item in bins)
    parts = []
    for item in bins:
        x, y = place(item["stated"], item["right"])
        radius = max(SMALLEST, LARGEST * (item["count"] / most) ** 0.5)
        interval = Bin(**item).interval
        told = (
            f"{item['count']} problems: chance {item['stated']:.2f}, right {item['right']:.2f}, "
            f"interval {interval.low:.2f} to {interval.high:.2f}"
        )
        parts.append(line(place(item["stated"], interval.low), place(item["stated"], interval.high), "bar"))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="mark"><title>{told}</title></circle>')
        parts.append(text(x + radius + 4, y + 4, str(item["count"]), "small"))
    return "\n".join(parts)


def main() -> None:
    """Write the picture to standard output."""
    curve = shipped_model().held_out["calibration"]
    title = f"{curve['count']} pools not trained on: ECE {curve['ece']:.3f}, Brier {curve['brier']:.3f}"
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="Calibration of the rule triad. {title}">'
    )
    print(f"<style>{STYLE}{MARKS}</style>")
    print(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="var(--page)"/>')
    print(text(LEFT, 22, title, "head"))
    print(axes())
    print(marks(curve["bins"]))
    print("</svg>")


if __name__ == "__main__":
    main()
