"""The command line in this process, with a scripted generator; problem files; a small disk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import scripted_cli
from calling import THREE, Called, Mathlete

from mathlete.cli import main
from mathlete.session import run_session as session


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
def small_disk_size() -> str:
    """Room for a run to begin."""
    return "2m"
