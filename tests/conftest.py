"""Fixtures that several rooms share. Imports nothing heavy: most rooms' tests never load torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mathlete.model_store.store import ModelStore, default_cache_dir

# The same examples every time, and no time limit for one: these tests run beside others on few cores.
settings.register_profile("mathlete", deadline=None, derandomize=True)
settings.load_profile("mathlete")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The development data beside the checkout, for tests marked `shared`."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the development data beside the checkout (../shared)")
    return folder


@pytest.fixture(scope="session")
def small_model_path() -> Path:
    """The 0.5B GGUF, for tests marked `model`: MATHLETE_TEST_MODEL, or what is in the cache."""
    if given := os.environ.get("MATHLETE_TEST_MODEL"):
        return Path(given)
    store = ModelStore(default_cache_dir())
    status = store.status(store.find("0.5b"))
    if status.state != "ready":
        pytest.skip("needs the 0.5B model: `mathlete models pull 0.5b`, or MATHLETE_TEST_MODEL=FILE.gguf")
    return status.path


@pytest.fixture
def small_disk_size() -> str:
    """Of `small_disk`, as mount's tmpfs takes it; a folder of tests may have its own."""
    return "1m"


@pytest.fixture
def small_disk(tmp_path: Path, small_disk_size: str) -> Iterator[Path]:
    """A file system of `small_disk_size`; skipped where this user may not mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("needs `mount` to make a small disk")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={small_disk_size}", "tmpfs", path], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a small tmpfs: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
