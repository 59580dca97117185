"""`mathlete report`: of one run again, of several side by side, with names of every kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Mathlete

from mathlete.lab.run_store import RunStore
from recorded_runs import run_events


@pytest.fixture
def record(tmp_path: Path) -> Callable[[str], Path]:
    """Make a finished run of two problems in `runs`, one of them answered wrongly."""

    def make(run_id: str) -> Path:
        folder = tmp_path / "runs" / run_id
        folder.mkdir(parents=True)
        with RunStore.create(folder / "run.sqlite") as store:
            store.append_many(run_events())
        return folder

    return make


def test_one_run_again_is_what_the_run_wrote(mathlete: Mathlete, problems: Path, only_run: Callable[[], Path]) -> None:
    assert mathlete("solve", problems, "--attempts", "2").code == 0
    written = (only_run() / "report.html").read_text()
    (only_run() / "report.html").unlink()
    called = mathlete("report", "latest")
    assert called.code == 0 and called.out.strip().endswith("report.html")
    assert (only_run() / "report.html").read_text() == written


def test_several_runs_are_compared_and_linked_to_their_reports(
    mathlete: Mathlete, record: Callable[[str], Path], tmp_path: Path
) -> None:
    record("one"), record("two")
    assert mathlete("report", "one").code == 0
    (tmp_path / "out").mkdir()
    called = mathlete("report", "one", "two", "--out", "out/page.html")
    assert called.code == 0 and called.out.strip() == "out/page.html"
    page = (tmp_path / "out" / "page.html").read_text()
    assert "2 runs compared" in page and "Both are right on the same problems." in page
    links = set(re.findall(r'href="([^"#]+\.html)', page))
    assert links == {"../runs/one/report.html"} and (tmp_path / "out" / links.pop()).is_file()  # "two" has no report


def test_a_folder_of_runs_and_a_store_of_runs(
    mathlete: Mathlete, record: Callable[[str], Path], tmp_path: Path
) -> None:
    record("one"), record("two")
    assert mathlete("report", "runs").code == 0
    whole = (tmp_path / "comparison.html").read_text()
    assert mathlete("runs", "gather", "runs", "--into", "all.sqlite").code == 0
    assert mathlete("report", "all.sqlite").code == 0
    assert (tmp_path / "comparison.html").read_text() == whole
    assert mathlete("report", "all.sqlite::two", "--out", "two.html").code == 0
    assert "<title>Mathlete: 2 problems" in (tmp_path / "two.html").read_text()


def test_what_cannot_be_reported(mathlete: Mathlete, record: Callable[[str], Path], tmp_path: Path) -> None:
    folder = record("one")
    (tmp_path / "runs" / "empty").mkdir()
    RunStore.create(tmp_path / "runs" / "empty" / "run.sqlite").close()
    for arguments, words, code in [
        (["nope"], "there is no run 'nope'", 2),
        (["empty"], "ended before it began", 2),
        (["one", "empty"], "ended before it began", 2),
        (["one", "--out", "no/such/folder.html"], "could not be written", 4),
    ]:
        called = mathlete("report", *arguments)
        assert called.code == code and words in " ".join(called.err.split()), arguments
    assert not (folder / "report.html").exists()


def test_no_report_takes_the_place_of_a_store(mathlete: Mathlete, record: Callable[[str], Path]) -> None:
    store = record("one") / "run.sqlite"
    before = store.read_bytes()
    called = mathlete("report", store, "--out", store)
    assert called.code == 2 and "is a run store, and would be lost" in " ".join(called.err.split())
    assert store.read_bytes() == before


def test_a_run_that_fits_on_no_page(
    mathlete: Mathlete, record: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    record("one")
    monkeypatch.setattr("mathlete.cli.report.MAX_ATTEMPTS", 3)
    called = mathlete("report", "one")
    assert called.code == 2 and "mathlete view" in called.err
