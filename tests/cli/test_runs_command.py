"""`mathlete runs`: list, gather, export."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from calling import Mathlete

from mathlete.core.record import fold_run
from mathlete.lab.export import write_attempts
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_store import RunStore, list_runs
from recorded_runs import run_events


@pytest.fixture
def run_id(mathlete: Mathlete, tmp_path: Path) -> str:
    """A finished run of two problems in `runs`, one of them answered wrongly; it has written its attempts."""
    folder = RunFolder.create(tmp_path / "runs", "20260101-120000-abcdef")
    with RunStore.create(folder.store_path) as store:
        store.append_many(run_events(start_s=1_750_000_000.0))
        write_attempts(fold_run(store.events()), folder)
    return folder.id


def test_list(mathlete: Mathlete, run_id: str) -> None:
    called = mathlete("runs", "list")
    assert called.code == 0
    header, row = called.out.splitlines()
    assert header.split() == ["run", "when", "(UTC)", "command", "model", "problems", "attempts", "right", "ended"]
    assert run_id in row and "evaluate" in row and "1 of 2 (50.0%)" in row and row.endswith("complete")
    (item,) = json.loads(mathlete("runs", "list", "runs", "--json").out)
    assert (item["id"], item["num_problems"], item["num_attempts"], item["finished"]) == (run_id, 2, 4, "complete")
    assert (
        item["accuracy"] == 0.5
        and item["started"] == "2025-06-15T15:06:40+00:00"
        and item["store"] == f"runs/{run_id}/run.sqlite"
    )
    for path in (f"runs/{run_id}", f"runs/{run_id}/run.sqlite"):
        assert json.loads(mathlete("runs", "list", path, "--json").out) == [item]


def test_list_tells_of_runs_that_cannot_be_read(mathlete: Mathlete, run_id: str) -> None:
    Path("runs/broken").mkdir()
    Path("runs/broken/run.sqlite").write_text("no store")
    called = mathlete("runs", "list")
    assert called.code == 0 and run_id in called.out
    assert "broken is left out: " in called.err and "not a run store" in called.err
    items = {item["id"]: item for item in json.loads(mathlete("runs", "list", "--json").out)}
    assert "not a run store" in items["broken"]["error"] and items[run_id]["num_problems"] == 2


def test_list_where_there_is_nothing(mathlete: Mathlete) -> None:
    called = mathlete("runs", "list")
    assert called.code == 2 and "There are no runs in runs" in called.err


def test_gather_and_list_a_store(mathlete: Mathlete, run_id: str) -> None:
    called = mathlete("runs", "gather", run_id, "--into", "all.sqlite")
    assert called.code == 0 and "of 1 of 1 runs copied; all of them are in all.sqlite" in called.out
    again = json.loads(mathlete("runs", "gather", "runs", "--into", "all.sqlite", "--json").out)
    assert again["store"] == "all.sqlite"
    assert again["runs"][0]["num_copied"] == 0 and again["runs"][0]["num_there"] > 20
    assert [run.id for run in list_runs(Path("all.sqlite"))] == [run_id]
    (item,) = json.loads(mathlete("runs", "list", "all.sqlite", "--json").out)
    assert item["num_right"] == 1 and item["source"] == f"runs/{run_id}/run.sqlite"


@pytest.mark.parametrize("place", ["id", "latest", "folder", "store", "one of a store"])
def test_export_is_what_the_run_itself_wrote(mathlete: Mathlete, run_id: str, place: str) -> None:
    mathlete("runs", "gather", run_id, "--into", "all.sqlite")
    names = {"id": run_id, "latest": "latest", "folder": f"runs/{run_id}", "store": "all.sqlite",
             "one of a store": f"all.sqlite::{run_id}"}  # fmt: skip
    called = mathlete("runs", "export", names[place], "--out", "a.jsonl")
    assert called.code == 0 and "4 attempts at 2 problems written to a.jsonl" in called.out
    assert Path("a.jsonl").read_bytes() == Path(f"runs/{run_id}/attempts.jsonl").read_bytes()


def test_export_as_parquet(mathlete: Mathlete, run_id: str) -> None:
    called = mathlete("runs", "export", run_id, "--format", "parquet", "--out", "attempts", "--json")
    assert json.loads(called.out) == {
        "file": "attempts", "format": "parquet", "run": run_id, "problems": 2, "attempts": 4,
    }  # fmt: skip
    rows = pyarrow.parquet.read_table("attempts").to_pylist()
    assert [row["correct"] for row in rows] == [True, False, None, False]
    assert all(row["run"] == run_id and row["model"] == "small" and "step 0" in row["text"] for row in rows[:1])


def test_what_cannot_be_exported(mathlete: Mathlete, run_id: str) -> None:
    called = mathlete("runs", "export", run_id, "--out", "a.csv")
    assert called.code == 2 and "give --format jsonl or --format parquet" in called.err
    assert mathlete("runs", "export", "nosuch", "--out", "a.jsonl").code == 2
    called = mathlete("runs", "export", run_id, "--out", "missing/a.jsonl")
    assert called.code == 4 and "missing/a.jsonl: No such file or directory" in called.err.replace("\n", "")


def test_no_export_takes_the_place_of_a_store(mathlete: Mathlete, run_id: str) -> None:
    store = Path("runs") / run_id / "run.sqlite"
    before = store.read_bytes()
    called = mathlete("runs", "export", run_id, "--format", "jsonl", "--out", store)
    assert called.code == 2 and "is a run store, and would be lost" in " ".join(called.err.split())
    assert store.read_bytes() == before


def test_recordings_are_listed_and_compared_whatever_they_are_called(mathlete: Mathlete, tmp_path: Path) -> None:
    attempts = [{"answer": "1", "tokens": 5, "text": "<script>alert(1)</script>"}] * 2
    row = {"problem_id": "\x1b[31mp", "problem": "How many?", "gold": "1", "attempts": attempts}
    Path("theirs.jsonl").write_text(json.dumps(row))
    for name in ("\x1b[2Jone", "<script>alert(2)</script>"):
        assert mathlete("runs", "import", "theirs.jsonl", "--into", "all.sqlite", "--name", name).code == 0
    listed = mathlete("runs", "list", "all.sqlite")
    assert "\x1b" not in listed.out and "\\x1b[2Jone" in listed.out
    assert mathlete("report", "all.sqlite", "--out", "page.html").code == 0
    assert "<script>alert" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    Path("none.jsonl").write_text(json.dumps({**row, "problem_id": "q", "problem": "Why?"}))
    assert "\x1b" not in mathlete("compare", "theirs.jsonl", "none.jsonl").out
    refused = mathlete("compare", "all.sqlite", "none.jsonl")
    assert refused.code == 2 and "\x1b" not in refused.err and "holds 2 runs" in refused.err


def test_gathering_a_store_into_itself(mathlete: Mathlete, run_id: str) -> None:
    called = mathlete("runs", "gather", run_id, "--into", f"runs/{run_id}/run.sqlite")
    assert called.code == 2 and "into itself" in called.err
