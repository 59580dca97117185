"""The ways of writing down which runs are meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from mathlete.core.errors import InputError
from mathlete.lab.run_finding import FoundRun, find_run, find_runs
from mathlete.lab.run_store import RunStore
from recorded_runs import run_events


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with two runs, beside a store with two others and one with a single run."""
    for name in ("20260101-aa", "20260102-bb"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        RunStore.create(tmp_path / "runs" / name / "run.sqlite").close()
    with RunStore.create(tmp_path / "all.sqlite", "one") as store:
        store.append_many(run_events())
        store.beside("two").append_many(run_events())
    with RunStore.create(tmp_path / "single.sqlite", "only") as store:
        store.append_many(run_events())
    return tmp_path / "runs"


def test_one_run(runs: Path) -> None:
    path = runs / "20260102-bb" / "run.sqlite"
    for text in ("20260102-bb", "20260102", str(runs / "20260102-bb"), str(path)):
        assert find_run(text, runs) == FoundRun(path, "20260102-bb", None)
    assert find_run(f"{runs.parent}/all.sqlite::two", runs) == FoundRun(runs.parent / "all.sqlite", "two", "two")
    only = find_run(str(runs.parent / "single.sqlite"), runs)
    assert (only.id, only.run_id) == ("only", "only")
    with only.read() as store:
        assert store.num_events() == len(run_events())


def test_several_runs(runs: Path) -> None:
    assert [run.id for run in find_runs(str(runs), Path("elsewhere"))] == ["20260101-aa", "20260102-bb"]
    assert [run.id for run in find_runs(str(runs.parent / "all.sqlite"), runs)] == ["one", "two"]
    assert [run.id for run in find_runs("20260101", runs)] == ["20260101-aa"]
    assert [run.id for run in find_runs(f"{runs.parent}/all.sqlite::one", runs)] == ["one"]


def test_what_names_none_or_too_many(runs: Path) -> None:
    with pytest.raises(InputError, match=r"holds 2 runs; name one of them: .*all\.sqlite::one, .*::two$"):
        find_run(str(runs.parent / "all.sqlite"), runs)
    with pytest.raises(InputError, match="no run 'three' in the store .*: it holds one, two"):
        find_run(f"{runs.parent}/all.sqlite::three", runs)
    with pytest.raises(InputError, match="no run 'nosuch'. Newest in"):
        find_run("nosuch", runs)
    with pytest.raises(InputError, match="2 runs begin with '2026'"):
        find_run("2026", runs)
    (runs / "empty").mkdir()
    with pytest.raises(InputError, match="no runs in"):
        find_runs(str(runs / "empty"), runs)


def test_a_damaged_run_does_not_hide_the_others(runs: Path) -> None:
    (runs / "20260101-aa" / "run.sqlite").write_text("no store")
    found = find_runs(str(runs), runs)
    assert [run.id for run in found] == ["20260101-aa", "20260102-bb"]
    with pytest.raises(InputError, match="not a run store"):
        found[0].read()
