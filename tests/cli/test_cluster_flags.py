"""`--ray` and `--num-workers`: who works on a run, without starting anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mathlete.cli import cluster_options
from mathlete.cli.cluster_options import crew_of_flags
from mathlete.cli.main import app
from mathlete.core.errors import InputError
from mathlete.session import run_session


def test_one_worker_here_is_this_process() -> None:
    assert crew_of_flags(None, 1) is None


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mathlete.cluster")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"mathlete\[engine,tools,cluster\]") as found:
        crew_of_flags(None, 2)
    assert found.value.__notes__ == ["Only --ray and --num-workers need it."]


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("command", "called"),
    [
        (["evaluate", "tasks.csv", "--num-workers", "3"], "start_run"),
        (["solve", "tasks.csv", "--ray", "auto", "--num-workers", "3"], "start_run"),
        (["evaluate", "--resume", "a-run", "--num-workers", "3"], "resume_run"),
    ],
)
def test_a_run_gets_its_crew(command: list[str], called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.csv").write_text("id,problem,answer\np,What is 1 + 1?,2\n")
    crew, asked, given = object(), [], []

    def crew_of(ray: str | None, num_workers: int) -> object:
        asked.append((ray, num_workers))
        return crew

    def begin(*arguments: Any, **options: Any) -> None:
        given.append(options.get("open_crew", arguments[-1]))
        raise Stopped

    monkeypatch.setattr("mathlete.cli.solve.crew_of_flags", crew_of)
    monkeypatch.setattr(run_session, called, begin)
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, Stopped)
    assert asked == [("auto" if "auto" in command else None, 3)] and given == [crew]


def test_the_flags_say_where_and_not_what() -> None:
    assert cluster_options.FLAGS_OF_WHERE == {"ray", "num_workers"}
