"""Bad input: one clear message, a non-zero exit, nothing lost or left behind, and no wait for a model.

Commands run in a process of their own, so that it can be seen whether torch was imported before an error was found.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from calling import THREE

# Commands come in as lines of JSON, and go out with their exit code, what they said, and what they had imported.
PROBE = """
import contextlib, io, json, sys
from mathlete.cli import main
for line in sys.stdin:
    sys.argv = ["mathlete", *json.loads(line)]
    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said):
        try:
            main.main()
        except SystemExit as end:
            code = end.code
    print(json.dumps({"code": code, "has_torch": "torch" in sys.modules, "message": said.getvalue()}))
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a command ended."""

    code: int
    has_torch: bool
    message: str


GOOD = ["good.csv"]
FILES = {
    "good.csv": THREE,
    "columns.csv": "name,text\na,b\n",
    "twice.csv": "id,problem\na,How many?\nb,How much?\na,How long?\n",
    "empty.csv": "id,problem\na,How many?\nb,  \n",
    "answer.csv": "id,problem,answer\na,How many?,x+1\n",
    "unlabelled.csv": "id,problem\na,How many?\n",
    "a_file": "something else",
    "words.gguf": "not a model",
}


def refusals(folder: Path, *commands: list[str]) -> list[Refusal]:
    """How commands end in one process that begins without torch."""
    environment = {**os.environ, "MATHLETE_CACHE": str(folder / "cache"), "COLUMNS": "80"}
    lines = "".join(f"{json.dumps(command)}\n" for command in commands)
    done = subprocess.run(
        [sys.executable, "-c", PROBE], input=lines, capture_output=True, text=True, cwd=folder, env=environment,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Refusal(**json.loads(line)) for line in done.stdout.splitlines()]


def no_traces(folder: Path) -> bool:
    runs = folder / "runs"
    return not runs.exists() or not any(runs.iterdir())


CASES = [
    (["solve", "nowhere.csv"], ["nowhere.csv", "file not found"]),
    (["solve", "goood.csv"], ["goood.csv: file not found", "did you mean good.csv?"]),
    (["solve", "columns.csv"], ["columns.csv, line 2", "has no 'problem' or 'question'", "it has 'name', 'text'"]),
    (["solve", "twice.csv"], ["twice.csv, line 4", "'a' was used before", "line 2"]),
    (["solve", "empty.csv"], ["empty.csv, line 3", "'problem' is empty", "fill it in or delete the row"]),
    (["evaluate", "answer.csv"], ["answer.csv, line 2", "'x+1'", "is not an integer in 0..99999"]),
    (["solve", "   "], ["the problem is empty"]),
    (["solve", "a_file"], ["a_file", "unknown kind of file", ".csv"]),
    (["evaluate", "unlabelled.csv"], ["unlabelled.csv, line 2", "has no answer"]),
    (["evaluate", "How many?"], ["has no answer to compare with"]),
    (["solve"], ["give either PROBLEMS", "--resume"]),
    (["evaluate"], ["give either PROBLEMS", "--resume"]),
    (["solve", *GOOD, "--resume", "latest"], ["give either PROBLEMS", "--resume"]),
    (["solve", *GOOD, "--budget", "10 parsecs"], ["--budget: '10 parsecs' is not a duration", "10m"]),
    (["solve", *GOOD, "--budget", "-5m"], ["--budget: '-5m' is not a duration"]),
    (["solve", *GOOD, "--budget", "0"], ["--budget: a duration must be longer than 0"]),
    (["solve", *GOOD, "--code-timeout", "soon"], ["--code-timeout: 'soon' is not a duration"]),
    (["solve", *GOOD, "--model", "gpt-17"], ["no model called 'gpt-17'", "qwen2.5-coder-0.5b", "path to a .gguf"]),
    (["solve", *GOOD, "--model", "words.gguf"], ["words.gguf is not a GGUF file"]),
    (["solve", *GOOD, "--precision", "int3"], ["--precision must be one of auto, w8a8, int4, nf4, bf16, not 'int3'"]),
    (["solve", *GOOD, "--kv-cache-dtype", "fp8"], ["--kv-cache-dtype must be one of bf16, int8, not 'fp8'"]),
    (["solve", *GOOD, "--batch-invariant", "--precision", "auto"], ["--batch-invariant needs a fixed --precision"]),
    (["solve", *GOOD, "--tensor-parallel", "2", "--precision", "auto"], ["--tensor-parallel needs a fixed"]),
    (["solve", *GOOD, "--device", "tpu"], ["--device must be cpu, cuda or cuda:N, not 'tpu'"]),
    (["solve", *GOOD, "--speculative-method", "magic"], ["--speculative-method must be one of off, ngram, suffix,"]),
    (["solve", *GOOD, "--speculative-method", "draft"], ["draft guesses with a model: give --draft-model, a smaller"]),
    (["solve", *GOOD, "--speculative-method", "eagle"], ["give --draft-model, the folder of an EAGLE head"]),
    (["solve", *GOOD, "--draft-model", "0.5b"], ["--draft-model is for --speculative-method draft, early_exit, eagle"]),
    (["solve", *GOOD, "--speculative-method", "suffix", "--speculative-model", "0.5b"], ["and the method is suffix"]),
    (["solve", *GOOD, "--speculative-method", "draft", "--draft-model", "0.5b", "--tensor-parallel", "2"],
     ["--speculative-method draft runs in one process, and --tensor-parallel is 2"]),
    (["solve", *GOOD, "--num-speculative-tokens", "65"], ["--num-speculative-tokens"]),
    (["solve", *GOOD, "--draft-width", "4"], ["--draft-width is for --speculative-method draft, early_exit, eagle"]),
    (["solve", *GOOD, "--speculative-method", "early_exit", "--draft-width", "65"], ["--draft-width"]),
    (["solve", *GOOD, "--temperature", "nan"], ["--temperature"]),
    (["solve", *GOOD, "--top-p", "0"], ["--top-p must be in (0, 1]"]),
    (["solve", *GOOD, "--out", "a_file"], ["cannot keep runs in a_file", "in the way"]),
    (["solve", *GOOD, "--out", "a_file/runs"], ["cannot make the folder a_file/runs", "Not a directory"]),
    (["solve", *GOOD, "--out", "/proc/runs"], ["cannot make the folder /proc/runs", "in another folder: --out"]),
    (["solve", "--resume", "latest"], ["no run 'latest'", "There are no runs in runs"]),
    (["solve", "--resume", "20990101-nothing"], ["no run '20990101-nothing'"]),
    (["solve", "--resume", "good.csv"], ["good.csv is not a run"]),
    (["solve", "--resume", "x", "--model", "0.5b", "--seed", "3"], ["--model, --seed cannot be changed"]),
    (["solve", *GOOD, "--attempts", "0"], ["--attempts"]),
    (["solve", *GOOD, "--no-such-flag"], ["--no-such-flag"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """All cases, in one process; what a case had to leave behind would be there at the end."""
    folder = tmp_path_factory.mktemp("bad")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    found = refusals(folder, *(command for command, _ in CASES))
    assert no_traces(folder)
    return {shlex.join(command): refusal for (command, _), refusal in zip(CASES, found, strict=True)}


@pytest.mark.parametrize(("command", "words"), [pytest.param(*case, id=shlex.join(case[0])) for case in CASES])
def test_the_message_says_what_and_where(refused: dict[str, Refusal], command: list[str], words: list[str]) -> None:
    refusal = refused[shlex.join(command)]
    for word in words:
        assert word in refusal.message
    assert refusal.code in (2, 4)
    assert not refusal.has_torch, "found before anything heavy was loaded"
    assert "Traceback" not in refusal.message


def test_an_unwritable_folder_for_runs(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs a user to whom permissions apply; /proc stands in for root")
    (tmp_path / "good.csv").write_text(THREE)
    (tmp_path / "locked").mkdir(mode=0o500)
    (refusal,) = refusals(tmp_path, ["solve", "good.csv", "--out", "locked"])
    assert (refusal.code, refusal.has_torch) == (4, False)
    assert "locked" in refusal.message and "Permission denied" in refusal.message


def test_a_disk_that_is_full_at_the_start(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "good.csv").write_text(THREE)
    (small_disk / "filler").write_bytes(b"x" * 2_080_000)
    (refusal,) = refusals(tmp_path, ["solve", "good.csv", "--out", str(small_disk)])
    assert (refusal.code, refusal.has_torch) == (4, False)
    assert "No space left on device" in refusal.message and "nothing has been started" in refusal.message
    assert "free some space on that disk or choose another folder" in refusal.message


@pytest.mark.model
@pytest.mark.parametrize("where", ["path", "cache"])
def test_a_model_file_that_was_cut(tmp_path: Path, small_model_path: Path, where: str) -> None:
    (tmp_path / "good.csv").write_text(THREE)
    name = "qwen2.5-coder-0.5b-instruct-q4_k_m"
    cut = tmp_path / "cut.gguf" if where == "path" else tmp_path / "cache" / "models" / name / f"{name}.gguf"
    cut.parent.mkdir(parents=True, exist_ok=True)
    with small_model_path.open("rb") as whole:
        cut.write_bytes(whole.read(20_000_000))
    model = str(cut) if where == "path" else "0.5b"
    (refusal,) = refusals(tmp_path, ["solve", "good.csv", "--model", model])
    assert (refusal.code, refusal.has_torch) == (3, False)
    assert str(cut) in refusal.message and "truncated or damaged" in refusal.message
    assert "20,000,000 bytes" in refusal.message
    assert where == "path" or "mathlete models pull" in refusal.message
    assert no_traces(tmp_path)
