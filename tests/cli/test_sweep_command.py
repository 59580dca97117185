"""`mathlete sweep`: recipes by seeds, one store, a table; gone on with where it was cut off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import scripted_cli
from typer.testing import CliRunner

from mathlete.cli.main import app
from mathlete.core.errors import EngineError, InputError
from mathlete.lab.run_store import RunStore, list_runs
from mathlete.session import run_session

TASKS = "id,problem,answer\n" + "".join(f"p{i},What is {i} + {i}?,{2 * i}\n" for i in range(3))
RECIPE = '[engines.main]\ntype = "ryanstream"\nmodel = "{model}"\n\n[run]\nattempts = {attempts}\n'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_session, "load_generator", scripted_cli.load_scripted)
    (tmp_path / "tasks.csv").write_text(TASKS)
    for name, attempts in (("few", 2), ("many", 4)):
        (tmp_path / f"{name}.toml").write_text(RECIPE.format(model="0.5b", attempts=attempts))
    return tmp_path


def sweep(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["sweep", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_recipes_by_seeds(files: Path) -> None:
    code, out = sweep("few.toml", "many.toml", "tasks.csv", "--seeds", "0,1", "--json")
    assert code == 0
    told = json.loads(out)
    first, second = told["rows"]
    assert (first["name"], second["name"]) == ("few", "many")
    assert first["num_seeds"] == second["num_seeds"] == 2 and first["num_problems"] == 3
    assert first["comparison"] is None and second["comparison"]["num_problems"] == 6, "paired by problem and seed"
    assert len(first["accuracies"]) == 2 and first["mean_accuracy"] is not None
    store = Path(told["store"])
    assert [run.id for run in list_runs(store)] == ["few-s0", "few-s1", "many-s0", "many-s1"]
    for name, attempts, seed in (("few", 2, 1), ("many", 4, 0)):
        with RunStore.read(store, f"{name}-s{seed}") as run:
            (started,) = run.events(kinds=["run_started"])
            assert (started.data["config"]["attempts"], started.data["config"]["seed"]) == (attempts, seed)
            assert run.num_events("attempt_finished") == 3 * attempts
    code, table = sweep("--resume", told["sweep"])
    assert code == 0 and "difference" in table and "many against few" in table


def test_it_goes_on_where_it_was_cut_off(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_loads = []

    def load(config: object, console: object) -> object:
        num_loads.append(config)
        if len(num_loads) == 2:
            raise EngineError("no memory is left")
        return scripted_cli.load_scripted(config, console)  # type: ignore[arg-type]

    monkeypatch.setattr(run_session, "load_generator", load)
    with pytest.raises(EngineError, match="no memory is left"):
        sweep("few.toml", "many.toml", "tasks.csv", "--seeds", "0,1")
    (folder,) = (files / "runs").iterdir()
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["few-s0", "few-s1"]
    stamp = (folder / "few-s0" / "submission.csv").stat().st_mtime_ns
    code, _ = sweep("--resume", str(folder))
    assert code == 0 and len(num_loads) == 3, "an engine is loaded once for all seeds"
    assert (folder / "few-s0" / "submission.csv").stat().st_mtime_ns == stamp, "what is finished is left alone"
    assert len(list_runs(folder / "sweep.sqlite")) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tasks.csv",), "at least one RECIPE"),
        (("few.toml", "tasks.csv", "--seeds", "0,0"), "--seeds"),
        (("few.toml", "tasks.csv", "--seeds", "one"), "--seeds"),
        (("few.toml", "nowhere/few.toml", "tasks.csv"), "two recipes are called few"),
        (("--resume", "nowhere"), "there is no sweep in nowhere"),
    ],
)
def test_what_cannot_be_used_is_told(files: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep(*arguments)
    assert not (files / "runs").exists()


def test_a_manifest_of_somebody_else_is_refused(files: Path) -> None:
    assert sweep("few.toml", "tasks.csv")[0] == 0
    (folder,) = (files / "runs").iterdir()
    for text in ("{}", "[1]", "no json", '{"version": 99}'):
        (folder / "sweep.json").write_text(text)
        with pytest.raises(InputError, match="sweep.json"):
            sweep("--resume", str(folder))
    shutil.rmtree(folder)
