"""`--resume` from the command line, with a scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Mathlete

from mathlete.core.trace import TraceEvent
from mathlete.lab.run_store import RunStore
from watching import stored

Find = Callable[[], Path]


def events(folder: Path) -> list[TraceEvent]:
    with RunStore.read(folder / "run.sqlite") as store:
        return list(store.events())


def cut_after(folder: Path, length: int) -> None:
    """Make the run one that was killed after so many events."""
    kept = events(folder)[:length]
    for path in folder.iterdir():
        path.unlink()
    with RunStore.create(folder / "run.sqlite") as store:
        store.append_many(kept)


@pytest.fixture
def whole(mathlete: Mathlete, problems: Path, only_run: Find) -> Path:
    """The folder of a complete run of three problems with two attempts each."""
    assert mathlete("solve", problems, "--attempts", "2", "--budget", "1m").code == 0
    return only_run()


def test_a_complete_run_says_so_and_its_results_are_written_again(mathlete: Mathlete, whole: Path) -> None:
    before = events(whole)
    for name in ("submission.csv", "submission.parquet", "attempts.jsonl", "report.html"):
        (whole / name).unlink()
    called = mathlete("solve", "--resume", whole.name)
    assert called.code == 0
    assert "the run is complete; its results are written again" in called.err.splitlines()
    assert "loading the script" not in called.err, "no model is loaded for that"
    assert (whole / "submission.csv").read_text() == "id,answer\na,42\nb,42\nc,42\n"
    assert (whole / "report.html").exists() and (whole / "attempts.jsonl").exists()
    assert events(whole) == before
    assert mathlete("solve", "--resume", "latest", "--budget", "2h").code == 0


@pytest.mark.parametrize("name", ["id", "start", "latest", "path", "store"])
def test_the_names_of_a_run(mathlete: Mathlete, whole: Path, name: str) -> None:
    names = {
        "id": whole.name,
        "start": whole.name[:12],
        "latest": "latest",
        "path": whole,
        "store": whole / "run.sqlite",
    }
    called = mathlete("solve", "--resume", names[name], "--json")
    assert json.loads(called.out)["run"] == whole.name


@pytest.mark.parametrize("length", [1, 9, 14, -1])
def test_a_killed_run_goes_on(mathlete: Mathlete, whole: Path, length: int) -> None:
    reference = {key: sorted(a.id for a in item.attempts) for key, item in stored(whole).problems.items()}
    cut_after(whole, length)
    kept = {key: item.attempts for key, item in stored(whole).problems.items()}
    called = mathlete("solve", "--resume", whole.name)
    assert called.code == 0, called.err
    record = stored(whole)
    assert record.finished == "complete"
    for key, item in record.problems.items():
        assert item.attempts[: len(kept[key])] == kept[key]
        assert sorted(attempt.id for attempt in item.attempts) == reference[key]
        assert item.gold == {"a": "42", "b": "7", "c": "42"}[key]
    assert "2 of 3 right" in called.out
    assert (whole / "submission.csv").read_text() == "id,answer\na,42\nb,42\nc,42\n"


def test_a_run_that_was_cut_off_before_it_began(mathlete: Mathlete, whole: Path) -> None:
    cut_after(whole, 0)
    called = mathlete("solve", "--resume", whole.name)
    assert called.code == 2 and "was cut off before it began; start a new run" in called.err


def test_a_run_that_is_still_running(mathlete: Mathlete, whole: Path) -> None:
    with RunStore.open(whole / "run.sqlite"):
        called = mathlete("solve", "--resume", whole.name)
    assert called.code == 2
    assert "is still running (pid " in called.err and "wait for it or stop that process first" in called.err


def test_a_spent_budget_is_said_and_a_larger_one_goes_on(
    mathlete: Mathlete, problems: Path, only_run: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATHLETE_TEST_TOKEN_S", "60")
    assert mathlete("solve", problems, "--attempts", "1", "--budget", "0.5s").code == 0
    again = mathlete("solve", "--resume", "latest")
    assert again.code == 0
    assert "the run's budget of 0.5 s is spent" in again.err and "give a larger one, such as --budget 1s" in again.err
    smaller = mathlete("solve", "--resume", "latest", "--budget", "0.2s")
    assert smaller.code == 2 and "this run has used 0." in smaller.err
    monkeypatch.setenv("MATHLETE_TEST_TOKEN_S", "0")
    larger = mathlete("solve", "--resume", "latest", "--budget", "30s")
    assert larger.code == 0
    record = stored(only_run())
    assert record.finished == "complete"
    assert record.config["budget_s"] == 30.0, "the report tells the budget that held in the end"
    assert [item.selection.answer for item in record.problems.values() if item.selection] == ["42"] * 3


def test_labels_come_from_the_file_while_it_is_there(mathlete: Mathlete, whole: Path, problems: Path) -> None:
    cut_after(whole, 9)
    problems.write_text("id,problem,answer\na,How many?,42\nb,Another question?,9\nc,How long?,x\n")
    called = mathlete("solve", "--resume", whole.name)
    assert called.code == 0, called.err
    assert "1 problems have no label" in called.err and "line 4" in called.err
    assert [item.gold for item in stored(whole).problems.values()] == ["42", None, None]
    cut_after(whole, 9)
    problems.write_text("id,problem,answer\n")
    called = mathlete("solve", "--resume", whole.name)
    assert called.code == 0 and "without labels: " in called.err
    assert {item.gold for item in stored(whole).problems.values()} == {None}


def test_a_label_of_another_problem_is_not_used(mathlete: Mathlete, whole: Path, problems: Path) -> None:
    cut_after(whole, 9)
    problems.write_text("id,problem,answer\na,How many?,42\nb,Another question?,9\nc,How long?,42\n")
    assert mathlete("solve", "--resume", whole.name).code == 0
    assert [item.gold for item in stored(whole).problems.values()] == ["42", None, "42"]


def test_it_goes_on_without_the_file(mathlete: Mathlete, whole: Path, problems: Path) -> None:
    cut_after(whole, 9)
    problems.unlink()
    called = mathlete("solve", "--resume", whole.name)
    assert called.code == 0, called.err
    assert "3 problems, " in called.out
