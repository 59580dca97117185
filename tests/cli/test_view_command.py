"""`mathlete view`: which runs are meant, and what is said when nothing can be shown."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest
from calling import Mathlete

from mathlete.cli.view import find_served
from mathlete.core.errors import InputError
from mathlete.lab.run_finding import FoundRun
from mathlete.lab.run_store import RunStore


def make_run(runs: Path, run_id: str) -> Path:
    (runs / run_id).mkdir(parents=True)
    RunStore.create(runs / run_id / "run.sqlite").close()
    return runs / run_id


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    folder = make_run(runs, "one")
    make_run(tmp_path / "elsewhere", "two")
    monkeypatch.chdir(tmp_path)
    assert find_served([], runs) == ([], [runs])
    assert find_served([str(tmp_path / "elsewhere")], runs) == ([], [tmp_path / "elsewhere"])
    for name in ("one", "on", "latest", str(folder), str(folder / "run.sqlite")):
        (found,), folders = find_served([name], runs)
        assert (found.path.resolve(), found.id, folders) == (folder / "run.sqlite", "one", []), name
    to_come = find_served([str(runs / "three")], runs)
    assert to_come == ([FoundRun(runs / "three" / "run.sqlite", "three")], [])
    for name in ("nope", str(tmp_path / "no" / "such")):
        with pytest.raises(InputError, match="there is no run"):
            find_served([name], runs)
    with pytest.raises(InputError, match="no folder of runs"):
        find_served([], tmp_path / "none")


def test_a_taken_port_and_a_host_that_others_can_reach(mathlete: Mathlete, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "one")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        called = mathlete("view", "one", "--no-open", "--port", str(taken.getsockname()[1]))
    assert called.code == 2 and "is in use" in called.err and "--port" in called.err
    called = mathlete("view", "one", "--no-open", "--host", "0.0.0.0")
    assert called.code == 2 and "this machine only" in called.err


def test_what_to_install(mathlete: Mathlete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "runs", "one")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    called = mathlete("view", "one", "--no-open")
    assert called.code == 2 and "pip install 'mathlete[view]'" in called.err
