"""Cores and memory as a container limits them."""

import os
from pathlib import Path

import pytest

from mathlete.ryanstream.machine import available_cores, available_memory_bytes

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "expected"),
    [("max 100000", CORES), ("100000 100000", 1), ("50000 100000", 1), ("6400000 100000", min(CORES, 64)), ("", CORES)],
)
def test_cores_follow_the_quota(tmp_path: Path, content: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert available_cores(tmp_path) == expected


def test_memory_follows_the_limit(tmp_path: Path) -> None:
    whole = available_memory_bytes(tmp_path)  # nothing there, no limit
    (tmp_path / "memory.max").write_text("1048576\n")
    assert available_memory_bytes(tmp_path) == 1 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory_bytes(tmp_path) == whole > 1 << 20
