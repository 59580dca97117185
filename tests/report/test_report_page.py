import base64
import errno
import hashlib
import html
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_check import complaints, inspect
from sample_run import finished_run_without_gold, large_run, sample_run

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.errors import StorageError
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord, fold_run
from mathlete.core.selection import AnswerCluster, Selection
from mathlete.core.trace import TraceEvent, encode, encode_problem
from mathlete.report import render_report, write_report
from mathlete.report.detail import plan_detail

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style></script></pre><script>alert(1)</script>",
    "$\\text{<script>alert(1)</script>}$ \\boxed{\\href{javascript:alert(1)}{x}}",
    "`</code><svg onload=alert(1)>` [x](javascript:alert(1))",
    "\x00\x1b[2J\u202eevil\ud800\uffff",
    "--><!-- ]]> <![CDATA[ &lt;script&gt; &#60;",
    "9" * 5_000,
    " ",
]


def hostile_run(text: str) -> RunRecord:
    """One problem with `text` in every place where text can come from outside."""
    result = ToolResult("error", text, text, 0.1, (text,))
    turns = (
        Turn(text, text, result, text, 3, (-1.0,), (1.0,)),
        Turn(f"```python\n{text}\n```", "x", replace(result, status="ok"), None),
    )
    attempt = Attempt(text, text, 0, text, 1, 0.8, text, "boxed", turns, 3, 1.0, {text: 1.0}, None, text)
    selection = Selection(text, text, 0.5, (AnswerCluster(text, 1.5, (text,)),), {text: 1.0}, (text,))
    named = text if text.strip() else "blank"
    record = ProblemRecord(
        Problem(named, named, source=text), (attempt,), selection, text, 0.0, 5.0, {text: (turns[0],)}, text, text
    )
    config = {"command": text, "model": text, "seed": text, "version": text, text: text}
    return RunRecord(config, {text: record}, 5.0, text, {text: text}, (text,), 1_764_096_000.0)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_brings_in_nothing(text: str) -> None:
    page = render_report(hostile_run(text))
    assert complaints(page) == []
    assert page.encode()
    assert page.count("<script>") == page.count("</script>") == page.count("<style>") == 1


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=60))
def test_any_text_brings_in_nothing(text: str) -> None:
    assert complaints(render_report(hostile_run(text))) == []


def test_hostile_text_is_shown_as_text() -> None:
    text = inspect(render_report(hostile_run(HOSTILE[0]))).text
    assert text.count("<script>alert(1)</script>") >= 15


def test_the_policy_allows_this_style_and_script_by_hash_and_nothing_else() -> None:
    page = render_report(sample_run())
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1])  # type: ignore[index]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'{_digest(page, 'style')}'",
        "script-src": f"'{_digest(page, 'script')}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def _digest(page: str, element: str) -> str:
    inside = re.search(f"<{element}>(.*?)</{element}>", page, re.DOTALL)[1]  # type: ignore[index]
    return "sha256-" + base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()


def test_nothing_is_fetched() -> None:
    page = render_report(sample_run())
    assert (
        "url(" not in page and "@import" not in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    )
    assert "https://" not in page


def test_the_page_says_what_was_run_and_what_came_of_it() -> None:
    text = inspect(render_report(sample_run())).text
    for words in (
        "Report of “mathlete evaluate examples/problems.csv --budget 2m”",
        "Qwen2.5-Coder-1.5B-Instruct",
        "at most 8 a problem",
        "20251125",
        "0.1.0",
        "25 November 2025, 18:40 UTC",
        "Unfinished: this is the state at the last recorded event.",
        "of 4 graded, 50%",
        "of 2 min 00 s",
        "The sandbox runs without a network namespace",
        "The right answer, 570, was in the pool: 2 of 8 attempts gave it.",
        "The right answer is 65; no attempt gave it.",
        "3 of 8 attempts gave 571; next 570 with 2, 286 with 1.",
        "None of 3 attempts had an answer",
        "posterior 0.969",
        "NameError: name 'solve' is not defined",
        "Program ran out of time in 10.00 s",
        "No attempt was made.",
        "Prices are $5 and $7 a ticket",
    ):
        assert words in text, words


def test_every_attempt_is_there_and_unfinished_ones_too() -> None:
    page = render_report(sample_run())
    kinds = re.findall(r'<details class="attempt (\w+)"', page)
    assert len(kinds) == 22 + 2 and kinds.count("unfinished") == 2
    assert "Nothing was written." in page


def test_every_link_leads_somewhere_and_headings_do_not_skip() -> None:
    elements = inspect(render_report(sample_run())).elements
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for tag, a in elements if tag == "a" and a["href"]} <= set(ids)
    levels = [int(tag[1]) for tag, _ in elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels[:-1], levels[1:], strict=True))


def test_pictures_and_controls_have_names() -> None:
    elements = inspect(render_report(sample_run())).elements
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for tag, a in elements if tag == "svg")
    assert all("hidden" in a for tag, a in elements if "js" in (a.get("class") or "").split())  # until the script runs
    assert all(a.get("scope") for tag, a in elements if tag == "th" and "class" in a)


def test_without_gold_the_page_does_not_judge() -> None:
    text = inspect(render_report(finished_run_without_gold())).text
    assert "Right answer" not in text and "graded" not in text and "✗" not in text and "✓" not in text
    assert "Complete." in text


def test_a_run_without_anything_is_a_page() -> None:
    for run in (RunRecord(config={}, problems={}), RunRecord({"budget_s": "soon", "attempts": None}, {}, 1.0)):
        assert complaints(render_report(run)) == [] and "date unknown" in render_report(run)


def test_a_resumed_run_as_its_trace_tells_it() -> None:
    problem = Problem("p", "What is $1 + 1$?")
    attempt = Attempt("p#1", "p", 1, "code", 1, 0.8, "2", "boxed", (Turn("\\boxed{2}", num_tokens=4),), 4, 1.0)
    events = [
        TraceEvent("run_started", 0.0, {"config": {"model": "m"}, "problems": [encode_problem(problem)]}),
        TraceEvent("problem_opened", 0.1, {"budget_s": 10.0}, "p"),
        TraceEvent("attempt_started", 0.2, {"index": 0}, "p", "p#0"),
        TraceEvent("run_resumed", 1.0, {"config": {}}),
        TraceEvent("attempt_started", 1.1, {"index": 1}, "p", "p#1"),
        TraceEvent("attempt_finished", 2.0, {"attempt": encode(attempt)}, "p", "p#1"),
    ]
    stored = [replace(event, data=json.loads(json.dumps(event.data))) for event in events]
    page = render_report(fold_run(stored))
    assert re.findall(r'<details class="attempt (\w+)"', page) == ["voted", "unfinished"]


def test_many_long_attempts_make_a_page_that_opens() -> None:
    run = large_run(num_problems=10, num_attempts=64, num_tokens=2_000)
    started = time.perf_counter()
    page = render_report(run)
    assert time.perf_counter() - started < 20
    assert len(page) < 10_000_000  # a fifth of 50 problems, so below 40 MB with room
    assert page.count('<details class="attempt') == 640
    assert "of its attempts are shown as plain text" in page
    assert "characters left out" not in page


def test_detail_is_spent_in_order_and_text_is_cut_only_when_it_must() -> None:
    turns = (Turn("x" * 20_000),)
    plan = plan_detail([[turns] * 40, [turns] * 100])
    typeset = [[detail.typeset for detail in pool] for pool in plan]
    assert all(pool == sorted(pool, reverse=True) and any(pool) and not all(pool) for pool in typeset)
    assert plan[0][0].max_chars == 64_000
    assert plan_detail([[turns] * 20_000])[0][0].max_chars == 1_000
    assert not plan_detail([[(Turn("x" * 24_001),)]])[0][0].typeset


def test_writing_replaces_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(sample_run(), path)
    assert path.read_text(encoding="utf-8") == render_report(sample_run())
    assert os.listdir(tmp_path) == ["report.html"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(StorageError, match="No space left on device.*free some space"):
        write_report(sample_run(), path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.html"]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        write_report(sample_run(), tmp_path / "missing" / "report.html")


def _full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_colours_have_contrast() -> None:
    style = resources.files("mathlete.report").joinpath("style.css").read_text()
    themes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert len(themes) == 3  # light, dark, print
    for theme in themes:
        for picture in ("accent", "bad", "bar", "soft", *(f"run-{number}" for number in range(1, 7))):
            assert _contrast(theme[picture], theme["paper"]) >= 3, (picture, theme)
        for front in ("ink", "soft", "accent", "bad", "c-comment", "c-keyword", "c-string", "c-number", "c-name"):
            for back in ("paper", "sunken", "raised"):
                assert _contrast(theme[front], theme[back]) >= 4.5, (front, back, theme)
        assert _contrast(theme["accent"], theme["accent-wash"]) >= 4.5
        assert _contrast(theme["bad"], theme["bad-wash"]) >= 4.5


def _contrast(front: str, back: str) -> float:
    """WCAG 2 contrast ratio of two colours."""
    light, dark = sorted((_luminance(front), _luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    linear: Callable[[float], float] = lambda c: c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4  # noqa: E731
    red, green, blue = (linear(int(digits[i : i + 2], 16) / 255) for i in (0, 2, 4))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
