"""What is pushed: nothing when nothing is new, only parts that changed, and what a reload would show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from written_run import HOSTILE, create, write_steps, write_whole

from mathlete.viewer.index import Catalogue
from mathlete.viewer.pages import Address, front_page, problem_page
from mathlete.viewer.pushing import IndexReader, Push, Reader
from mathlete.viewer.watching import WatchedRun

ADDRESS = Address("r1")


def reader_of(watched: WatchedRun, number: int | None = None) -> Reader:
    """Somebody who has just loaded a page."""
    snapshot = watched.look()
    page = front_page(ADDRESS, snapshot)
    shell = re.search(r"shell=([^&\"]*)", page)
    assert shell is not None
    return Reader(ADDRESS, watched, snapshot.epoch, snapshot.place, shell[1], number)


def parts_of(push: Push | None) -> dict[str, str]:
    assert push is not None and push.parts is not None
    return dict(push.parts)


def test_only_changed_parts_are_pushed(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        steps, watched = write_steps(store), WatchedRun(store.path)
        next(steps), next(steps)
        reader = reader_of(watched)
        assert set(parts_of(reader.news())) == {"live"}  # how things stand, once
        assert reader.news() is None
        next(steps)  # a second attempt at the first problem
        parts = parts_of(reader.news())
        assert "row-1" in parts and "row-2" not in parts and "part-table" not in parts
        assert ">0 of 2<" in parts["row-1"]  # no answer is chosen yet
        assert reader.news() is None


def test_a_new_kind_of_row_brings_the_whole_table(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        steps, watched = write_steps(store), WatchedRun(store.path)
        next(steps), next(steps), next(steps)
        reader = reader_of(watched)
        next(steps)  # the first gold: a column more
        assert "Right answer" in parts_of(reader.news())["part-table"]


def test_what_is_pushed_is_what_a_reload_shows(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        steps, watched = write_steps(store), WatchedRun(store.path)
        next(steps)
        reader, pushed = reader_of(watched), set()
        for _ in steps:
            parts = parts_of(reader.news())
            page = front_page(ADDRESS, watched.look())
            parts.pop("live", None)  # the page's says where to listen, too
            assert all(html in page for html in parts.values())
            pushed |= set(parts)
    assert {"part-header", "part-tiles", "part-table", "part-time", "row-1"} <= pushed


def test_a_problem_is_pushed_when_it_changes_and_only_then(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        steps, watched = write_steps(store), WatchedRun(store.path)
        next(steps), next(steps)
        first, second = reader_of(watched, 1), reader_of(watched, 2)
        first.news(), second.news()
        next(steps)
        parts = parts_of(first.news())
        assert set(parts) == {"problem-1"} and parts["problem-1"].count('class="attempt ') == 2
        assert parts["problem-1"] in problem_page(ADDRESS, watched.look(), 1, watched.read_problem("divisors"))
        assert second.news() is None


def test_a_reader_of_another_store_loads_again(tmp_path: Path) -> None:
    watched = WatchedRun(write_whole(tmp_path))
    snapshot = watched.look()
    for epoch, place in [(snapshot.epoch + 1, 3), (snapshot.epoch, snapshot.place + 1), (snapshot.epoch, 0)]:
        push = Reader(ADDRESS, watched, epoch, place).news()
        assert push is not None and push.parts is None and push.place == f"{snapshot.epoch}-{snapshot.place}"


def test_a_reader_whose_news_nobody_kept_loads_again(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        steps, before = write_steps(store), WatchedRun(store.path)
        next(steps), next(steps)
        seen = before.look()
        next(steps)
        restarted = WatchedRun(store.path)  # by a viewer that was started anew, or has dropped the run meanwhile
        restarted.look()
        push = Reader(ADDRESS, restarted, seen.epoch, seen.place).news()
        assert push is not None and push.parts is None
        kept = Reader(ADDRESS, before, seen.epoch, seen.place).news()
        assert kept is not None and kept.parts is not None


def test_the_list_of_runs_follows(tmp_path: Path) -> None:
    reader = IndexReader(Catalogue(folders=[tmp_path]))
    assert "no run here yet" in parts_of(reader.news())["part-runs"]
    assert reader.news() is None
    with create(tmp_path) as store:
        steps = write_steps(store)
        next(steps)
        assert "running" in parts_of(reader.news())["part-runs"]
        for _ in steps:
            pass
        told = parts_of(reader.news())["part-runs"]
        assert "complete" in told and "1 of 2" in told
    assert reader.news() is None


def test_a_page_that_waited_loads_again_when_the_run_begins(tmp_path: Path) -> None:
    watched = WatchedRun(tmp_path / "r1" / "run.sqlite")
    waiting = watched.look()
    assert "Nothing is recorded yet" in front_page(ADDRESS, waiting)
    reader = Reader(ADDRESS, watched, waiting.epoch, waiting.place)
    assert set(parts_of(reader.news())) == {"live"}
    with create(tmp_path) as store:
        next(write_steps(store))
        push = reader.news()
        assert push is not None and push.parts is None


def test_hostile_text_is_escaped_in_what_is_pushed(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        steps, watched = write_steps(store, hostile=True), WatchedRun(store.path)
        next(steps)
        readers, pushed = [reader_of(watched), reader_of(watched, 1)], ""
        for _ in steps:
            pushed += "".join("".join(parts_of(push).values()) for push in (r.news() for r in readers) if push)
    assert "&lt;script&gt;alert(1)" in pushed
    assert "<script" not in pushed and "<img" not in pushed and not any(c in pushed for c in "\x00\u202e\u202c")
    assert HOSTILE not in pushed


def test_a_large_store_is_told_of_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mathlete.viewer.watching.LARGE_BYTES", 1)
    watched = WatchedRun(write_whole(tmp_path))
    glance = watched.glance()
    page = front_page(ADDRESS, glance)
    assert glance.status == "reading" and "Reading the attempts" in page and "Votes" not in page
    assert 'href="/runs/r1/problems/2"' in page and "right ✓" in page and "wrong ✗" in page
    push = Reader(ADDRESS, watched, glance.epoch, glance.place).news()
    assert push is not None and push.parts is None  # it is read now, and the page is to be loaded again
    assert watched.glance() == watched.look() and "Votes" in front_page(ADDRESS, watched.glance())
