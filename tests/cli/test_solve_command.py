"""`mathlete solve` and `evaluate` from arguments to files, with a scripted model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import scripted_cli
from calling import Mathlete
from rich.console import Console

from mathlete import __version__
from mathlete.compose import LoadedGenerator, build_generator, isolation_warnings, kernel_warnings
from mathlete.core.errors import EngineError
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.run_config import RunConfig
from mathlete.sandbox.isolation import LAYERS
from mathlete.session import crew
from mathlete.session import run_session as session
from watching import stored

Find = Callable[[], Path]


def test_everything_is_written(mathlete: Mathlete, problems: Path, only_run: Find) -> None:
    called = mathlete("solve", problems, "--attempts", 2, "--budget", "1m", "--pillars", "code")
    assert called.code == 0, called.err
    folder = only_run()
    assert {path.name for path in folder.iterdir()} == {
        "attempts.jsonl", "report.html", "run.lock", "run.sqlite", "submission.csv", "submission.parquet",
    }  # fmt: skip
    assert (folder / "submission.csv").read_text() == "id,answer\na,42\nb,42\nc,42\n"
    table = pyarrow.parquet.read_table(folder / "submission.parquet").to_pydict()
    assert table == {"id": ["a", "b", "c"], "answer": [42, 42, 42]}
    lines = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    assert [(line["problem_id"], line["gold"], line["group"]) for line in lines] == [
        ("a", "42", "a"), ("b", "7", "b"), ("c", "42", "c"),
    ]  # fmt: skip
    assert all("print(6 * 7)" in attempt["text"] for line in lines for attempt in line["attempts"])
    assert [[attempt["correct"] for attempt in line["attempts"]] for line in lines] == [
        [True] * 2,
        [False] * 2,
        [True] * 2,
    ]
    page = (folder / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")
    assert page.count("Let me compute it.") >= 6, "every attempt can be read"
    record = stored(folder)
    assert record.finished == "complete"
    assert record.config["engine"] == "scripted" and record.config["version"] == __version__
    assert record.config["source"] == str(problems.absolute())


def test_what_a_person_is_told(mathlete: Mathlete, problems: Path, only_run: Find) -> None:
    called = mathlete("solve", problems, "--attempts", 2, "--budget", "1m", "--pillars", "code")
    lines = called.out.splitlines()
    assert lines[0].split() == ["problem", "answer", "label", "standing", "votes", "attempts", "why", "it", "ended"]
    assert lines[2].split()[:6] == ["b", "42", "7", "offered", "2", "2"]
    assert "2 of 3 right, " in called.out
    assert f"report:     {Path('runs') / only_run().name / 'report.html'}" in lines
    assert "cut short" not in called.out
    assert "0 accepted, 3 offered" in called.out
    assert "a: 42 offered (42 x2; all attempts finished)" in called.err.splitlines()


def test_one_problem_as_text(mathlete: Mathlete, only_run: Find) -> None:
    called = mathlete("solve", "What is 6 times 7?", "--attempts", "1")
    assert called.code == 0
    assert "\n1 problem, " in called.out
    assert (only_run() / "submission.csv").read_text() == "id,answer\nproblem,42\n"
    assert stored(only_run()).config["source"] is None


def test_a_long_problem_as_text(mathlete: Mathlete, only_run: Find) -> None:
    called = mathlete("solve", "What is 6 times 7? " * 20, "--attempts", "1")
    assert called.code == 0


def test_evaluate_prints_figures(mathlete: Mathlete, problems: Path) -> None:
    called = mathlete("evaluate", problems, "--attempts", "3")
    assert called.code == 0
    for name in ("accuracy", "pass@1", "majority", "pass@2"):
        assert any(line.startswith(name) for line in called.out.splitlines()), name
    assert "9 over 3 problems" in called.out


@pytest.mark.parametrize("command", ["solve", "evaluate"])
def test_json_is_all_there_is_on_stdout(mathlete: Mathlete, problems: Path, command: str) -> None:
    called = mathlete(command, problems, "--attempts", "2", "--json")
    result = json.loads(called.out)
    assert [(row["id"], row["answer"], row["gold"]) for row in result["problems"]] == [
        ("a", 42, "42"), ("b", 42, "7"), ("c", 42, "42"),
    ]  # fmt: skip
    assert (result["finished"], result["warnings"]) == ("complete", [])
    if command == "evaluate":
        assert result["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
    else:  # problems that end early bend pass@1 and pass@k
        assert result["metrics"] is None
    assert result["num_tokens"] == sum(row["num_tokens"] for row in result["problems"]) > 0
    assert Path(result["folder"]).name == result["run"]


def test_solve_stops_when_settled_and_evaluate_does_not(mathlete: Mathlete, problems: Path) -> None:
    flags = (problems, "--attempts", "8", "--max-in-flight", "4", "--pillars", "code", "--json")  # the script's program
    solved = json.loads(mathlete("solve", *flags).out)
    tried = json.loads(mathlete("evaluate", *flags).out)
    assert all(row["num_attempts"] < 8 for row in solved["problems"])
    assert all(row["num_attempts"] == 8 for row in tried["problems"])


def test_limit(mathlete: Mathlete, problems: Path) -> None:
    result = json.loads(mathlete("solve", problems, "--attempts", "1", "--limit", "2", "--json").out)
    assert [row["id"] for row in result["problems"]] == ["a", "b"]


def test_the_same_seed_gives_the_same_attempts(mathlete: Mathlete, problems: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        assert mathlete("solve", problems, "--attempts", "2", "--seed", "5", "--out", tmp_path / out).code == 0
    one, two = (stored(next((tmp_path / out).iterdir())) for out in ("one", "two"))
    for name in "abc":
        seeds = [sorted((a.id, a.seed) for a in run.problems[name].attempts) for run in (one, two)]
        assert seeds[0] == seeds[1]


def test_a_run_that_the_budget_cut_says_so(mathlete: Mathlete, problems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATHLETE_TEST_TOKEN_S", "60")
    called = mathlete("solve", problems, "--attempts", "1", "--budget", "0.5s")
    assert called.code == 0
    assert "the budget cut short 3 of 3 problems" in called.out.splitlines()
    result = json.loads(mathlete("solve", problems, "--attempts", "1", "--budget", "0.5s", "--json").out)
    assert (result["finished"], [row["answer"] for row in result["problems"]]) == ("budget", [0, 0, 0])


def test_warnings_are_shown_once_and_kept(
    mathlete: Mathlete, problems: Path, only_run: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        return LoadedGenerator(ScriptedGenerator(scripted_cli.script), "scripted", ("the engine is slow",))

    monkeypatch.setattr(session, "load_generator", load)
    monkeypatch.setattr(crew, "isolation_warnings", lambda layers: ("programs can reach the network",))
    called = mathlete("solve", problems, "--attempts", "1")
    assert called.err.splitlines().count("warning: the engine is slow") == 1
    assert called.err.splitlines().count("warning: programs can reach the network") == 1
    assert stored(only_run()).warnings == ("the engine is slow", "programs can reach the network")
    assert "the engine is slow" in (only_run() / "report.html").read_text()


def test_what_became_of_guessed_tokens_is_told_and_kept(
    mathlete: Mathlete, problems: Path, only_run: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"steps": 500, "tokens": 1200, "drafted": 1000, "accepted": 700, "tokens_per_draw": 2.4}

    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        return LoadedGenerator(ScriptedGenerator(scripted_cli.script), "scripted", guesses=lambda: counts)

    monkeypatch.setattr(session, "load_generator", load)
    called = mathlete("solve", problems, "--attempts", "1")
    told = "guessed ahead: 700 of 1,000 guesses were right; 1,200 tokens in 500 steps, 2.40 an attempt and step"
    assert told in called.out.splitlines()
    assert stored(only_run()).stats["guesses"] == counts
    again = mathlete("solve", "--resume", only_run(), "--json")
    assert json.loads(again.out)["guesses"] == counts


def test_warnings_of_the_run_itself_are_told_at_its_end(
    mathlete: Mathlete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        return LoadedGenerator(ScriptedGenerator(lambda request: Reply.failing("[lost]")), "scripted")

    monkeypatch.setattr(session, "load_generator", load)
    (tmp_path / "many.csv").write_text("id,problem\n" + "".join(f"p{i},How many?\n" for i in range(8)))
    called = mathlete("solve", "many.csv", "--attempts", "1")
    lines = [line for line in called.err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 6
    assert lines[0].endswith("#0: the generator failed: [lost]")
    assert lines[5] == "warning: 3 more of these; all are in the report"
    assert "p0: 0 (no votes; all attempts finished)" in called.err.splitlines()


def test_what_is_warned_of() -> None:
    assert kernel_warnings("native") == kernel_warnings("triton") == ()
    (slow,) = kernel_warnings("torch (no C++ compiler (g++) was found)")
    assert "slow" in slow and "g++" in slow
    assert isolation_warnings(LAYERS) == ()
    for layer in ("netns", "seccomp", "landlock", "readonly", "newroot"):
        assert isolation_warnings([name for name in LAYERS if name != layer]) == (), "the others still hold"
    (open_network,) = isolation_warnings([name for name in LAYERS if name not in ("netns", "seccomp")])
    assert "reach the network" in open_network and "files" not in open_network
    (readable,) = isolation_warnings([name for name in LAYERS if name not in ("landlock", "newroot")])
    assert "writes read your files;" in readable
    (nothing,) = isolation_warnings([])
    assert "reach the network, read your files and change your files" in nothing


def test_a_defect_in_mid_run_still_hands_in_answers(
    mathlete: Mathlete, problems: Path, only_run: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        def script(request: object) -> Reply:
            if getattr(request, "group", None) == "c":
                raise RuntimeError("a defect")
            return Reply.saying(r"\boxed{3}")

        return LoadedGenerator(ScriptedGenerator(script), "scripted")

    monkeypatch.setattr(session, "load_generator", load)
    with pytest.raises(RuntimeError, match="a defect") as caught:
        mathlete("solve", problems, "--attempts", "2", "--max-in-flight", "2")
    assert "--resume" in caught.value.__notes__[0]
    assert (only_run() / "submission.csv").read_text() == "id,answer\na,3\nb,3\nc,0\n"


def test_what_goes_wrong_while_loading_leaves_no_run_behind(
    mathlete: Mathlete, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "load_generator", load)
    assert mathlete("solve", problems).code == 130
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("command", [["-m", "mathlete"], ["-c", "from mathlete.cli.main import main; main()"]])
def test_version_and_help(command: list[str]) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *command, *arguments], capture_output=True, text=True, timeout=60)

    assert run("--version").stdout == f"mathlete {__version__}\n"
    alone = run()
    assert "Usage:" in alone.stdout and "evaluate" in alone.stdout and not alone.stderr
    for name in ("solve", "evaluate"):
        assert "--resume" in run(name, "--help").stdout


def test_what_the_flags_ask_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting of a run that concerns the engine reaches it."""
    from mathlete.ryanstream import loading

    asked: list[Any] = []

    def load_engine(path: Path, cache_dir: Path, config: Any, progress: Any) -> None:
        asked.append(config)
        raise EngineError("enough")

    monkeypatch.setattr(loading, "load_engine", load_engine)
    given: dict[str, Any] = {
        "precision": "int4",
        "kv_cache_dtype": "int8",
        "batch_invariant": True,
        "tensor_parallel": 2,
        "device": "cuda:1",
    }
    config = RunConfig("solve", None, "m", 60.0, max_tokens=500, max_in_flight=7, threads=3, **given)
    with pytest.raises(EngineError, match="enough"):
        build_generator(config, tmp_path, tmp_path, lambda what, done, total: None)
    (engine,) = asked
    assert {name: getattr(engine, name) for name in given} == given
    assert (engine.max_running, engine.num_threads) == (7, 3) and engine.max_model_len > 500


def test_what_needs_one_precision_gets_one(mathlete: Mathlete, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RunConfig] = []

    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        seen.append(config)
        return LoadedGenerator(ScriptedGenerator(lambda request: Reply.failing("[lost]")), "scripted")

    monkeypatch.setattr(session, "load_generator", load)
    for flags in ((), ("--batch-invariant",), ("--tensor-parallel", "2"), ("--thinking-budget", "9")):
        mathlete("solve", "How many?", "--attempts", "1", *flags)
    assert [config.precision for config in seen] == ["auto", "w8a8", "w8a8", "auto"]
    assert seen[-1].thinking_budget == 9
