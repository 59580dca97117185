"""Finding a run again, and replacing its files safely."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mathlete.core.errors import InputError, StorageError
from mathlete.lab.run_folder import RunFolder, replace_file


def make_run(runs_dir: Path, run_id: str, written_s: float) -> RunFolder:
    folder = RunFolder.create(runs_dir, run_id)
    folder.store_path.touch()
    os.utime(folder.store_path, (written_s, written_s))
    return folder


def test_a_new_run_is_named_after_its_time(tmp_path: Path) -> None:
    first, second = RunFolder.create(tmp_path / "a" / "runs"), RunFolder.create(tmp_path / "a" / "runs")
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", first.id)
    assert first.id != second.id
    assert first.path == tmp_path / "a" / "runs" / first.id
    assert first.path.is_dir()
    names = [first.store_path, first.submission_csv, first.submission_parquet, first.attempts_jsonl, first.report_html]
    assert [path.name for path in names] == [
        "run.sqlite",
        "submission.csv",
        "submission.parquet",
        "attempts.jsonl",
        "report.html",
    ]
    assert {path.parent for path in names} == {first.path}


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/abs", "a b", "latest", "ü", "x\n", "-rf"])
def test_names_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a run"):
        RunFolder.create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "mine")
    with pytest.raises(InputError, match="a run mine .* already"):
        RunFolder.create(tmp_path, "mine")


def test_a_file_where_the_runs_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("x")
    with pytest.raises(InputError, match="in the way"):
        RunFolder.create(tmp_path / "runs")
    with pytest.raises(StorageError, match="Not a directory"):
        RunFolder.create(tmp_path / "runs" / "deeper")


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    path = tmp_path / "runs"
    make_run(path, "20251124-100000-aaaaaa", 3000)
    make_run(path, "20251125-100000-bbbbbb", 1000)
    make_run(path, "20251125-110000-cccccc", 2000)
    (path / "20251126-no-store").mkdir()
    (path / "20251126-a-file").write_text("x")
    return path


def test_open_by_id_path_store_prefix_and_latest(runs_dir: Path) -> None:
    expected = "20251125-110000-cccccc"
    path = runs_dir / expected
    for name in (expected, path, str(path), path / "run.sqlite", "20251125-11"):
        assert RunFolder.open(name, runs_dir).path == path
    assert RunFolder.open(path, Path("elsewhere")).path == path
    assert RunFolder.open("latest", runs_dir).id == "20251124-100000-aaaaaa", "the one last written to"


def test_latest_looks_at_the_log_of_a_run_that_was_cut_off(runs_dir: Path) -> None:
    log = runs_dir / "20251125-100000-bbbbbb" / "run.sqlite-wal"
    log.touch()
    os.utime(log, (4000, 4000))
    assert RunFolder.open("latest", runs_dir).id == "20251125-100000-bbbbbb"


def test_a_whole_id_wins_over_longer_ones(tmp_path: Path) -> None:
    make_run(tmp_path, "amc", 1)
    make_run(tmp_path, "amc23", 2)
    assert RunFolder.open("amc", tmp_path).id == "amc"


def test_an_ambiguous_prefix_lists_its_runs(runs_dir: Path) -> None:
    with pytest.raises(InputError, match=r"2 runs begin with '20251125'.*cccccc.*bbbbbb") as caught:
        RunFolder.open("20251125", runs_dir)
    assert "aaaaaa" not in str(caught.value)


@pytest.mark.parametrize("name", ["nope", "", "missing/folder"])
def test_an_unknown_run_lists_the_newest(runs_dir: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"aaaaaa, .*cccccc, .*bbbbbb"):
        RunFolder.open(name, runs_dir)


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    for n in range(8):
        make_run(tmp_path, f"run{n}", n)
    with pytest.raises(InputError, match=r"run7, run6, run5, run4, run3 and 3 more\."):
        RunFolder.open("nope", tmp_path)


def test_no_runs_at_all(tmp_path: Path) -> None:
    for name in ("latest", "x"):
        with pytest.raises(InputError, match="There are no runs in"):
            RunFolder.open(name, tmp_path / "runs")


def test_a_folder_that_is_no_run(runs_dir: Path) -> None:
    with pytest.raises(InputError, match="no run.sqlite in it"):
        RunFolder.open(runs_dir / "20251126-no-store", runs_dir)


def test_replacing_a_file_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "submission.csv"
    replace_file(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StorageError, match=r"submission\.csv: No space left"):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_reserve_holds_real_space_until_it_is_released(small_disk: Path) -> None:
    folder = RunFolder.create(small_disk / "runs")
    with (small_disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(StorageError, match="No space left"):
        replace_file(folder.report_html, bytes(40_000))
    folder.release_reserve()
    folder.release_reserve()
    replace_file(folder.report_html, bytes(40_000))


def test_a_new_run_on_a_full_disk(small_disk: Path) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(StorageError, match="nothing has been started"):
        RunFolder.create(small_disk / "runs")
