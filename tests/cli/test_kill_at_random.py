"""`kill -9` at random moments of a run: its store opens, nothing finished is lost or made twice, resuming completes it.

MATHLETE_TEST_KILLS sets how often, MATHLETE_TEST_SEED which moments.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.core.record import RunRecord
from watching import stored, submission

NUM_KILLS = int(os.environ.get("MATHLETE_TEST_KILLS", "25"))
SEED = int(os.environ.get("MATHLETE_TEST_SEED", "20261126"))
TOKEN_S = 0.002
NUM_PROBLEMS, NUM_ATTEMPTS = 4, 3

FORKING_CLI = Path(__file__).with_name("forking_cli.py")
PROBLEMS = "id,problem,answer\n" + "".join(f"p{i},How many are {i}?,42\n" for i in range(NUM_PROBLEMS))


class Commands:
    """Runs commands one after the other, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "four.csv").write_text(PROBLEMS)
        environment = {**os.environ, "MATHLETE_TEST_TOKEN_S": str(TOKEN_S), "MATHLETE_TEST_KEPT": str(folder / "kept")}
        self._server = subprocess.Popen(
            [sys.executable, FORKING_CLI], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str, kill_after_s: float | None = None) -> int:
        """How the command ended: its exit code, or minus the signal."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(f"{json.dumps([arguments, kill_after_s])}\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path)
    yield commands
    commands.close()


@dataclass
class Seen:
    """What was found at each look at a run."""

    attempts: dict[str, tuple[Attempt, ...]] = field(default_factory=dict)

    def look(self, folder: Path) -> RunRecord:
        """Check the run as it lies there against what was there before."""
        with closing(sqlite3.connect(folder / "run.sqlite")) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        record = stored(folder)
        for key, item in record.problems.items():
            before = self.attempts.get(key, ())
            assert item.attempts[: len(before)] == before, "finished attempts stay as they are"
            names = [attempt.id for attempt in item.attempts]
            assert len(names) == len(set(names)), "no attempt is made twice"
            self.attempts[key] = item.attempts
        kept = folder.parents[1] / "kept"
        told = kept.read_text().split() if kept.exists() else []
        there = {attempt.id for item in record.problems.values() for attempt in item.attempts}
        assert there >= set(told), "what the store said was kept is there"
        assert len(there) <= len(told) + 1, "at most the attempt in the keeping had not been told"
        return record


def only_run(tmp_path: Path) -> Path | None:
    """The folder of the run, if one has begun; what is left of one that was killed before that is removed."""
    for folder in (tmp_path / "runs").glob("*"):
        try:
            if stored(folder).problems:
                return folder
        except InputError as error:
            assert "no run store" in str(error) or "before it began" in str(error)
        assert not (tmp_path / "kept").exists(), "attempts were kept in a run that is not there"
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    return None


def check_complete(folder: Path, record: RunRecord) -> None:
    assert record.finished == "complete"
    for item in record.problems.values():
        assert sorted(attempt.index for attempt in item.attempts) == list(range(NUM_ATTEMPTS))
        assert item.selection is not None and item.gold == "42" and not item.unfinished
    assert submission(folder) == {f"p{i}": 42 for i in range(NUM_PROBLEMS)}
    assert len((folder / "attempts.jsonl").read_text().splitlines()) == NUM_PROBLEMS
    assert (folder / "report.html").read_text().endswith("</html>\n")


def seconds_of_a_run(commands: Commands, start: tuple[str, ...], tmp_path: Path) -> float:
    """How long one takes that nobody kills, its report included, on this machine as it is now."""
    commands.run(*start)  # the first one finds nothing in memory yet
    began_s = time.monotonic()
    assert commands.run(*start) == 0, (tmp_path / "log").read_text()
    took_s = time.monotonic() - began_s
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "kept").unlink()
    return took_s


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again(commands: Commands, tmp_path: Path) -> None:
    noise = random.Random(SEED)
    start = ("evaluate", "four.csv", "--attempts", str(NUM_ATTEMPTS), "--max-in-flight", "4")
    num_killed = num_runs = num_before_its_begin = 0
    longest_s = seconds_of_a_run(commands, start, tmp_path)
    while num_killed < NUM_KILLS:
        num_runs += 1
        seen = Seen()
        ended = -signal.SIGKILL
        while ended != 0:
            folder = only_run(tmp_path)
            arguments = start if folder is None else ("evaluate", "--resume", folder.name)
            kill_after_s = noise.uniform(0, longest_s) if num_killed < NUM_KILLS else None
            began_s = time.monotonic()
            ended = commands.run(*arguments, kill_after_s=kill_after_s)
            if ended == 0 and folder is None:  # a whole run, and the machine may be quicker now
                longest_s = min(longest_s, time.monotonic() - began_s)
            assert ended in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
            num_killed += ended == -signal.SIGKILL
            folder = only_run(tmp_path)
            num_before_its_begin += folder is None
            if folder is not None:
                record = seen.look(folder)
        assert folder is not None
        check_complete(folder, record)
        folder.rename(tmp_path / f"done-{num_runs}")
        (tmp_path / "kept").unlink()
    print(f"{num_killed} kills in {num_runs} runs, {num_before_its_begin} of them before a run had begun")
    assert num_killed == NUM_KILLS
    assert num_before_its_begin < NUM_KILLS, "some were killed while they worked"
