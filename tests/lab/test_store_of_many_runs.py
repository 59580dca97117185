"""A store of many runs, stores of earlier versions, and what reading asks of a file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from damaged_store import damaged_store
from version_1_store import make_version_1

from mathlete.core.errors import InputError, StorageError
from mathlete.core.record import fold_run
from mathlete.core.trace import TraceEvent
from mathlete.lab.run_store import STORE_VERSION, RunStore, StoredRun, list_runs
from recorded_runs import run_events


def warning(message: str) -> TraceEvent:
    return TraceEvent("warning", 0.0, {"message": message})


def messages(store: RunStore) -> list[str]:
    return [event.data["message"] for event in store.events()]


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def schema_of(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        made = set(connection.execute("SELECT type, name FROM sqlite_master"))
        columns = {
            ("column", row[1])
            for table in ("events", "runs")
            for row in connection.execute(f"PRAGMA table_info({table})")
        }  # noqa: E501
    return made | columns


class TestManyRuns:
    @pytest.fixture
    def two(self, tmp_path: Path) -> Path:
        """A store of two runs whose events are mixed."""
        path = tmp_path / "all.sqlite"
        with RunStore.create(path, "first", "somewhere") as first:
            second = first.beside("second")
            for number in range(3):
                first.append(warning(f"first {number}"))
                second.append(warning(f"second {number}"))
        return path

    def test_each_run_has_its_own_events(self, two: Path) -> None:
        for name in ("first", "second"):
            with RunStore.read(two, name) as store:
                assert messages(store) == [f"{name} {number}" for number in range(3)]
                assert store.num_events() == 3 and store.num_events("run_started") == 0
                assert store.run.id == name
        assert list_runs(two) == (StoredRun(1, "first", "somewhere"), StoredRun(2, "second"))

    def test_one_goes_on(self, two: Path) -> None:
        with RunStore.open(two, "first") as store:
            store.append(warning("first 3"))
            assert messages(store)[-1] == "first 3"
        with RunStore.read(two, "second") as store:
            assert len(messages(store)) == 3

    def test_a_third_run(self, two: Path) -> None:
        with RunStore.create(two, "third") as store:
            assert list_runs(two)[-1].id == "second", "a run is there from its first event on"
            store.append(warning("third"))
            assert [run.id for run in list_runs(two)] == ["first", "second", "third"]
            assert messages(store) == ["third"]

    def test_which_run_must_be_clear(self, two: Path) -> None:
        for opening in (RunStore.open, RunStore.read):
            with pytest.raises(InputError, match="name one run of the store .*it holds first, second"):
                opening(two)
            with pytest.raises(InputError, match="no run 'other' in the store .*it holds first, second"):
                opening(two, "other")
        with pytest.raises(InputError, match="already"):
            RunStore.create(two, "first")
        with pytest.raises(InputError, match="already"):
            RunStore.create(two)

    def test_one_writer(self, two: Path) -> None:
        with RunStore.open(two, "first"), pytest.raises(InputError, match=rf"pid {os.getpid()}"):
            RunStore.open(two, "second")

    def test_the_list_of_runs_refuses_changes(self, two: Path) -> None:
        for statement in ("UPDATE runs SET id = 'x'", "DELETE FROM runs", "UPDATE events SET run = 2"):
            with (
                closing(sqlite3.connect(two)) as connection,
                pytest.raises(sqlite3.IntegrityError, match="append-only"),
            ):
                connection.execute(statement)

    def test_a_run_that_fails_with_its_first_event_is_not_there(self, two: Path) -> None:
        with RunStore.open(two, "first") as store:
            third = store.beside("third")
            with pytest.raises(StorageError):
                third.append(TraceEvent("warning", 0.0, {}, problem_id=object()))  # type: ignore[arg-type]
            assert [run.id for run in list_runs(two)] == ["first", "second"]
            third.append(warning("works now"))
            assert messages(third) == ["works now"]

    def test_places_go_on_from_where_one_looked(self, two: Path) -> None:
        with RunStore.read(two, "second") as store:
            stored = list(store.stored_events())
            assert [event.data["message"] for _, event in stored] == [f"second {n}" for n in range(3)]
            assert list(store.stored_events(after=stored[0].seq)) == stored[1:]
            assert list(store.stored_events(after=stored[-1].seq)) == []

    def test_an_event_that_is_known_last_stands_first(self, two: Path) -> None:
        with RunStore.open(two, "first") as store:
            third = store.beside("third")
            rows = [next(store.rows(number)) for number in (2, 1)]
            third.append_rows(rows, head=lambda: next(store.rows()))
            assert messages(third) == ["first 0", "first 2", "first 1"]


def test_what_is_asked_for_is_what_a_filter_leaves(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    events = run_events()
    with RunStore.create(path) as store:
        store.append_many(events)
        assert list(store.events(problem_id="p")) == [e for e in events if e.problem_id == "p"]
        kinds = ("attempt_finished", "warning")
        assert list(store.events(kinds=kinds)) == [e for e in events if e.kind in kinds]
        assert list(store.events(problem_id="q", kinds=kinds)) == [
            e for e in events if e.kind in kinds and e.problem_id == "q"
        ]
        assert list(store.events(kinds=())) == []
        assert store.num_events("attempt_finished") == 4


@pytest.mark.parametrize("where", ["run = 1 AND kind = 'x'", "run = 1 AND problem_id = 'x'"])
def test_one_problem_and_one_kind_are_found_by_an_index(tmp_path: Path, where: str) -> None:
    RunStore.create(tmp_path / "run.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT seq FROM events WHERE {where}").fetchall()
    assert "USING COVERING INDEX" in plan[0][3]


class TestVersion1:
    def test_is_read_as_it_is(self, tmp_path: Path) -> None:
        path, events = tmp_path / "run.sqlite", run_events()
        make_version_1(path, events)
        before = path.read_bytes()
        with RunStore.read(path) as store:
            assert list(store.events()) == events
            assert list(store.events(problem_id="p")) == [e for e in events if e.problem_id == "p"]
            assert store.num_events("warning") == 1
            assert store.run.id == tmp_path.name
        with RunStore.read(path, tmp_path.name) as store:
            assert fold_run(store.events()) == fold_run(events)
        assert path.read_bytes() == before
        with pytest.raises(InputError, match="no run 'other'"):
            RunStore.read(path, "other")

    def test_becomes_the_newest_when_it_goes_on(self, tmp_path: Path) -> None:
        path, events = tmp_path / "run.sqlite", run_events()
        make_version_1(path, events)
        with RunStore.open(path) as store:
            store.append(warning("more"))
            store.beside("another").append(warning("of another"))
        assert version_of(path) == STORE_VERSION
        with RunStore.read(path, tmp_path.name) as store:
            assert list(store.events()) == [*events, warning("more")]
        with RunStore.read(path, "another") as store:
            assert messages(store) == ["of another"]

    def test_migrated_and_new_stores_have_the_same_tables(self, tmp_path: Path) -> None:
        (tmp_path / "old").mkdir()
        make_version_1(tmp_path / "old" / "run.sqlite", run_events())
        RunStore.open(tmp_path / "old" / "run.sqlite").close()
        RunStore.create(tmp_path / "run.sqlite").close()
        assert schema_of(tmp_path / "old" / "run.sqlite") == schema_of(tmp_path / "run.sqlite")

    def test_a_migration_that_fails_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "run.sqlite"
        make_version_1(path, run_events())
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE runs (in_the_way)")
        with pytest.raises(StorageError, match="runs already exists.*everything recorded so far is safe"):
            RunStore.open(path)
        assert version_of(path) == 1
        with RunStore.read(path) as store:
            assert list(store.events()) == run_events()

    def test_a_migration_for_which_there_is_no_room_changes_nothing(self, tmp_path: Path, small_disk: Path) -> None:
        path = small_disk / "run.sqlite"
        make_version_1(path, [warning(str(number)) for number in range(4_000)])
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - 100_000)  # for the log's beginning, not for the indexes
        with pytest.raises(StorageError, match="free some space"):
            RunStore.open(path)
        filler.unlink()
        assert version_of(path) == 1
        with RunStore.open(path) as store:
            assert store.num_events() == 4_000
        assert version_of(path) == STORE_VERSION


@pytest.mark.parametrize("version", [1, STORE_VERSION])
@pytest.mark.parametrize("closed", [True, False])
def test_a_folder_where_nothing_may_be_written(small_disk: Path, version: int, closed: bool) -> None:
    path, events = small_disk / "run.sqlite", run_events()
    if version == 1:
        make_version_1(path, events)
    else:
        with RunStore.create(path) as store:
            store.append_many(events)
    if not closed:  # as a crash leaves it, with all that SQLite keeps beside it
        with RunStore.read(path) as reader:
            list(reader.events())
            for name in ("run.sqlite-wal", "run.sqlite-shm"):
                shutil.copy(small_disk / name, small_disk / f"{name}.kept")
        for name in ("run.sqlite-wal", "run.sqlite-shm"):
            (small_disk / f"{name}.kept").rename(small_disk / name)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with RunStore.read(path) as store:
        assert list(store.events()) == events
    assert [run.id for run in list_runs(path)] == ["disk"]
    with pytest.raises(StorageError, match="[Rr]ead-only"):
        RunStore.open(path)


@pytest.mark.parametrize("damage", ["all but the first page", "truncated", "inside a long event"])
def test_reading_notices_damage_to_what_is_read(tmp_path: Path, damage: str) -> None:
    path = damaged_store(tmp_path / "run.sqlite", damage)
    with pytest.raises(StorageError, match=r"recover"), RunStore.read(path) as store:
        list(store.events())


def test_reading_does_not_read_what_is_not_asked_for(tmp_path: Path) -> None:
    """Damage in one problem's events does not keep another problem from being read."""
    path = tmp_path / "run.sqlite"
    with RunStore.create(path) as store:
        store.append(TraceEvent("decision", 0.0, {"action": "stop"}, "p"))
        store.append(TraceEvent("decision", 0.0, {"text": os.urandom(200_000).hex()}, "q"))
    content = bytearray(path.read_bytes())
    content[-100_000:-50_000] = bytes(50_000)
    path.write_bytes(content)
    with RunStore.read(path) as store:
        assert [event.data for event in store.events(problem_id="p")] == [{"action": "stop"}]
        with pytest.raises(StorageError, match="damaged"):
            list(store.events(problem_id="q"))
