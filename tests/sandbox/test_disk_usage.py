"""A directory is judged by what takes room in it, however it is nested; links and holes take none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mathlete.sandbox.disk_usage import exceeds
from mathlete.sandbox.removal import Sweeper, remove_tree


def test_bytes_and_entries_count_wherever_they_lie(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for number in range(5):
        (inner / str(number)).write_bytes(bytes(1 << 16))
    assert not exceeds(str(tmp_path), 6 << 16, 100)  # the folders take a little too
    assert exceeds(str(tmp_path), 4 << 16, 100)
    assert exceeds(str(tmp_path), 1 << 30, 6)
    assert not exceeds(str(tmp_path), 1 << 30, 7)  # five files, two folders


def test_what_takes_no_room_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    (tmp_path / "link").symlink_to("/usr")
    assert not exceeds(str(tmp_path), 1 << 16, 2)
    assert not exceeds(str(tmp_path / "gone"), 0, 0)


@pytest.mark.parametrize(("name", "depth"), [("d" * 200, 30), ("d", 1100)])  # for a path, for Python's stack
def test_a_tree_that_is_too_deep_is_too_much_and_can_be_removed(tmp_path: Path, name: str, depth: int) -> None:
    place = tmp_path / "deep"
    place.mkdir()
    here = os.getcwd()
    os.chdir(place)
    try:
        for _ in range(depth):
            os.mkdir(name)
            os.chdir(name)
    finally:
        os.chdir(here)
    assert exceeds(str(place), 1 << 30, 10_000)
    remove_tree(str(place))
    assert os.listdir(tmp_path) == []


def test_what_is_removed_is_all_of_it_and_nothing_else(tmp_path: Path) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (place / "closed" / "inner").mkdir(parents=True)
    (place / "closed" / "inner" / "file").touch()
    (place / "link").symlink_to(outside)
    os.mkfifo(place / "fifo")
    (place / "closed" / "inner").chmod(0)
    (place / "closed").chmod(0)
    remove_tree(str(place))
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(outside) == ["kept"]


def test_the_sweeper_has_removed_everything_when_it_is_closed(tmp_path: Path) -> None:
    sweeper = Sweeper()
    for name in "abc":
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    sweeper.remove(str(tmp_path / "empty"))
    assert not (tmp_path / "empty").exists()  # at once
    for name in ("a", "gone", "b", "c"):
        sweeper.remove(str(tmp_path / name))
    sweeper.close()
    assert os.listdir(tmp_path) == []
