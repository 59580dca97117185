"""The command line in this process, with a scripted generator; problem files; a small disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import scripted_cli
from calling import THREE, Called, Mathlete

from mathlete.cli import main, session


@pytest.fixture
def mathlete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Mathlete:
    """Call the command line with arguments; `solve` and `evaluate` write into `tmp_path/runs`."""
    monkeypatch.setattr(session, "load_generator", scripted_cli.load_scripted)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Called:
        monkeypatch.setattr(sys, "argv", ["mathlete", *map(str, arguments)])
        capsys.readouterr()
        try:
            main.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        else:
            code = 0
        return Called(code, *capsys.readouterr())

    return call


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Three problems with labels, the second of which the script gets wrong."""
    path = tmp_path / "three.csv"
    path.write_text(THREE)
    return path


@pytest.fixture
def only_run(tmp_path: Path) -> Callable[[], Path]:
    """The folder of the one run there is."""

    def find() -> Path:
        (folder,) = (tmp_path / "runs").iterdir()
        return folder

    return find


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes; skipped where this user may not mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("needs `mount` to make a small disk")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a small tmpfs: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
