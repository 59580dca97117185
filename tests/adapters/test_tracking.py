"""Runs told to MLflow and TensorBoard, read back with their own readers."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_model import ScriptedModel

import mathlete
from mathlete.adapters import tracking
from mathlete.adapters.tracked_run import COLUMNS, TrackedRun, track_run
from mathlete.adapters.tracking import Tracker, TrackingError, parse_trackers
from mathlete.cli import main
from mathlete.core.errors import InputError
from mathlete.lab.gathering import gather_runs
from mathlete.lab.metrics import evaluate_run
from mathlete.lab.run_finding import FoundRun, find_run
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_store import RunStore

HOSTILE = "[x](javascript:alert(1)) | <b>bold</b>"
PROBLEMS = f'id,problem,answer\na,How many?,42\nb,How much?,7\n"{HOSTILE}",How long?,\n'


@pytest.fixture
def folder(scripted: ScriptedModel, tmp_path: Path) -> RunFolder:
    (tmp_path / "three.csv").write_text(PROBLEMS)
    solutions = mathlete.solve("three.csv", policy="fixed", attempts=2, progress=False)
    return RunFolder(solutions.folder)


def found_in(folder: RunFolder) -> FoundRun:
    return find_run(str(folder.path), folder.path.parent)


def tracked(folder: RunFolder) -> TrackedRun:
    with RunStore.read(folder.store_path) as store:
        return track_run(folder.id, mathlete.open_run(folder.path).record, store.events())


def test_what_is_told_of_a_run(folder: RunFolder) -> None:
    run = tracked(folder)
    record = mathlete.open_run(folder.path).record
    tokens = sum(attempt.num_tokens for item in record.problems.values() for attempt in item.attempts)
    assert run.params["policy"] == "fixed" and run.params["pillars"] == '["code"]' and "threads" not in run.params
    assert run.metrics["num_problems"] == 3 and run.metrics["num_attempts"] == 6
    assert run.metrics["num_tokens"] == tokens
    assert run.metrics["tokens_per_s"] == pytest.approx(tokens / record.elapsed_s)
    assert run.metrics["accuracy"] == 0.5 and run.metrics["accuracy_low"] < 0.5 < run.metrics["accuracy_high"]
    assert "pass_at_1" not in run.metrics  # the command is `solve`: it may end attempts early
    steps = [point.step for point in run.series["num_tokens"]]
    assert steps == [1, 2, 3, 4, 5, 6] and run.series["num_tokens"][-1].value == tokens
    assert [point.value for point in run.series["num_done"]] == [1, 2, 3]
    assert run.series["accuracy"][-1].value == 0.5
    times = [point.wall_time for point in run.series["num_tokens"]]
    assert run.started_wall_time <= times[0] <= times[-1] <= run.ended_wall_time
    table = list(csv.DictReader(io.StringIO(run.table())))
    assert tuple(table[0]) == COLUMNS and [row["id"] for row in table] == ["a", "b", HOSTILE]
    assert [row["correct"] for row in table] == ["True", "False", ""] and table[0]["votes"] == "2"


def test_a_whole_evaluation_tells_of_single_attempts_too(folder: RunFolder) -> None:
    record = mathlete.open_run(folder.path).record
    record = type(record)({**record.config, "command": "evaluate"}, record.problems, record.elapsed_s)
    run, found = track_run("x", record, []), evaluate_run(record)
    assert found is not None
    assert run.metrics["pass_at_2"] == found.pass_at[1].estimate.value
    assert run.metrics["majority_low"] == found.majority.low
    assert run.series == {} and run.ended_wall_time == run.started_wall_time


def test_tensorboard_reads_it_back(folder: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    where = Tracker("tensorboard", str(tmp_path / "board")).log(found_in(folder))
    assert where == f"TensorBoard run {folder.id} in {tmp_path / 'board'}"
    run, found = tracked(folder), EventAccumulator(str(tmp_path / "board" / folder.id))
    found.Reload()
    for name, points in run.series.items():
        assert [(event.step, event.value) for event in found.Scalars(f"course/{name}")] == [
            (point.step, pytest.approx(point.value)) for point in points
        ]
    assert {name: found.Scalars(name)[0].value for name in run.metrics} == pytest.approx(dict(run.metrics))
    table = found.Tensors("problems")[0].tensor_proto.string_val[0].decode()
    rows = table.splitlines()
    assert len(rows) == 5 and rows[0] == f"| {' | '.join(COLUMNS)} |" and rows[2].startswith("| a | 42 | 42 | True |")
    assert r"\[x\](javascript:alert(1)) \| \<b\>bold\</b\>" in rows[4]  # text, not markup
    assert "policy" in found.Tensors("settings")[0].tensor_proto.string_val[0].decode()
    assert "_hparams_/session_start_info" in found.Tags()["tensors"]


def test_mlflow_reads_it_back(folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # restored afterwards
    from mlflow import MlflowClient

    where = Tracker("mlflow", str(tmp_path / "flow")).log(found_in(folder))
    uri = (tmp_path / "flow").as_uri()
    assert where.endswith(f" of experiment 'mathlete' at {uri}")
    client, run = MlflowClient(uri), tracked(folder)
    experiment = client.get_experiment_by_name("mathlete")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == folder.id and found.info.status == "FINISHED"
    assert found.info.start_time == round(run.started_wall_time * 1000)
    assert found.data.params == dict(run.params)
    assert {name: found.data.metrics[name] for name in run.metrics} == pytest.approx(dict(run.metrics))
    history = client.get_metric_history(found.info.run_id, "course/num_tokens")
    assert sorted((item.step, item.value) for item in history) == [
        (point.step, point.value) for point in run.series["num_tokens"]
    ]
    artifacts = Path(client.download_artifacts(found.info.run_id, "", str(tmp_path)))
    assert (artifacts / "problems.csv").read_text() == run.table()
    assert (artifacts / "report.html").read_bytes() == folder.report_html.read_bytes()


def test_trackers_by_name() -> None:
    trackers = parse_trackers("tensorboard, mlflow=http://host:5000")
    assert trackers == (Tracker("tensorboard"), Tracker("mlflow", "http://host:5000"))
    with pytest.raises(InputError, match="there is no tracker 'wandb'; there are mlflow, tensorboard"):
        parse_trackers("wandb")
    with pytest.raises(InputError, match="name a tracker"):
        parse_trackers(" , ")


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'mathlete\[tracking\]'"):
        parse_trackers("mlflow")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def log(run: TrackedRun, place: str | None, report: Path) -> str:
        raise ConnectionError("no route\n to host")

    monkeypatch.setitem(tracking.TRACKERS, "mlflow", log)
    yield


def test_a_tracker_that_fails_says_so(folder: RunFolder, broken: None) -> None:
    with pytest.raises(TrackingError, match=r"mlflow could not be told of the run: no route to host\. .* --to mlflow"):
        Tracker("mlflow").log(found_in(folder))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["mathlete", *map(str, arguments)])
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_run_is_logged_when_it_ends(
    scripted: ScriptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "three.csv").write_text(PROBLEMS)
    arguments = ("solve", "three.csv", "--attempts", 1, "--policy", "fixed", "--log-to")
    assert call(monkeypatch, *arguments, f"tensorboard={tmp_path / 'board'}") == 0
    (run,) = (tmp_path / "runs").iterdir()
    told = capsys.readouterr()
    assert f"logged: TensorBoard run {run.name} in {tmp_path / 'board'}" in told.err and "submission:" in told.out
    assert list((tmp_path / "board" / run.name).glob("events.out.tfevents.*"))
    assert call(monkeypatch, *arguments, "wandb") == 2
    assert "--log-to: there is no tracker 'wandb'" in capsys.readouterr().err
    assert len(scripted.configs) == 1


def test_a_tracker_that_fails_does_not_harm_the_run(
    scripted: ScriptedModel,
    broken: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "solve", "How many are there?", "--attempts", 1, "--log-to", "mlflow") == 0
    told = capsys.readouterr()
    assert "warning: mlflow could not be told of the run: no route to host" in told.err and "42" in told.out
    assert call(monkeypatch, "runs", "log", "latest", "--to", "mlflow") == 1
    assert "error: mlflow could not be told of the run" in capsys.readouterr().err


def test_a_tracker_that_takes_too_long_may_be_interrupted(
    scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def log(run: TrackedRun, place: str | None, report: Path | None) -> str:
        raise KeyboardInterrupt

    monkeypatch.setitem(tracking.TRACKERS, "mlflow", log)
    assert call(monkeypatch, "solve", "How many are there?", "--attempts", 1, "--log-to", "mlflow") == 0
    told = capsys.readouterr()
    assert "warning: not logged to mlflow; to log it: mathlete runs log runs/" in told.err and "42" in told.out


def test_a_finished_run_is_logged(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "runs", "log", "latest", "--to", f"tensorboard={tmp_path / 'board'}") == 0
    assert capsys.readouterr().out == f"TensorBoard run {folder.id} in {tmp_path / 'board'}\n"


def test_a_run_of_a_store_of_many_is_logged_without_a_report(folder: RunFolder, tmp_path: Path) -> None:
    gather_runs([found_in(folder)], tmp_path / "all.sqlite")
    found = find_run(f"{tmp_path / 'all.sqlite'}::{folder.id}", tmp_path)
    Tracker("tensorboard", str(tmp_path / "board")).log(found)
    (written,) = (tmp_path / "board" / folder.id).iterdir()
    assert written.stat().st_size > 1000 and b"report.html" not in written.read_bytes()


def test_tensorboard_needs_no_torch(folder: RunFolder, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom mathlete.adapters.tracking import Tracker\n"
        "from mathlete.lab.run_finding import find_run\n"
        f"Tracker('tensorboard', 'board').log(find_run({str(folder.path)!r}, Path('runs')))\n"
        "print(sorted({'torch', 'tensorflow', 'pandas', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ), timeout=300
    )
    assert done.stdout == "[]\n", done.stderr
