"""`mathlete serve`: what it refuses to begin with, who is let in, and how it ends."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import httpx
import pytest
from calling import Mathlete
from rich.console import Console

import mathlete as api
from mathlete.cli.serve import _teller
from mathlete.core.errors import InputError
from mathlete.local_server import open_port
from mathlete.serving.keys import key_of, new_key

SCRIPTED_CLI = Path(__file__).with_name("scripted_cli.py")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--api-key-env", "NO_SUCH_VARIABLE"), "no such environment variable"),
        (("--api-key-env", "sk-1234"), "takes the name of an environment variable"),
        (("--host", "no.such.host.invalid"), "no address of this machine"),
        (("--max-budget", "30s"), "shorter than --budget"),
        (("--max-attempts", "2"), "less than --attempts"),
        (("--backtracking", "on"), "goes back for none"),
        (("--policy", "luck"), "--policy must be one of"),
        (("--recipe", "nope"), "there is no recipe 'nope'"),
        (("--budget", "soon"), "not a duration"),
    ],
)
def test_what_it_does_not_begin_with(mathlete: Mathlete, arguments: tuple[str, ...], words: str) -> None:
    called = mathlete("serve", *arguments)
    assert called.code == 2 and words in called.err.replace("\n", " "), called.err


def test_a_key_in_the_place_of_its_variable_is_not_told(mathlete: Mathlete) -> None:
    assert "sk-1234" not in mathlete("serve", "--api-key-env", "sk-1234").err


class Unread(io.StringIO):
    """What nobody reads any more."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), BrokenPipeError()])
def test_a_log_that_nobody_reads_ends_no_problem(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=Unread(error))
    # rich ends the thread at a broken pipe, having changed this process's stdout, which is pytest's here
    monkeypatch.setattr(console, "on_broken_pipe", lambda: sys.exit(1))
    _teller(console)("begun")
    assert console.quiet


def test_a_taken_port(mathlete: Mathlete) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        called = mathlete("serve", "--port", str(taken.getsockname()[1]))
    assert called.code == 2 and "is in use" in called.err and "--port" in called.err
    assert "loading the script" not in called.err, "found out before the model is loaded"


def test_what_to_install(mathlete: Mathlete, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    called = mathlete("serve")
    assert called.code == 2 and "pip install 'mathlete[view]'" in called.err


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of(None) is None
    monkeypatch.setenv("KEY", "0123456789abcdef")
    assert key_of("KEY") == "0123456789abcdef"
    for weak in ("", "short", "has spaces in it here", "ümläute-and-more-of-them"):
        monkeypatch.setenv("KEY", weak)
        with pytest.raises(InputError, match="a key has from 16") as caught:
            key_of("KEY")
        assert not weak or weak not in str(caught.value)
    assert len(new_key()) > 32 and new_key() != new_key()
    with pytest.raises(InputError, match="cannot be opened"):
        open_port("192.0.2.1", 0)  # an address of nobody (RFC 5737)


@dataclass
class Process:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def wait_for(self, pattern: str, within_s: float = 30.0) -> str:
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            for line in list(self.lines):
                if (found := re.search(pattern, line)) is not None:
                    return found[1]
            time.sleep(0.05)
        raise AssertionError(f"{pattern} was not told: {self.lines}")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*arguments: str, token_s: float = 0.02) -> Process:
        environment = {**os.environ, "MATHLETE_TEST_TOKEN_S": str(token_s), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, SCRIPTED_CLI, "serve", "--port", "0", *arguments],
            cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        one = Process(process)
        started.append(one)
        assert process.stderr is not None
        Thread(target=lambda: one.lines.extend(iter(process.stderr.readline, "")), daemon=True).start()
        return one

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        assert one.process.stderr is not None
        one.process.stderr.close()


def ask(url: str, **headers: str) -> httpx.Response:
    body = {"model": "mathlete", "messages": [{"role": "user", "content": "How many?"}], "attempts": 2}
    return httpx.post(f"{url}/chat/completions", json=body, headers=headers, timeout=60, trust_env=False)


def test_it_answers_and_ends_in_order(start: Callable[..., Process], tmp_path: Path) -> None:
    """Programs run in the real sandbox."""
    served = start("--attempts", "2", token_s=0.0)
    url = served.wait_for(r"on (http\S+)").strip("\x1b[0m")
    told = ask(url).json()["mathlete"]
    assert told["answer"] == 42 and api.open_run(told["run"], out=tmp_path / "runs").answer == 42
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(30) == 0


@pytest.mark.slow
def test_ctrl_c_answers_what_is_worked_on(start: Callable[..., Process], tmp_path: Path) -> None:
    served = start("--attempts", "2", token_s=1.0)
    url = served.wait_for(r"on (http\S+)")
    answers: list[httpx.Response] = []
    asking = Thread(target=lambda: answers.append(ask(url)))
    asking.start()
    served.wait_for(r"(begun)")
    time.sleep(1.0)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    asking.join()
    assert answers[0].status_code == 200 and answers[0].json()["mathlete"]["reason"] == "interrupted"
    (folder,) = (tmp_path / "runs").iterdir()
    assert api.open_run(folder).record.finished == "interrupted"


@pytest.mark.slow
def test_other_machines_need_the_key_that_is_told_once(start: Callable[..., Process]) -> None:
    served = start("--host", "0.0.0.0", token_s=0.0)
    key = served.wait_for(r"not told again: (\S+)")
    url = served.wait_for(r"on (http\S+)").replace("0.0.0.0", "127.0.0.1")
    assert ask(url).status_code == 401
    assert ask(url, Authorization=f"Bearer {key}").status_code == 200
    assert sum(key in line for line in served.lines) == 1
