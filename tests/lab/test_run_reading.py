"""Parts of a stored run are what the fold of all its events has at these places."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from version_1_store import make_version_1

from mathlete.core.errors import InputError, StorageError
from mathlete.core.record import fold_run
from mathlete.core.trace import TraceEvent, encode
from mathlete.lab.run_reading import read_figures, read_outline, read_problem, read_problems
from mathlete.lab.run_store import RunStore
from recorded_runs import attempt, run_events

Make = Callable[[list[TraceEvent]], RunStore]


@pytest.fixture(params=["newest", "version 1", "among others"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Put events into a store of each kind and open it for reading."""

    def make(events: list[TraceEvent]) -> RunStore:
        path = tmp_path / "run.sqlite"
        if request.param == "version 1":
            make_version_1(path, events)
        elif request.param == "newest":
            with RunStore.create(path) as store:
                store.append_many(events)
        else:
            with RunStore.create(path, "one") as store:
                store.append_many(events[:2])
                store.beside(tmp_path.name).append_many(events)
                store.append_many(events[2:])
        return RunStore.read(path, tmp_path.name)

    return make


def test_one_problem_in_full(stored: Make) -> None:
    whole = fold_run(run_events())
    with stored(run_events()) as store:
        assert read_problem(store, "p") == whole.problems["p"]
        assert list(read_problems(store)) == list(whole.problems.values())
        with pytest.raises(InputError, match="no problem 'r' in the run"):
            read_problem(store, "r")


@pytest.mark.parametrize("length", [1, 5, 20, -1, None])
def test_the_outline_is_the_run_without_turns(stored: Make, length: int | None) -> None:
    events = run_events()[:length]
    whole = fold_run(events)
    without = {
        key: replace(
            record,
            attempts=tuple(replace(attempt, turns=()) for attempt in record.attempts),
            unfinished={name: () for name in record.unfinished},
            rewindings={},
            beam_levels={},
        )
        for key, record in whole.problems.items()
    }
    with stored(events) as store:
        assert read_outline(store) == replace(whole, problems=without)


def test_turns_that_stand_in_an_attempts_end_are_left_out_too(stored: Make) -> None:
    done = attempt("p", 7, "1")
    ending = TraceEvent("attempt_finished", 5.0, {"attempt": encode(done)}, "p", done.id)
    with stored([run_events()[0], ending]) as store:
        assert read_outline(store).problems["p"].attempts == (replace(done, turns=()),)
        assert read_problem(store, "p").attempts == (done,)


def test_no_turn_is_decoded_for_an_outline(stored: Make) -> None:
    broken = TraceEvent("turn_finished", 5.0, {"not": "a turn"}, "p", "p#8")
    with stored([*run_events(), broken]) as store:
        assert len(read_outline(store).problems["p"].attempts) == 3
        assert len(read_problem(store, "q").attempts) == 1
        with pytest.raises(StorageError, match="is damaged: .*KeyError"):
            read_problem(store, "p")


def test_figures(stored: Make) -> None:
    with stored(run_events()) as store:
        figures = read_figures(store)
    assert (figures.command, figures.model, figures.finished) == ("evaluate", "small", "complete")
    assert (figures.num_problems, figures.num_attempts, figures.num_selected, figures.num_right) == (2, 4, 2, 1)
    assert (figures.accuracy, figures.elapsed_s, figures.started_wall_time) == (0.5, 9.0, 1000.0)


def test_figures_of_a_run_that_was_cut_off(stored: Make) -> None:
    with stored(run_events()[:12]) as store:
        figures = read_figures(store)
    assert (figures.finished, figures.accuracy, figures.num_problems, figures.elapsed_s) == (None, None, 2, 4.0)
    with stored_nothing(store.path.parent / "empty") as empty:
        assert read_figures(empty).command is None and read_figures(empty).num_problems == 0


def stored_nothing(folder: Path) -> RunStore:
    folder.mkdir()
    RunStore.create(folder / "run.sqlite").close()
    return RunStore.read(folder / "run.sqlite")


@pytest.mark.parametrize(("kind", "data"), [("run_started", "[1]"), ("run_started", "{}"), ("attempt_finished", "{}")])
def test_an_event_of_another_shape_is_damage(tmp_path: Path, kind: str, data: str) -> None:
    path = tmp_path / "run.sqlite"
    with RunStore.create(path) as store:
        store.append_many(run_events())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TRIGGER events_never_change")
        connection.execute("UPDATE events SET data = ? WHERE kind = ?", (data, kind))
    with RunStore.read(path) as store, pytest.raises(StorageError, match="is damaged: .*event"):
        read_outline(store)
