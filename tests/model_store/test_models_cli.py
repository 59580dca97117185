"""`mathlete models` as a person or a script meets it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console
from tiny_model import CONTENT, PART_BYTES, SPEC, FakePip
from typer.testing import CliRunner

from mathlete.cli import models
from mathlete.core.errors import InputError, ModelError
from mathlete.model_store.progress import Progress
from mathlete.model_store.store import ModelStore

Run = Callable[..., Result]


@pytest.fixture
def run(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(models, "ModelStore", lambda: store)
    return lambda *arguments: CliRunner().invoke(models.app, list(arguments))


def json_of(result: Result) -> Any:
    return json.loads(result.stdout)


def test_list(run: Run, store: ModelStore) -> None:
    assert json_of(run("list", "--json"))[0]["state"] == "absent"
    result = run("list")
    assert result.exit_code == 0
    assert result.stdout.split("\n")[1].split() == ["tiny-model", "0.00", "GB", "absent", "Apache-2.0", "tiny"]
    store.ensure("tiny")
    assert "ready" in run("list").stdout


def test_pull_says_where_the_model_is(run: Run, store: ModelStore) -> None:
    result = run("pull", "tiny")
    assert result.exit_code == 0
    assert result.stdout == f"tiny-model is ready (0.00 GB, Apache-2.0): {store.path_of(SPEC)}\n"
    assert "Fetching tiny-model, part 1 of 5: 0%" in result.stderr
    facts = json_of(run("pull", "tiny", "--json"))
    assert (facts["state"], facts["num_bytes"], facts["origin"]["source"]) == ("ready", len(CONTENT), "wheels")


def test_pull_takes_names_only(run: Run, tmp_path: Path) -> None:
    assert isinstance(run("pull", str(tmp_path)).exception, InputError)


def test_pull_force_repairs(run: Run, store: ModelStore) -> None:
    store.ensure("tiny").path.write_bytes(b"short")
    assert isinstance(run("pull", "tiny").exception, ModelError)
    assert run("pull", "tiny", "--force").exit_code == 0
    assert store.path_of(SPEC).read_bytes() == CONTENT


def test_info(run: Run, store: ModelStore, pip: FakePip) -> None:
    pip.wheel(3).unlink()
    assert isinstance(run("pull", "tiny").exception, ModelError)
    facts = json_of(run("info", "tiny", "--json"))
    assert (facts["state"], facts["num_bytes_here"], facts["origin"]) == ("partial", 2 * PART_BYTES, None)
    assert "partial (42%)" in run("info", "tiny").stdout
    pip.put(3, CONTENT[2 * PART_BYTES : 3 * PART_BYTES])
    store.ensure("tiny")
    lines = dict(line.split(maxsplit=1) for line in run("info", "tiny").stdout.splitlines() if "also" not in line)
    assert lines["sha256"] == SPEC.sha256
    assert lines["licence"] == "Apache-2.0, see https://example.org/tiny"
    assert lines["size"] == f"{len(CONTENT):,} bytes"
    assert lines["path"] == str(store.path_of(SPEC))
    assert lines["origin"].startswith("wheels on a Python package index, tiny-part1==1.0 and 4 more parts 20")


def test_verify(run: Run, store: ModelStore) -> None:
    path = store.ensure("tiny").path
    assert run("verify", "tiny").stdout == f"tiny-model is whole: sha256 {SPEC.sha256}\n"
    assert json_of(run("verify", "tiny", "--json"))["ok"] is True
    path.write_bytes(CONTENT[:-1] + b"?")
    result = run("verify", "tiny", "--json")
    assert isinstance(result.exception, ModelError) and result.exit_code != 0
    assert json_of(result)["ok"] is False and "--force" in json_of(result)["error"]


def test_the_bar_follows_the_steps() -> None:
    screen = io.StringIO()
    with models.showing_progress(Console(file=screen, force_terminal=True, width=80)) as report:
        report(Progress("Fetching m, part 1 of 2", 0, 2_000_000))
        report(Progress("Fetching m, part 2 of 2", 1_000_000, 2_000_000))
        time.sleep(0.25)  # the bar is drawn ten times a second
        report(Progress("Verifying m", 2_000_000, 2_000_000))
    shown = screen.getvalue()
    assert shown.count("Fetching m") == 1 and "part 2 of 2" in shown and "1.0/2.0 MB" in shown
    assert shown.count("Verifying m") == 1 and "2.0/2.0 MB" in shown


def test_a_log_gets_few_lines() -> None:
    screen = io.StringIO()
    with models.showing_progress(Console(file=screen, width=40)) as report:
        for done in range(101):
            report(Progress(f"Fetching a model with a long name, part {done} of 100", done, 100))
    lines = screen.getvalue().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["0%", "25%", "50%", "75%", "100%"]
