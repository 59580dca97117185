"""The tables of docs/selection.md are what the rules make of recorded attempts."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mathlete.cic.registry import SELECTORS
from mathlete.lab.file_replay import replay_file
from mathlete.lab.recorded import read_recorded
from mathlete.lab.replay_figures import selector_figures
from mathlete.lab.selector_replay import ReplayPlan
from mathlete.lab.stop_replay import stop_figures

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """docs/make_selection_table.py."""
    spec = importlib.util.spec_from_file_location("make_selection_table", ROOT / "docs" / "make_selection_table.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_committed_problems_is_what_comes_out(maker: ModuleType) -> None:
    text = maker.DOCUMENT.read_text(encoding="utf-8")
    made = maker.replaced(text, "committed problems", maker.table(maker.slice_columns()))
    assert made == text, "docs/selection.md is old: make docs"


def test_a_document_without_markers_is_refused(maker: ModuleType) -> None:
    with pytest.raises(SystemExit, match="markers of 'recordings' are missing"):
        maker.replaced("# Nothing\n", "recordings", "| a |")


def rows_of(maker: ModuleType, name: str) -> dict[str, list[str]]:
    """Cells of each row of a table in the document."""
    text = maker.DOCUMENT.read_text(encoding="utf-8")
    _, _, rest = text.partition(f"<!-- {name}: made by docs/make_selection_table.py -->\n")
    table, _, _ = rest.partition(f"<!-- end of {name} -->")
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_every_selector_has_its_row(maker: ModuleType) -> None:
    for name in ("committed problems", "recordings"):
        rows = rows_of(maker, name)
        assert {f"`{selector}`" for selector in SELECTORS} <= set(rows), name
        for selector in SELECTORS:
            assert all(re.match(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", cell) for cell in rows[f"`{selector}`"]), name


@pytest.mark.shared
def test_the_table_of_the_recordings_is_what_comes_out(maker: ModuleType, shared_dir: Path) -> None:
    """Two rules on all recordings but the embedded model's, which is a run of one's own."""
    rows = rows_of(maker, "recordings")
    plan = ReplayPlan(("majority", "huikang"), num_orders=maker.NUM_ORDERS)
    for place, name in enumerate(maker.RECORDINGS):
        path = shared_dir / "traces" / name
        if path.is_file():
            for item in selector_figures(replay_file(path, plan).scored, plan):
                assert rows[f"`{item.selector}`"][place] == maker.cell(item), (name, item.selector)
    stops = rows_of(maker, "stops")
    few = list(read_recorded(shared_dir / "traces" / "gptoss120b_euler.jsonl"))
    for stop in stop_figures(few, ["huikang", "settled"], num_orders=maker.NUM_ORDERS):
        assert stops[f"`{stop.rule}`"][0] == maker.stop_cell(stop), stop.rule
