"""Ctrl-C, SIGTERM, SIGKILL, a reader that goes away, a disk that fills: the run store is whole, and it goes on.

Each run is a process of its own with a scripted model and the real sandbox.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from watching import stored, submission, wait_for_attempts

SCRIPTED_CLI = Path(__file__).with_name("scripted_cli.py")
PROBLEMS = "id,problem,answer\n" + "".join(f"p{i},How many are {i}?,42\n" for i in range(6))

# Make the terminal at hand one's own, then become the command.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command; what still runs at the end is killed."""
    (tmp_path / "six.csv").write_text(PROBLEMS)
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str | Path, token_s: float = 0.05, load_s: float = 0.0) -> subprocess.Popen[str]:
        environment = {**os.environ, "MATHLETE_TEST_TOKEN_S": str(token_s), "MATHLETE_TEST_LOAD_S": str(load_s)}
        process = subprocess.Popen(
            [sys.executable, SCRIPTED_CLI, *map(str, arguments)], cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # tests may run under nohup
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def solve(start: Start, **times: float) -> subprocess.Popen[str]:
    return start("solve", "six.csv", "--attempts", "3", "--max-in-flight", "4", "--budget", "2m", **times)


def check_goes_on(start: Start, folder: Path, kept: dict[str, tuple[object, ...]]) -> None:
    """Resume to the end: what was there is kept, what was left is done."""
    out, err = start("solve", "--resume", folder.name, token_s=0.0).communicate(timeout=60)
    assert "6 of 6 right" in out, err
    record = stored(folder)
    assert record.finished == "complete"
    for key, item in record.problems.items():
        assert item.attempts[: len(kept[key])] == kept[key]
    assert submission(folder) == {f"p{i}": 42 for i in range(6)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_ends_the_run_in_order(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = solve(start)
    folder = wait_for_attempts(tmp_path / "runs", 1, patience_s=60)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert err.count("ending the run: answers and report follow (Ctrl-C again to stop at once)") == 1
    assert "interrupted; to go on: mathlete" in err and folder.name in err and "Traceback" not in err
    assert "an interruption cut short" in out
    record = stored(folder)
    assert record.finished == "interrupted"
    assert list(submission(folder)) == [f"p{i}" for i in range(6)]
    assert all((folder / name).exists() for name in ("submission.parquet", "attempts.jsonl", "report.html"))
    check_goes_on(start, folder, {key: item.attempts for key, item in record.problems.items()})


def test_ctrl_c_on_a_terminal(tmp_path: Path) -> None:
    """The key reaches every process of the terminal's foreground group, the sandbox's among them."""
    (tmp_path / "six.csv").write_text(PROBLEMS)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, SCRIPTED_CLI, "solve", "six.csv", "--attempts", "3"],
        cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "MATHLETE_TEST_TOKEN_S": "0.05", "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    seen, key_sent = b"", False
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
            if not key_sent and b"1 done" in seen:
                os.write(ours, b"\x03")
                key_sent = True
    except OSError:
        pass  # the other end is closed: the process has ended
    finally:
        os.close(ours)
        process.kill()
    text = seen.decode()
    assert process.wait(timeout=20) == 130, text
    assert "0/6 problems" in text and "running" in text, "the live table"
    assert text.count("ending the run: answers and report follow") == 1
    assert "interrupted; to go on: mathlete" in text and "Traceback" not in text and "KeyboardInterrupt" not in text


def test_a_second_signal_stops_at_once(start: Start, tmp_path: Path) -> None:
    process = solve(start)
    folder = wait_for_attempts(tmp_path / "runs", 1, patience_s=60)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # two of a kind could arrive as one
    sent_s = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - sent_s < 5
    assert process.returncode == 130 and out == ""
    assert "stopped at once; to go on: mathlete" in err and folder.name in err and "Traceback" not in err
    check_goes_on(start, folder, {key: item.attempts for key, item in stored(folder).problems.items()})


def test_json_of_an_interrupted_run(start: Start, tmp_path: Path) -> None:
    process = start("solve", "six.csv", "--attempts", "3", "--max-in-flight", "4", "--json")
    wait_for_attempts(tmp_path / "runs", 1, patience_s=60)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    result = json.loads(out)
    assert result["finished"] == "interrupted" and len(result["problems"]) == 6


def test_a_signal_while_the_model_loads_ends_at_once_and_leaves_nothing(start: Start, tmp_path: Path) -> None:
    process = solve(start, load_s=60.0)
    assert process.stderr is not None
    assert process.stderr.readline() == "loading the script\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in err
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_killed_run_loses_no_finished_attempt(start: Start, tmp_path: Path) -> None:
    process = solve(start)
    folder = wait_for_attempts(tmp_path / "runs", 3, patience_s=60)
    process.kill()
    process.communicate()
    kept = {key: item.attempts for key, item in stored(folder).problems.items()}
    assert sum(map(len, kept.values())) >= 3
    check_goes_on(start, folder, kept)


def test_a_reader_of_the_progress_that_goes_away_does_not_end_the_run(start: Start, tmp_path: Path) -> None:
    process = solve(start, token_s=0.02)
    assert process.stderr is not None and process.stdout is not None
    process.stderr.close()
    out = process.stdout.read()
    assert process.wait(timeout=60) == 0
    assert "6 of 6 right" in out


def test_a_disk_that_fills_up_in_mid_run(start: Start, tmp_path: Path, small_disk: Path) -> None:
    runs = small_disk / "runs"
    process = start("solve", "six.csv", "--attempts", "3", "--max-in-flight", "4", "--budget", "2m", "--out", runs)
    folder = wait_for_attempts(runs, 2, patience_s=60)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass  # now it is full
    out, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert "cannot write the run store" in err and "free some space on that disk" in err
    assert f"An answer to every problem is in {folder / 'submission.csv'}" in err
    assert f"--resume {folder}" in err and "Traceback" not in err
    assert len(submission(folder)) == 6
    kept = {key: item.attempts for key, item in stored(folder).problems.items()}
    assert sum(map(len, kept.values())) >= 2
    filler.unlink()
    out, err = start("solve", "--resume", folder, token_s=0.0).communicate(timeout=60)
    for key, item in stored(folder).problems.items():
        assert item.attempts[: len(kept[key])] == kept[key]
    assert "6 of 6 right" in out, err
    assert submission(folder) == {f"p{i}": 42 for i in range(6)}
