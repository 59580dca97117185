"""The display: a table on a terminal, few lines in a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from mathlete.core.durations import clock_text
from mathlete.session import live
from mathlete.session.live import LiveDisplay
from mathlete.triad.progress import ProblemProgress, RunProgress

WAITING = ProblemProgress("c", "waiting")
OPEN = ProblemProgress("b", "open", 2, 3, 1_234, (("7", 2), ("[8]", 1)), elapsed_s=75.0)
DONE = ProblemProgress("a", "done", 4, 0, 900, (("42", 3), ("41", 1)), "42", "the leader stays the leader", 60.0)
PROGRESS = RunProgress((DONE, OPEN, WAITING), at_s=135.0, remaining_s=465.0, num_tokens=2_134, generating_s=100.0)


def terminal(**options: object) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, record=True, width=110, **options)  # type: ignore[arg-type]


def log() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, record=True, width=80)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The display's clock: set `now[0]`."""
    moment = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: moment[0])
    return moment


def test_a_table_on_a_terminal(now: list[float]) -> None:
    console = terminal()
    with LiveDisplay(console, budget_s=600.0) as display:
        display.update(PROGRESS)
    text = console.export_text()
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    assert ["problem", "state", "attempts", "tokens", "votes", "answer"] in lines
    assert ["a", "done", "4 done", "900", "42:3", "41:1", "42"] in lines
    assert ["b", "open 1:15", "2 done, 3 running", "1,234", "7:2", "[8]:1"] in lines
    assert ["c", "waiting"] in lines
    assert "1/3 problems · 2,134 tokens · 21 tokens/s · 2:15 of 10:00 · 7:45 left" in text


def test_it_is_drawn_four_times_a_second_at_most_and_leaves_nothing(now: list[float]) -> None:
    console = terminal()
    with LiveDisplay(console, budget_s=600.0) as display:
        for _ in range(100):
            display.update(PROGRESS)
            now[0] += 0.01
    assert console.export_text().count("1/3 problems") in (4, 5, 6)


def test_many_problems_are_shortened_to_what_matters(now: list[float]) -> None:
    done = [ProblemProgress(f"done{i}", "done", answer="1") for i in range(20)]
    rows = (*done, ProblemProgress("at work", "open"), *(ProblemProgress(f"later{i}", "waiting") for i in range(30)))
    console = terminal()
    with LiveDisplay(console, budget_s=600.0) as display:
        display.update(RunProgress(rows, 1.0, 1.0, 0, 0.0))
    text = console.export_text()
    assert "at work" in text and "done19" in text and "done0 " not in text
    assert "... 35 more" in text
    assert "0 tokens/s" in text


def test_a_log_gets_a_line_a_problem_and_one_now_and_then(now: list[float]) -> None:
    console = log()
    with LiveDisplay(console, budget_s=600.0) as display:
        display.update(RunProgress((OPEN, WAITING), 0.0, 600.0, 0, 0.0))
        for _ in range(50):
            now[0] += 0.7
            display.update(PROGRESS)
    assert console.export_text().splitlines() == [
        "a: 42 (42 x3, 41 x1; the leader stays the leader)",
        "1/3 problems · 2,134 tokens · 21 tokens/s · 2:15 of 10:00 · 7:45 left",
    ]


def test_a_log_of_a_resumed_run_does_not_tell_old_news(now: list[float]) -> None:
    console = log()
    with LiveDisplay(console, budget_s=600.0) as display:
        display.update(PROGRESS)
    assert console.export_text() == ""


def test_a_problem_without_votes(now: list[float]) -> None:
    console = log()
    with LiveDisplay(console, budget_s=600.0) as display:
        display.update(RunProgress((WAITING,), 0.0, 600.0, 0, 0.0))
        display.update(RunProgress((ProblemProgress("c", "done", answer="0", reason="out of time"),), 0, 0, 0, 0.0))
    assert console.export_text() == "c: 0 (no votes; out of time)\n"


def test_a_dumb_terminal_is_a_log(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = terminal()
    with LiveDisplay(console, budget_s=600.0) as display:
        display.update(RunProgress((OPEN,), 0.0, 600.0, 0, 0.0))
        display.update(RunProgress((DONE,), 0.0, 600.0, 0, 0.0))
    assert console.export_text().startswith("a: 42 (")


@pytest.mark.parametrize("make", [terminal, log])
def test_a_note_is_told_once(now: list[float], make: type) -> None:
    console = make()
    with LiveDisplay(console, budget_s=600.0) as display:
        for _ in range(3):
            display.update(PROGRESS)
            display.tell_once("ending [the] run")
    assert console.export_text().count("ending [the] run") == 1


def test_a_terminal_that_is_gone_ends_the_showing_only(now: list[float]) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    for is_terminal in (True, False):
        console = Console(file=Gone(), force_terminal=is_terminal, width=80)
        display = LiveDisplay(console, budget_s=600.0)
        display.tell_once("hello")
        display.update(RunProgress((OPEN,), 0.0, 600.0, 0, 0.0))
        now[0] += 60
        display.update(PROGRESS)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (3_725, "1:02:05")])
def test_clock_times(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_checks_are_no_attempts_and_answers_are_accepted_or_offered(now: list[float]) -> None:
    accepted = ProblemProgress("a", "done", 3, 0, 9, (("42", 3),), "42", "sure", num_checks=1, accepted=True)
    offered = ProblemProgress("b", "done", 3, 0, 9, (("7", 1),), "7", "all finished", num_checks=2, accepted=False)
    console = terminal()
    with LiveDisplay(console, budget_s=600.0) as display:
        display.update(RunProgress((accepted, offered), 1.0, 1.0, 0, 0.0))
    lines = [re.split(r"\s{2,}", line.strip()) for line in console.export_text().splitlines()]
    assert ["a", "accepted", "3 done, 1 check", "9", "42:3", "42"] in lines
    assert ["b", "offered", "3 done, 2 checks", "9", "7:1", "7"] in lines
    console = log()
    with LiveDisplay(console, budget_s=600.0) as display:
        display.update(RunProgress((OPEN,), 0.0, 600.0, 0, 0.0))
        display.update(RunProgress((accepted, offered), 1.0, 1.0, 0, 0.0))
    text = console.export_text()
    assert "a: 42 accepted (42 x3; sure)" in text and "b: 7 offered (7 x1; all finished)" in text
