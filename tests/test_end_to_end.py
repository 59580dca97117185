"""The whole program with the real 0.5B model: the command line, the engine, the sandbox, the store, the report.

Few and short: what can be seen without a model is tested in tests/cli with a scripted one. Prompts, answers and the
speed of this machine are not tested; each run has a budget it keeps.
"""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from mathlete.core.attempt import CUT_OFF
from mathlete.lab.redecide import redecide
from mathlete.lab.run_store import RunStore
from mathlete.lab.timeline_replay import replay_timeline
from watching import num_finished, stored, submission, wait_for_attempts

pytestmark = [pytest.mark.model, pytest.mark.slow]

# One core: two threads that wait for each other crawl where other processes want the cores too.
MATHLETE = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
from mathlete.cli.main import main
main()
"""

EXAMPLES = Path(__file__).parents[1] / "examples" / "problems.csv"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, small_model_path: Path) -> Iterator[Start]:
    """Start `mathlete` with the small model, as a resumed run is anyway; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str | Path) -> subprocess.Popen[str]:
        model = [] if "--resume" in arguments else ["--model", str(small_model_path)]
        command = [sys.executable, "-c", MATHLETE, *map(str, arguments), *model]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=pipe, stderr=pipe)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def example_ids(num: int) -> list[str]:
    with EXAMPLES.open() as file:
        return [row["id"] for row in csv.DictReader(file)][:num]


def assert_redecided(folder: Path) -> None:
    """The run's own policy says the same again at every moment."""
    with RunStore.read(folder / "run.sqlite") as store:
        again = redecide(store.events())
    assert again.is_faithful and again.num_launches and again.num_stops, "\n".join(again.lines())


def test_solve_writes_everything(start: Start, tmp_path: Path) -> None:
    process = start("solve", EXAMPLES, "--limit", "3", "--budget", "60s", "--attempts", "4", "--max-tokens", "200")
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    answers = submission(folder)
    assert list(answers) == example_ids(3)
    table = pyarrow.parquet.read_table(folder / "submission.parquet").to_pydict()
    assert table == {"id": list(answers), "answer": list(answers.values())}

    record = stored(folder)
    assert record.finished in ("complete", "budget")
    assert record.elapsed_s < 60
    attempts = [attempt for item in record.problems.values() for attempt in item.attempts]
    assert len(attempts) >= 3
    assert any(turn.result for attempt in attempts for turn in attempt.turns), "a program was run"
    assert all(len(turn.logprobs) == turn.num_tokens for attempt in attempts for turn in attempt.turns)
    lines = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    assert [line["problem_id"] for line in lines] == list(answers)
    exported = [attempt for line in lines for attempt in line["attempts"]]
    solutions = [attempt for attempt in attempts if not attempt.is_check]
    assert [attempt["tokens"] for attempt in exported] == [attempt.num_tokens for attempt in solutions]
    assert all({"answer", "correct", "seconds", "model", "features", "text"} <= set(attempt) for attempt in exported)

    page = (folder / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")
    assert all(name in page for name in answers)
    assert "of 3 right" in out and str(Path("runs") / folder.name / "report.html") in out
    assert "Traceback" not in err
    assert_redecided(folder)


def test_evaluate_gives_figures_as_json(start: Start) -> None:
    options = ("--limit", "2", "--budget", "45s", "--attempts", "2", "--max-tokens", "200")
    process = start("evaluate", EXAMPLES, *options, "--json")
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    result = json.loads(out)
    metrics = result["metrics"]
    assert metrics["num_problems"] == 2 and metrics["num_attempts"] == 4
    for name in ("accuracy", "pass_at_1", "majority"):
        assert 0 <= metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"] <= 1
    assert metrics["tokens_per_s"] > 0 and metrics["seconds_per_attempt"] > 0


def test_interrupted_then_killed_then_resumed(start: Start, tmp_path: Path) -> None:
    """One run in three sessions: Ctrl-C, SIGKILL, and to its end."""
    options = ("--limit", "3", "--budget", "4m", "--attempts", "3", "--max-in-flight", "3", "--max-tokens", "120")
    first = start("evaluate", EXAMPLES, *options)
    folder = wait_for_attempts(tmp_path / "runs", 2)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    assert "cut short" in out and folder.name in err
    assert list(submission(folder)) == example_ids(3)
    interrupted = stored(folder)
    assert interrupted.finished == "interrupted"

    second = start("evaluate", "--resume", folder.name)
    wait_for_attempts(tmp_path / "runs", num_finished(folder) + 2)
    second.kill()
    second.communicate()
    killed = stored(folder)
    assert killed.finished is None

    third = start("evaluate", "--resume", folder.name)
    out, err = third.communicate(timeout=300)
    assert third.returncode == 0, err
    record = stored(folder)
    assert record.finished == "complete", "it really went on with what was left"
    for key, item in record.problems.items():
        for earlier in (interrupted, killed):
            kept = earlier.problems[key].attempts
            assert item.attempts[: len(kept)] == kept, "no finished attempt is lost"
        voted = [attempt for attempt in item.attempts if attempt.answer is not None or attempt.failure not in CUT_OFF]
        assert len(voted) == 3, "each that was cut off without an answer is made again"
        assert len({attempt.id for attempt in item.attempts}) == len(item.attempts)
    assert list(submission(folder)) == example_ids(3)
    assert_redecided(folder)
    with RunStore.read(folder / "run.sqlite") as store:
        held = replay_timeline(store.events())
    assert held.is_faithful, "\n".join(held.lines())


def test_a_budget_of_one_second(start: Start) -> None:
    process = start("solve", EXAMPLES, "--budget", "1s", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert len(result["problems"]) == 12
    assert all(isinstance(row["answer"], int) for row in result["problems"])
    assert result["seconds"] < 10, "the budget and one step, on a machine that does other things too"


def test_a_seed_repeats_a_run(start: Start, tmp_path: Path) -> None:
    runs = []
    for out in ("one", "two"):
        options = ("--limit", "2", "--budget", "2m", "--attempts", "2", "--max-tokens", "120", "--seed", "7")
        process = start("evaluate", EXAMPLES, *options, "--out", out)
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        runs.append(stored(next((tmp_path / out).iterdir())))
    if "native" not in runs[0].config["engine"]:
        pytest.skip("without the native kernels a result may depend on who else is in the batch")
    for key, item in runs[0].problems.items():
        texts = [
            {attempt.id: [turn.text for turn in attempt.turns] for attempt in run.problems[key].attempts}
            for run in runs
        ]
        assert len(item.attempts) == 2 and texts[0] == texts[1]
