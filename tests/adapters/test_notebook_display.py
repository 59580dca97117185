"""What a notebook and a terminal show of a run: escaped, self-contained, with mathematics."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from scripted_model import ScriptedModel

import mathlete
from mathlete.core.errors import InputError
from mathlete.report import notebook
from mathlete.session import solutions as solutions_module

HOSTILE = '<script>alert("1")</script> Find $x^2$ & <img src=http://evil.example/x onerror=alert(2)>'
ROWS = [
    {"id": "<b>1</b>", "problem": HOSTILE, "answer": 42},
    {"id": "two", "problem": r"What is $\frac{1}{2} \cdot 14$?", "answer": 7},
]


@pytest.fixture
def solutions(scripted: ScriptedModel) -> mathlete.Solutions:
    return mathlete.solve(ROWS, policy="vote", attempts=2, progress=False)


def test_the_table_for_a_notebook(solutions: mathlete.Solutions) -> None:
    shown = solutions._repr_html_()
    tree = ElementTree.fromstring(shown)  # well-formed, so nothing of a statement has become markup
    tags = {element.tag for element in tree.iter()}
    assert {"table", "math", "mfrac"} <= tags and not {"script", "img", "b1"} & tags
    links = [element.get("href") for element in tree.iter("a")]
    assert links == [f"runs/{solutions.folder.name}/report.html"]
    assert not [element for element in tree.iter() if element.get("src")] and "@import" not in shown
    assert not re.search(r"url\(|<link", shown)
    text = " ".join("".join(tree.itertext()).split())
    assert "1 of 2 right" in text and "<b>1</b>" in text and "42 ×2" in text
    rules = re.findall(r"^(.*)\{", "".join(element.text or "" for element in tree.iter("style")), re.MULTILINE)
    assert rules and all(part.strip().startswith(".mathlete-run") for rule in rules for part in rule.split(","))


def test_the_table_for_a_terminal(solutions: mathlete.Solutions) -> None:
    assert re.search(r"^two +42 +7 +offered +2 +2 +all attempts finished", repr(solutions), re.MULTILINE)
    assert f"run: {solutions.folder}" in repr(solutions)
    shown = io.StringIO()
    Console(file=shown, width=100, force_terminal=True).print(solutions)
    assert "\x1b[" in shown.getvalue() and "all attempts finished" in shown.getvalue()


def test_the_report_is_framed_where_it_can_do_nothing(solutions: mathlete.Solutions) -> None:
    report = solutions.report(height_px=400)
    frame = ElementTree.fromstring(report._repr_html_())
    assert frame.get("sandbox") == "allow-scripts" and "400px" in (frame.get("style") or "")
    (document,) = re.findall('srcdoc="([^"]*)"', report._repr_html_())
    assert html.unescape(document) == solutions.report_html.read_text(encoding="utf-8")  # its script's digest holds
    assert str(report) == str(solutions.report_html)
    solutions.report_html.unlink()
    with pytest.raises(InputError, match="there is no report in"):
        solutions.report()
    assert "href" not in solutions._repr_html_()


def test_a_report_elsewhere_is_linked_as_a_file(
    solutions: mathlete.Solutions, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = mathlete.open_run(solutions.folder.absolute())
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert f'href="{Path(opened.report_html).as_uri()}"' in opened._repr_html_()


def test_what_was_cut_off_is_shown_as_far_as_it_goes(scripted: ScriptedModel) -> None:
    solver = mathlete.Solver(progress=False, attempts=3, policy="fixed", max_in_flight=1)
    scripted.token_s = 0.02
    scripted.on_request = lambda number: solver.stop() if number == 4 else None
    solutions = solver.solve(["How many?", "How much?"])
    solver.close()
    assert "ended by: interrupted" in solutions._repr_html_()
    assert "an interruption cut short" in repr(solutions)


def test_long_runs_are_cut_for_a_cell(scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "MAX_ROWS", 4)
    monkeypatch.setattr(solutions_module, "MAX_ROWS", 4)
    solutions = mathlete.solve([f"How many are {i}?" for i in range(7)], policy="vote", attempts=1, progress=False)
    shown = solutions._repr_html_()
    assert shown.count("<tr>") == 5 and "… and 3 more problems" in shown
    assert repr(solutions).count("all attempts finished") == 4 and "... and 3 more problems" in repr(solutions)
