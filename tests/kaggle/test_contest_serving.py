"""Serving as a notebook does: with problems of its own when it is saved, for the organiser's gateway in the rerun."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest
from rich.console import Console
from scripted_contest import command, contest, write_csv

from mathlete.core.errors import InputError
from mathlete.kaggle import entrant_process
from mathlete.kaggle.contest_table import ContestTable
from mathlete.kaggle.entrant_launch import free_port
from mathlete.kaggle.entrant_process import Serving, encode_contest, serve_contest
from mathlete.kaggle.gateway import Gateway, GatewayConfig
from mathlete.kaggle.protocol import RERUN_VARIABLE
from no_sandbox import NoSandbox


def test_local_problems_are_asked_by_a_gateway_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrant_process, "organiser_package", lambda: None)
    monkeypatch.delenv(RERUN_VARIABLE, raising=False)
    path = tmp_path / "test.csv"
    path.write_text("id,problem\n1,What are 1 + 2?\n2,What are 3 + 4?\n")
    asked = contest(tmp_path, make_sandbox=NoSandbox, run_id="saved")
    run = serve_contest(asked, Serving(local_csv=path), Console(quiet=True))
    assert run is not None and run.answers == {"1": 3, "2": 7}
    submission = pyarrow.parquet.read_table(tmp_path / "runs" / "saved" / "submission.parquet").to_pydict()
    assert dict(zip(submission["id"], submission["answer"], strict=True)) == {1: 3, 2: 7}, "ids as the file has them"


def test_in_the_rerun_others_ask_and_local_problems_wait(tmp_path: Path) -> None:
    """The gateway asks from another container, so the server listens at every address; SIGTERM ends it in order."""
    port = free_port()
    process = subprocess.Popen(
        command(contest(tmp_path, run_id="rerun", num_problems=2), port),
        env={**os.environ, RERUN_VARIABLE: "1"},
        stdin=subprocess.PIPE,  # its end would end the entrant
        stderr=subprocess.PIPE,
        text=True,
    )
    table = ContestTable.read(write_csv(tmp_path / "problems.csv", 2))
    run = Gateway(table, GatewayConfig(ports=(port,), startup_s=60, seed=None)).play()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0 and f"serving at [::]:{port}" in told
    assert run.answers == {"p0": 0, "p1": 11}
    assert (tmp_path / "runs" / "rerun" / "report.html").is_file()


def test_where_a_server_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RERUN_VARIABLE, raising=False)
    assert Serving().address == "127.0.0.1"
    monkeypatch.setenv(RERUN_VARIABLE, "1")
    assert Serving().address == "[::]"
    assert Serving(host="127.0.0.1").address == "127.0.0.1"


def test_what_another_process_plays_has_a_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must have a run_id"):
        encode_contest(contest(tmp_path), 1)
