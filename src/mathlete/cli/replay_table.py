"""The figures of a replay as tables for a person. Knows rich; does not know where figures come from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mathlete.lab.bootstrap import Estimate
from mathlete.lab.in_sample import Trained
from mathlete.lab.replay_figures import PolicyOutcome, SelectorFigures

_BAR_WIDTH = 24
_NARROW_BAR_WIDTH = 14
_WIDE_COLUMNS = 108  # a terminal from so wide on shows everything
_MAX_REASONS = 4
_SLACK = 0.02  # of accuracy, left free at both ends of the axis


def show_figures(
    console: Console, file: str, figures: Sequence[SelectorFigures], trained: Mapping[str, Trained]
) -> None:
    """One table for each k of a file, best accuracy first, and the curve over k when there is one.

    Args:
        console: to print on.
        file: name of the recording.
        figures: of it, all k.
        trained: selectors that were trained on this recording.
    """
    ks = list(dict.fromkeys(item.k for item in figures))
    for k in ks:
        _show_one_k(console, file, [item for item in figures if item.k == k], trained)
    if len(ks) > 1:
        _show_curves(console, figures, ks)


def _show_one_k(
    console: Console, file: str, figures: Sequence[SelectorFigures], trained: Mapping[str, Trained]
) -> None:
    first = figures[0]
    attempts = "all attempts" if first.k is None else "1 attempt" if first.k == 1 else f"{first.k} attempts"
    low, high = _axis([item.accuracy for item in figures])
    is_wide = console.width >= _WIDE_COLUMNS
    width = _BAR_WIDTH if is_wide else _NARROW_BAR_WIDTH
    title = f"[bold]{escape(file)}[/]: {first.num_problems} problems, {attempts} of each"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("selector", no_wrap=True)
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column(f"{low:.2f}{f'{high:.2f}':>{width - 4}}", no_wrap=True)
    table.add_column("to majority", justify="right", no_wrap=True)
    table.add_column("gap closed", justify="right", no_wrap=True)
    for item in sorted(figures, key=lambda item: -item.accuracy.value):
        name = Text(item.selector + ("*" if item.selector in trained else ""), "bold" if _is_told_apart(item) else "")
        table.add_row(
            name,
            f"{item.accuracy.value:.3f}",
            interval_bar(item.accuracy, low, high, first.majority.value, width),
            _signed(item.difference, _colour(item.difference)),
            _gap(item, is_wide),
        )
    console.print(table)
    notes = [
        f'majority {first.majority}, with "no answer" as a party {first.majority_null}, oracle {first.oracle}; '
        "95 % bootstraps over groups; | in a bar is majority"
    ]
    if first.num_left_out:
        notes.append(f"left out: {first.num_left_out} problems with too few attempts")
    for item in figures:
        if item.selector in trained:
            held_out = trained[item.selector].held_out.get(item.k)
            told = "" if held_out is None else f"; on problems that its weights did not see it reached {held_out:.3f}"
            notes.append(f"* {item.selector} was trained on this recording, so its figure here is too kind{told}")
    for note in notes:
        console.print(Text(note, "dim"))
    console.print()


def _show_curves(console: Console, figures: Sequence[SelectorFigures], ks: Sequence[int | None]) -> None:
    by_rule: dict[str, dict[int | None, float]] = {}
    for item in figures:
        by_rule.setdefault(item.selector, {})[item.k] = item.accuracy.value
        by_rule.setdefault("oracle", {})[item.k] = item.oracle.value
    table = Table(title="[bold]accuracy over k[/]", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("selector", no_wrap=True)
    for k in ks:
        table.add_column("all" if k is None else str(k), justify="right")
    for name, values in sorted(by_rule.items(), key=lambda pair: -max(pair[1].values())):
        table.add_row(name, *(f"{values[k]:.3f}" if k in values else "" for k in ks), style="dim" * (name == "oracle"))
    console.print(table)
    problems = [str(next(item.num_problems for item in figures if item.k == k)) for k in ks]
    if len(set(problems)) > 1:
        console.print(Text(f"not the same problems at every k: {', '.join(problems)}", "dim"))
    console.print()


def interval_bar(estimate: Estimate, low: float, high: float, mark: float, width: int) -> Text:
    """An interval as a line with its value on it, and a mark to compare with, such as "  |--o---  "."""
    cells = [" "] * width
    for place in range(_place(estimate.low, low, high, width), _place(estimate.high, low, high, width) + 1):
        cells[place] = "─"
    cells[_place(mark, low, high, width)] = "│"
    cells[_place(estimate.value, low, high, width)] = "●"
    return Text("".join(cells), _colour_of_value(estimate, mark))


def show_policies(console: Console, file: str, outcomes: Sequence[PolicyOutcome]) -> None:
    """A table of policies on one recording, in the order given, and why their problems ended."""
    first = outcomes[0].figures
    title = f"[bold]{escape(file)}[/]: {first.num_problems} problems, policy {first.replay.policy}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("selector", "stop"):
        table.add_column(name, no_wrap=True)
    for name in ("k", "budget", "accuracy", "to majority of k", "tokens", "of all", "attempts", "seconds in all"):
        table.add_column(name, justify="right")
    for item in outcomes:
        told = item.figures
        table.add_row(
            told.replay.settings().rule,
            "-" if told.replay.policy in ("fixed", "pipeline") else told.replay.stop,
            str(told.replay.attempts),
            "-" if told.replay.budget_s is None else f"{told.replay.budget_s:g} s",
            str(told.accuracy),
            _signed(told.vs_majority, _colour(told.vs_majority)),
            "-" if told.tokens is None else f"{told.tokens:.0f}",
            "-" if told.token_share is None else f"{told.token_share:.0%}",
            f"{told.attempts:.2f}",
            "-" if told.seconds is None else f"{told.seconds:.0f}",
        )
    console.print(table)
    ends = Counter[str]()
    for item in outcomes:
        ends.update(item.figures.stop_reasons)
    shown = "; ".join(f"{count} {reason}" for reason, count in ends.most_common(_MAX_REASONS))
    console.print(Text(f"tokens and attempts are a problem's mean. Problems ended: {shown}", "dim"))
    console.print()


def _axis(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Ends of the axis in full 0.05."""
    low = min(item.low for item in estimates) - _SLACK
    high = max(item.high for item in estimates) + _SLACK
    return max(0.0, math.floor(low * 20) / 20), min(1.0, math.ceil(high * 20) / 20)


def _place(value: float, low: float, high: float, width: int) -> int:
    share = (value - low) / (high - low) if high > low else 0.5
    return min(width - 1, max(0, round(share * (width - 1))))


def _gap(item: SelectorFigures, is_wide: bool) -> Text:
    if item.gap_closed is None:
        return Text("-", "dim")
    return _signed(item.gap_closed, "") if is_wide else Text(f"{item.gap_closed.value:+.2f}")


def _is_told_apart(item: SelectorFigures) -> bool:
    return item.difference.low > 0 or item.difference.high < 0


def _colour(difference: Estimate) -> str:
    return "green" if difference.low > 0 else "red" if difference.high < 0 else ""


def _colour_of_value(estimate: Estimate, mark: float) -> str:
    return "cyan" if estimate.value >= mark else "magenta"


def _signed(estimate: Estimate, style: str) -> Text:
    return Text(f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]", style)
