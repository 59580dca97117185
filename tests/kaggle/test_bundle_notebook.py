"""The notebook of a bundle: what its cells call, and the whole of it in a kernel with the embedded model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbclient
import nbformat
import pyarrow.parquet
import pytest
from scripted_contest import contest

from mathlete.core.errors import InputError, ModelError
from mathlete.kaggle.bundle import BundleRequest, write_bundle
from mathlete.kaggle.bundle_manifest import Manifest
from mathlete.kaggle.notebook_run import (
    SUBMISSION,
    check_weights,
    contest_of,
    course,
    find_organiser,
    find_weights,
    local_problems,
    play,
    show_course,
)
from mathlete.kaggle.protocol import RERUN_VARIABLE
from mathlete.model_store.store import ModelStore
from mathlete.run_config import EngineSpec, RunConfig

EXAMPLES = Path(__file__).parents[2] / "examples" / "problems.csv"
SUMS = "id,problem,answer\na,What is 2 + 3?,5\nb,What is 20 + 30?,51\nc,What is 1 + 1?,2\n"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of a bundle with one small model."""
    model = tmp_path / "models" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(5000))
    engine = EngineSpec("main", "vllm", str(model), settings={"max_num_seqs": 4})
    config = RunConfig("solve", None, str(model), 600.0, engines=(engine,))
    request = BundleRequest("tiny", "", config, notebook_only=True)
    return write_bundle(request, tmp_path / "bundle", ModelStore(tmp_path / "cache"), lambda *told: None)


def test_weights_are_found_and_checked(manifest: Manifest, tmp_path: Path) -> None:
    places = find_weights(manifest, [tmp_path / "input"])  # where it was made
    told: list[str] = []
    check_weights(manifest, places, full=True, tell=told.append)
    assert told == ["0.00 GB are as the manifest says"]
    (tmp_path / "models" / "tiny" / "model.safetensors").write_bytes(b"\1" + bytes(4999))
    check_weights(manifest, places, full=False, tell=told.append)
    assert told[-1].endswith("by their sizes")
    with pytest.raises(ModelError, match="is not the file of the bundle: its SHA-256"):
        check_weights(manifest, places, full=True, tell=told.append)
    (tmp_path / "models" / "tiny").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"not attached to the notebook:\n  main: .*tiny \(config.json, model"):
        find_weights(manifest, [tmp_path / "input"])


def test_the_contest_of_a_bundle(manifest: Manifest, tmp_path: Path) -> None:
    found = contest_of(manifest, {"main": Path("/kaggle/input/tiny")}, num_problems=3, budget_s=90.0)
    assert (found.num_problems, found.config.budget_s, found.config.model) == (3, 90.0, "/kaggle/input/tiny")
    (engine,) = found.config.engines
    assert (engine.model, engine.settings, engine.own_process) == ("/kaggle/input/tiny", {"max_num_seqs": 4}, True)
    assert contest_of(manifest, {"main": Path("/m")}).num_problems == 50


def test_problems_that_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RERUN_VARIABLE, raising=False)
    inputs, fallback = tmp_path / "input", tmp_path / "fallback.csv"
    with pytest.raises(InputError, match="attach the competition"):
        local_problems(inputs, fallback, 2, tmp_path)
    fallback.write_text(SUMS)
    path = local_problems(inputs, fallback, 2, tmp_path)
    assert path is not None and path.read_text().splitlines() == SUMS.splitlines()[:3]
    folder = inputs / "competitions" / "aimo"
    folder.mkdir(parents=True)
    (folder / "test.csv").write_text("id,problem\nx,What is 1 + 1?\n")
    assert "x,What" in (local_problems(inputs, fallback, 9, tmp_path) or fallback).read_text()
    (folder / "reference.csv").write_text("id,problem,answer\ny,What is 1 + 2?,3\n")
    assert "y,What" in (local_problems(inputs, fallback, 9, tmp_path) or fallback).read_text()
    monkeypatch.setenv(RERUN_VARIABLE, "1")
    assert local_problems(inputs, fallback, 2, tmp_path) is None


def test_the_organisers_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["before"])
    assert find_organiser(tmp_path) is None
    package = tmp_path / "competitions" / "aimo" / "kaggle_evaluation"
    package.mkdir(parents=True)
    assert find_organiser(tmp_path) == package and sys.path == [str(package.parent), "before"]


def test_a_saved_version_writes_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(RERUN_VARIABLE, raising=False)
    (tmp_path / "sums.csv").write_text(SUMS)
    folder = play(contest(tmp_path, run_id="saved"), tmp_path / "sums.csv")
    table = pyarrow.parquet.read_table(tmp_path / SUBMISSION).to_pylist()
    assert {row["id"]: row["answer"] for row in table} == {"a": 5, "b": 50, "c": 2}
    lines = {line.id: line for line in course(folder, tmp_path / "sums.csv")}
    assert {key: line.is_right for key, line in lines.items()} == {"a": True, "b": False, "c": True}
    assert all(line.num_attempts and line.seconds is not None and line.at_s for line in lines.values())
    capsys.readouterr()
    show_course(folder, tmp_path / "sums.csv")
    shown = capsys.readouterr().out
    assert "2 of 3 right" in shown and "50  b wrong" in shown and "submission.parquet" in shown
    assert all(line.is_right is None for line in course(folder, None))


@pytest.mark.model
@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(
    small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a kernel of its own, with the 0.5B model over two example problems."""
    config = RunConfig(
        "solve", None, str(small_model_path), 600.0, attempts=1, max_tokens=96, policy="vote", pillars=("reasoning",)
    )
    request = BundleRequest("embedded", "", config, notebook_only=True, problems=EXAMPLES)
    out = tmp_path / "bundle"
    write_bundle(request, out, ModelStore(tmp_path / "cache"), lambda *told: None)
    work = tmp_path / "work"
    work.mkdir()
    environment = {
        "MATHLETE_BUNDLE": str(out / "dataset"),
        "MATHLETE_INPUT": str(tmp_path / "input"),
        "MATHLETE_LOCAL_PROBLEMS": "2",
        "MATHLETE_LOCAL_MINUTES": "1",
        "MATHLETE_CACHE": os.environ.get("MATHLETE_CACHE", str(Path.home() / ".cache" / "mathlete")),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(RERUN_VARIABLE, raising=False)
    notebook = nbformat.read(out / "notebook" / "mathlete.ipynb", 4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(work)}}
    )
    client.execute()
    shown = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output
    )
    assert "is installed already" in shown and "0.49 GB are as the manifest says" in shown
    assert "gsm8k-test-6" in shown and "of 2 right" in shown and "the engine is ready" in shown
    rows = pyarrow.parquet.read_table(work / SUBMISSION).to_pylist()
    assert {row["id"] for row in rows} == {"gsm8k-test-6", "gsm8k-test-9"}
    assert all(isinstance(row["answer"], int) and 0 <= row["answer"] <= 99_999 for row in rows)
    (run,) = (work / "runs").iterdir()
    assert (run / "report.html").is_file()
