from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mathlete.lab import read_ahead
from mathlete.lab.read_ahead import reading_ahead


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_FROM_BYTES", 1_000)
    monkeypatch.setattr(read_ahead, "_PIECE_BYTES", 100)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_the_whole_file_is_read_and_the_thread_is_over_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(5_000))
    with reading_ahead(path):
        for thread in readers():
            thread.join(10)
        assert not readers()
    assert not readers()


@pytest.mark.parametrize("size", [10, 999])
def test_a_small_file_is_left_alone(tmp_path: Path, size: int) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * size)
    with reading_ahead(path):
        assert not readers()


def test_a_file_that_memory_cannot_hold_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge"
    path.write_bytes(b"x" * 5_000)
    monkeypatch.setattr(os, "sysconf", lambda name: 50)  # 2,500 bytes
    with reading_ahead(path):
        assert not readers()


def test_it_stops_when_the_block_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 5_000)
    monkeypatch.setattr(read_ahead, "_PIECE_BYTES", 1)
    with pytest.raises(KeyError), reading_ahead(path):
        assert len(readers()) <= 1
        raise KeyError("the reader failed")
    assert not readers()
