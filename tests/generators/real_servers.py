"""Real servers on a free port of this machine, for as long as a test module needs them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_START_S = 900.0


def llama_server_program() -> str:
    """llama.cpp's server: MATHLETE_LLAMA_SERVER, or what is on the path."""
    if given := os.environ.get("MATHLETE_LLAMA_SERVER"):
        return given
    found = shutil.which("llama-server")
    if found is None:
        pytest.skip("needs llama.cpp's server: MATHLETE_LLAMA_SERVER=PROGRAM, or llama-server on the path")
    return found


def vllm_python() -> str:
    """An interpreter that has vLLM, in an environment of its own."""
    given = os.environ.get("MATHLETE_VLLM_PYTHON")
    if given is None:
        pytest.skip("needs vLLM: MATHLETE_VLLM_PYTHON=PYTHON of an environment that has it")
    return given


@contextmanager
def running(command: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """A server, from its first healthy word on; gives the API's address, and ends it."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **(env or {})}, start_new_session=True
        )
    try:
        end_s = time.monotonic() + _START_S
        while not _is_healthy(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < end_s, log.read_text(errors="replace")[-4000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
