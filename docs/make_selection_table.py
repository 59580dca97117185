"""Writes tables of all selectors and stopping rules into docs/selection.md. For `make docs`, and for the tests.

usage: make_selection_table.py [FILE...] [--document docs/selection.md]

The table of the committed problems is always made. That of the recordings is made when their files are given, those of
`RECORDINGS`; it takes some minutes, most of them for fitting the learned rules anew without the problems that they are
judged on. Figures only: no problem and no answer is written.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from mathlete.cic.registry import SELECTORS
from mathlete.contest.stop_rules import STOP_RULES
from mathlete.lab.bootstrap import Estimate
from mathlete.lab.file_replay import replay_file
from mathlete.lab.in_sample import trained_on
from mathlete.lab.recorded import read_recorded
from mathlete.lab.replay_figures import SelectorFigures, selector_figures
from mathlete.lab.selector_replay import ReplayPlan
from mathlete.lab.stop_replay import StopFigures, stop_figures

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "selection.md"
SLICE = ROOT / "benchmarks" / "data" / "math_attempts.jsonl.gz"
NUM_ORDERS = 2  # random ones, so that ties and first comers favour nobody
LEARNED = ("triad", "triad_own", "member_vote", "best_member")  # of benchmarks/selection.py
RECORDINGS = {
    "gptoss120b_euler.jsonl": "one model, tool",
    "zeroeval_math_l5.jsonl": "43 models",
    "faithfulcot_gsm8k.jsonl.gz": "41 prompts/models",
    "openai_gsm8k4.jsonl.gz": "4 systems",
    "own_seed0.jsonl": "embedded 1.5B",
}
RANKING_ONLY = frozenset({"gptoss120b_euler.jsonl"})  # its golds were inferred from its own attempts
_BENCHMARKS = ("choice_training", "train_selector", "selection")  # in the order in which they import each other


@dataclass(frozen=True, slots=True)
class Column:
    """One recording in a table.

    Attributes:
        heading: what it is.
        rules: figures of every selector, by name.
        learned: of the learned rules by weights that did not see the problem, by name.
        trained: selectors that were trained on it.
    """

    heading: str
    rules: dict[str, SelectorFigures]
    learned: dict[str, SelectorFigures]
    trained: frozenset[str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the tables and put them in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args(arguments)
    tables = {"committed problems": table(slice_columns())}
    files = sorted(
        (path for path in options.files if path.name in RECORDINGS), key=lambda p: [*RECORDINGS].index(p.name)
    )
    if files:
        tables |= {"stops": stop_table(files), "recordings": table(columns(files))}
    else:
        print("no recordings were given, so their tables stay as they are", file=sys.stderr)
    text = options.document.read_text(encoding="utf-8")
    for name, content in tables.items():
        text = replaced(text, name, content)
    options.document.write_text(text, encoding="utf-8")


def slice_columns() -> list[Column]:
    """Every selector on the committed problems, with all attempts and with a few."""
    trained = frozenset({"triad"})  # on a recording that these problems are a part of
    whole, few = _column(SLICE, "43 models", {}), _column(SLICE, "8 of them, drawn 8 times", {}, k=8, num_orders=8)
    return [replace(whole, trained=trained), replace(few, trained=trained)]


def columns(files: Sequence[Path]) -> list[Column]:
    """Every selector on some recordings, the learned ones cross-fitted too."""
    selection = _benchmark()
    problems = {path: selection.read_file(path, selection.MIN_TRAINED) for path in files}
    ranking_only = [path for path in files if path.name in RANKING_ONLY]
    print("fitting the learned rules", file=sys.stderr)
    held_out = selection.held_out_figures(problems, ranking_only, NUM_ORDERS)
    made = []
    for path in files:
        print(f"replaying {path.name}", file=sys.stderr)
        learned = {item.selector: item for item in held_out[path].rules if item.selector in LEARNED}
        made.append(_column(path, RECORDINGS[path.name], learned))
    return made


def table(columns: Sequence[Column]) -> str:
    """The table in Markdown: accuracy with its interval, then the part of the gap that is closed with its own."""
    firsts = [next(iter(column.rules.values())) for column in columns]
    headings = [f"{column.heading} ({first.num_problems})" for column, first in zip(columns, firsts, strict=True)]
    rows = [f"| rule | {' | '.join(headings)} |", "|---" * (len(columns) + 1) + "|"]
    for name in SELECTORS:
        cells = [cell(column.rules[name], in_sample=name in column.trained) for column in columns]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    for name in (name for name in LEARNED if any(column.learned for column in columns)):
        told = [cell(column.learned[name]) if name in column.learned else "" for column in columns]
        rows.append(f"| `{name}`, cross-fitted | {' | '.join(told)} |")
    rows.append(f'| plain vote, "no answer" a party | {" | ".join(spoken(item.majority_null) for item in firsts)} |')
    rows.append(f"| plain vote without votes for 0 | {' | '.join(spoken(item.majority_nonzero) for item in firsts)} |")
    rows.append(f"| a right answer is there | {' | '.join(spoken(item.oracle) for item in firsts)} |")
    return "\n".join(rows)


def stop_table(files: Sequence[Path]) -> str:
    """Of every stopping rule on each recording the cost used, and accuracy against waiting for all, in Markdown."""
    rows = [
        f"| stopping rule | {' | '.join(RECORDINGS[path.name] for path in files)} |",
        "|---" * (len(files) + 1) + "|",
    ]
    found = {path: stop_figures(read_recorded(path), list(STOP_RULES), num_orders=NUM_ORDERS) for path in files}
    for place, name in enumerate(STOP_RULES):
        rows.append(f"| `{name}` | {' | '.join(stop_cell(figures[place]) for figures in found.values())} |")
    return "\n".join(rows)


def stop_cell(item: StopFigures) -> str:
    """One stopping rule on one recording."""
    lost = item.difference
    return f"{item.used.value:.2f}, {lost.value:+.3f} [{lost.low:+.3f}, {lost.high:+.3f}]"


def cell(item: SelectorFigures, *, in_sample: bool = False) -> str:
    """One selector on one recording."""
    star = r"\*" if in_sample else ""
    if item.selector == "majority" or item.gap_closed is None:
        return spoken(item.accuracy) + star
    closed = item.gap_closed
    return f"{spoken(item.accuracy)}{star}; {closed.value:+.2f} [{closed.low:+.2f}, {closed.high:+.2f}]"


def spoken(estimate: Estimate) -> str:
    """A share with its interval."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def replaced(text: str, name: str, content: str) -> str:
    """The document with new content between the markers of that name."""
    begin, end = f"<!-- {name}: made by docs/make_selection_table.py -->\n", f"\n<!-- end of {name} -->"
    before, marker, rest = text.partition(begin)
    _, closing, after = rest.partition(end)
    if not marker or not closing:
        raise SystemExit(f"the markers of {name!r} are missing")
    return f"{before}{marker}\n{content}\n{closing}{after}"


def _column(
    path: Path,
    heading: str,
    learned: dict[str, SelectorFigures],
    k: int | None = None,
    num_orders: int = NUM_ORDERS,
) -> Column:
    plan = ReplayPlan(tuple(SELECTORS), (k,), num_orders)
    replayed = replay_file(path, plan, num_processes=2 if path.stat().st_size > 1 << 17 else 1)
    if replayed.bad.num:
        raise SystemExit(replayed.bad.message)
    figures = {item.selector: item for item in selector_figures(replayed.scored, plan)}
    return Column(heading, figures, learned, frozenset(trained_on(path, plan.selectors)))


def _benchmark() -> ModuleType:
    """benchmarks/selection.py, which fits the learned rules."""
    for name in _BENCHMARKS:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules["selection"]


if __name__ == "__main__":
    main()
