"""Following a run: only what is new is read, and whatever becomes of its store is told."""

import shutil
from dataclasses import replace
from pathlib import Path

from written_run import BOLTS, DIVISORS, Writer, create, write_steps, write_whole

from mathlete.core.trace import TraceEvent
from mathlete.lab.run_reading import read_outline
from mathlete.lab.run_store import RunStore
from mathlete.viewer.watching import WatchedRun


def test_what_is_folded_step_by_step_is_the_outline(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        watched = WatchedRun(store.path)
        seen = []
        for _ in write_steps(store):
            snapshot = watched.look()
            with RunStore.read(store.path) as reading:
                assert snapshot.run == read_outline(reading)
            seen.append(snapshot)
        assert [item.status for item in seen] == ["running"] * 5 + ["over"]
        assert all(before.place < after.place for before, after in zip(seen, seen[1:], strict=False))
        assert {item.epoch for item in seen} == {store.path.stat().st_ino}
    assert all(not attempt.turns for record in seen[-1].run.problems.values() for attempt in record.attempts)


def test_only_what_changed_is_told(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        watched = WatchedRun(store.path)
        steps = write_steps(store)
        next(steps)
        before = watched.look()
        assert before.changed == {}
        next(steps)
        after = watched.look()
        assert set(after.changed) == {"divisors"} and after.changed["divisors"] == after.place
        assert watched.look() == after  # nothing new: nothing changes


def test_a_turn_alone_changes_its_problem(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        writer, watched = Writer(store), WatchedRun(store.path)
        writer.start(DIVISORS, BOLTS)
        watched.look()
        writer.say("turn_finished", {"turn": {"text": "so far"}}, "bolts", "bolts#0")
        assert set(watched.look().changed) == {"bolts"}
        assert watched.read_problem("bolts").unfinished["bolts#0"][0].text == "so far"


def test_a_run_is_waited_for(tmp_path: Path) -> None:
    watched = WatchedRun(tmp_path / "r1" / "run.sqlite")
    assert watched.look().status == "waiting" and watched.look().run is None
    with create(tmp_path) as store:
        assert watched.look().status == "waiting"  # it has a store and has not begun
        next(write_steps(store))
        assert watched.look().status == "running" and watched.look().run is not None


def test_cut_off_and_resumed(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        writer = Writer(store)
        writer.start(DIVISORS)
        writer.open(DIVISORS)
        watched = WatchedRun(store.path)
        assert watched.look().status == "running"
    assert watched.look().status == "cut_off"
    with RunStore.open(tmp_path / "r1" / "run.sqlite") as store:
        writer = replace(writer, store=store)
        writer.say("run_resumed", {"config": {}})
        assert watched.look().status == "running"
        writer.finish(DIVISORS, [writer.attempt(DIVISORS, 0, "9")])
        writer.end()
        assert watched.look().status == "over"
        writer.say("run_resumed", {"config": {}})
        assert watched.look().status == "running"  # with a larger budget, an ended run goes on


def test_another_store_under_the_same_name_starts_afresh(tmp_path: Path) -> None:
    path = write_whole(tmp_path)
    watched = WatchedRun(path)
    first = watched.look()
    assert first.run is not None and len(first.run.problems) == 2
    kept = tmp_path / "kept"  # so that the new file cannot be given the inode of the old one
    shutil.move(tmp_path / "r1", kept)
    gone = watched.look()
    assert gone.status == "waiting" and "no run store" in gone.message
    with create(tmp_path) as store:
        Writer(store).start(BOLTS)
        second = watched.look()
    assert second.epoch != first.epoch and second.run is not None and list(second.run.problems) == ["bolts"]


def test_damage_is_told_and_what_was_seen_stays(tmp_path: Path) -> None:
    path = write_whole(tmp_path)
    watched = WatchedRun(path)
    whole = watched.look()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(bytes(content))  # the same inode
    damaged = watched.look()
    assert damaged.status == "unreadable" and "damaged" in damaged.message
    assert damaged.run == whole.run


def test_an_event_of_the_wrong_shape_is_damage(tmp_path: Path) -> None:
    path = write_whole(tmp_path)
    with RunStore.open(path) as store:
        store.append(TraceEvent("attempt_finished", 9.0, {"attempt": {"id": "x"}}, DIVISORS.id, "x"))
    damaged = WatchedRun(path).look()
    assert damaged.status == "unreadable" and "does not hold what it must" in damaged.message
