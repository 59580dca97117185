"""Rehearsals with real processes: an entrant, its engine and its sandbox, which die; nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scripted_contest
from rich.console import Console
from typer.testing import CliRunner

from mathlete.cli import contest
from mathlete.cli.main import app
from mathlete.core.errors import EngineError, MathleteError
from mathlete.core.record import fold_run
from mathlete.kaggle import rehearsal as rehearsing
from mathlete.kaggle.contest_table import ContestTable
from mathlete.kaggle.faults import parse_faults
from mathlete.kaggle.processes import descendants
from mathlete.kaggle.rehearsal_session import HTML_NAME, JSON_NAME, played_before, rehearse, times
from mathlete.lab.run_store import RunStore

ALL = "generator_killed,sandbox_killed:3,slow_gateway:1,slow_start,late_answer,exception,entrant_killed"


def rehearsal(folder: Path, faults: str = "", **options: object) -> rehearsing.Rehearsal:
    table = ContestTable.read(scripted_contest.write_csv(folder / "problems.csv", 5))
    contest = scripted_contest.contest(folder, attempts=4)
    given = {"clock_s": 60.0, "command": scripted_contest.command, **options}
    return rehearsing.Rehearsal(contest, table, "x", faults=parse_faults(faults), **given)  # type: ignore[arg-type]


@pytest.mark.slow
def test_nothing_is_lost_whatever_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATHLETE_TEST_TOKEN_S", "0.05")
    asked = rehearsal(tmp_path, ALL, num_runs=1, clock_s=120.0)
    rehearsed = rehearse(asked, Console(quiet=True))
    (run,) = rehearsed.runs
    assert run.error is None and run.losses == ()
    assert sorted(run.answers.items()) == [(f"p{i}", 11 * i) for i in range(5)]
    assert run.right == ("p0", "p1", "p3", "p4"), "the label of p2 is wrong, and was on the wire"
    happened = {fault.kind for fault in run.faults} | {fault.kind for fault in run.not_done}
    assert happened == set(parse_faults(ALL))
    assert run.num_restarts == 1 and any("taken up again" in message for message in run.warnings)
    kinds = [fault.kind for fault in run.faults]
    if "exception" in kinds[kinds.index("entrant_killed") :]:  # else it may have been killed before it raised it
        assert any("as the rehearsal asked for" in message for message in run.warnings)
    with RunStore.read(tmp_path / "runs" / "x-1" / "run.sqlite") as store:
        record = fold_run(store.events())
    assert {key: item.gold for key, item in record.problems.items()} == asked.table.golds
    ids = [attempt.id for item in record.problems.values() for attempt in item.attempts]
    assert len(ids) == len(set(ids)), "no attempt is counted twice"
    (rows,) = times(rehearsed, tmp_path / "runs")
    assert len(rows) == 5 and max(row.num_asked for row in rows) > 1
    assert (asked.folder / HTML_NAME).is_file() and (asked.folder / "run-1" / "submission.parquet").is_file()
    assert played_before(asked.folder) == rehearsed.runs, "a rehearsal is read back"
    assert not [entry for entry in descendants(os.getpid()) if "mathlete" in entry.command]


@pytest.mark.slow
def test_two_runs_by_command_with_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsing, "entrant_command", scripted_contest.command)
    monkeypatch.setattr(contest, "_fetch_models", lambda asked, console: None)
    path = scripted_contest.write_csv(tmp_path / "problems.csv", 3)
    flags = ["--clock", "60s", "--attempts", "2", "--policy", "vote", "--out", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, ["contest", "rehearse", str(path), *flags, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["two_run_score"] == 2.0 and [run["num_right"] for run in told["runs"]] == [2, 2]
    assert [run["seed"] for run in told["runs"]] == [0, 1]
    assert all(run["is_in_time"] and not run["losses"] for run in told["runs"])
    name = told["name"]
    kept = json.loads((tmp_path / "runs" / f"{name}-rehearsal" / JSON_NAME).read_text())
    assert kept == told
    again = CliRunner().invoke(app, ["contest", "rehearse", str(path), *flags, "--resume", name])
    assert again.exit_code == 0, again.output
    assert "score: 2 of 3" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_when_a_rehearsal_ends_so_do_the_entrant_and_its_engine(tmp_path: Path, how: signal.Signals) -> None:
    path = scripted_contest.write_csv(tmp_path / "problems.csv", 3)
    code = (
        "import scripted_contest; from mathlete.kaggle import rehearsal; from mathlete.cli import main; "
        "rehearsal.entrant_command = scripted_contest.command; main.contest._fetch_models = print; main.main()"
    )
    command = [sys.executable, "-c", code, "contest", "rehearse", str(path), "--out", str(tmp_path / "runs")]
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "MATHLETE_TEST_TOKEN_S": "5"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    give_up_s = time.monotonic() + 60
    while not any("child_worker" in entry.command for entry in descendants(process.pid)):
        assert time.monotonic() < give_up_s and process.poll() is None
        time.sleep(0.05)
    below = [entry.pid for entry in descendants(process.pid)]
    process.send_signal(how)
    _, told = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130, told
        assert "with --resume" in told
    else:  # nobody waits for them then
        give_up_s = time.monotonic() + 60
        while any(is_running(pid) for pid in below):
            assert time.monotonic() < give_up_s
            time.sleep(0.05)
    assert not [pid for pid in below if is_running(pid)]


def is_running(pid: int) -> bool:
    """Whether a process is there that has not ended; whoever takes over orphans may reap them late."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_entrant_that_cannot_begin_is_told(tmp_path: Path) -> None:
    def command(contest: object, port: int) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no such model')"]

    (tmp_path / "runs" / "x-rehearsal").mkdir(parents=True)
    asked = rehearsal(tmp_path, num_runs=1, command=command)
    with pytest.raises(EngineError, match="(?s)ended with exit status 1 while it should serve.*no such model"):
        rehearsing.play_run(asked, 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["rehearse", "none.csv"], "cannot read the problems in none.csv"),
        (["rehearse", "{csv}", "--faults", "fire"], "'fire' is no fault"),
        (["rehearse", "{csv}", "--clock", "soon"], "'soon' is not a duration"),
        (["rehearse", "{csv}", "--model", "none.gguf"], "none.gguf"),
        (["serve", "--recipe", "no-such-recipe"], "no-such-recipe"),
        (["serve", "--policy", "luck"], "policy must be one of"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_starts(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    path = scripted_contest.write_csv(tmp_path / "problems.csv")
    given = [item.format(csv=path) for item in arguments]
    done = CliRunner().invoke(app, ["contest", *given, "--out", str(tmp_path / "runs")])
    assert isinstance(done.exception, MathleteError)
    assert complaint in str(done.exception)
    assert not (tmp_path / "runs").exists()
