"""`--checks lean_check`: from a problem file to PROVED, with a REPL that answers from a transcript."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calling import Mathlete

from mathlete.compose import LoadedGenerator
from mathlete.core.attempt import Attempt
from mathlete.core.generation import GenerateRequest
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.session import run_session as session
from watching import stored, wait_for_attempts

SCRIPTED_CLI = Path(__file__).with_name("scripted_cli.py")
STATEMENT = "import Mathlib\n\ntheorem product : 6 * 7 = {answer} := by sorry"
FLAGS = ("--policy", "triad", "--pillars", "code", "--checks", "lean_check", "--attempts", "2", "--stop", "never")


def message(severity: str, data: str) -> dict[str, Any]:
    place = {"line": 1, "column": 0}
    return {"severity": severity, "pos": place, "endPos": place, "data": data}


IMPORTS = {"expect": "^import Mathlib$", "reply": {}, "repeat": True}
REFERENCE = {
    "expect": r"^theorem mathlete_reference_\w+ : 6 \* 7 = 42 :=\nsorry$",
    "reply": {"sorries": [{}], "messages": [message("warning", "declaration uses 'sorry'")]},
    "repeat": True,
}
FAILS = {
    "expect": r"^theorem mathlete_attempt_.*linarith",
    "reply": {"messages": [message("error", "linarith failed to find a contradiction")]},
    "repeat": True,
}
HANGS = {"expect": "^theorem mathlete_attempt_", "reply": {}, "sleep_s": 300}
HOLDS = {"expect": r"^theorem mathlete_attempt_\w+ : 6 \* 7 = 42 :=\n\(\nby\n", "reply": {}, "repeat": True}
AUDIT = {
    "expect": r"#print axioms (?P<audit>\w+)$",
    "reply": {"messages": [message("info", "'$audit' depends on axioms: [propext]")]},
    "repeat": True,
}

Lean = Callable[..., None]


@pytest.fixture
def lean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lean:
    """Put a Lean on this machine that answers as told; told again, it answers so from its next start."""
    places = {name: tmp_path / "lean" / name for name in ("bin", "project", "repl", "said.json")}
    (places["project"] / "Mathlib").mkdir(parents=True)
    (places["project"] / "lakefile.toml").touch()
    places["bin"].mkdir()
    run = f"exec {sys.executable} -m mathlete.verify.lean.transcript_repl {places['said.json']}"
    for path, line in ((places["bin"] / "lake", 'shift; exec "$@"'), (places["repl"], run)):
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    monkeypatch.delenv("MATHLETE_LEAN_SERVER", raising=False)
    monkeypatch.setenv("PATH", f"{places['bin']}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MATHLETE_LEAN_REPL", str(places["repl"]))
    monkeypatch.setenv("MATHLETE_LEAN_PROJECT", str(places["project"]))

    def tell(*exchanges: dict[str, Any]) -> None:
        places["said.json"].write_text(json.dumps([IMPORTS, REFERENCE, *exchanges, AUDIT]))

    return tell


@pytest.fixture
def formal(tmp_path: Path) -> Path:
    path = tmp_path / "formal.jsonl"
    row = {"id": "a", "problem": "What is 6 times 7?", "answer": 42, "formal_statement": STATEMENT}
    path.write_text(json.dumps(row) + "\n" + json.dumps({"id": "b", "problem": "And 7 times 6?"}) + "\n")
    return path


def proving(monkeypatch: pytest.MonkeyPatch, *proofs: str) -> list[GenerateRequest]:
    """A model that solves, and writes these proofs one after the other. Returns what it is asked to prove, so far."""
    asked: list[GenerateRequest] = []

    def script(request: GenerateRequest) -> Reply:
        if not request.continuation:
            return Reply.saying(r"So the answer is $\boxed{42}$.")
        asked.append(request)
        return Reply.saying(f"  {proofs[len(asked) - 1]}\n```\n")

    loaded = LoadedGenerator(ScriptedGenerator(script), "scripted")
    monkeypatch.setattr(session, "load_generator", lambda config, console: loaded)
    return asked


def checks_in(folder: Path) -> dict[str, list[Attempt]]:
    problems = stored(folder).problems
    return {key: [attempt for attempt in item.attempts if attempt.is_check] for key, item in problems.items()}


def test_a_proof_that_fails_is_corrected_and_proved(
    mathlete: Mathlete, lean: Lean, formal: Path, only_run: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lean(FAILS, HOLDS)
    asked = proving(monkeypatch, "linarith", "norm_num")
    called = mathlete("solve", formal, *FLAGS)
    assert called.code == 0, called.err
    found = checks_in(only_run())
    assert found["b"] == [], "it has no formal statement"
    [proof] = found["a"]
    [evidence] = proof.evidence
    assert (evidence.verdict, evidence.answer, evidence.checker) == ("PROVED", "42", "lean_check")
    assert "axioms: propext" in evidence.detail and "norm_num" in evidence.detail
    assert "linarith failed to find" in (proof.turns[0].tool_text or "") and len(asked) == 2
    assert proof.about == ("42",) and proof.num_tokens == sum(turn.num_tokens for turn in proof.turns) > 0
    assert "Lean proof of product for the answer 42" in (only_run() / "report.html").read_text()


@pytest.mark.parametrize(
    ("proof", "reason"),
    [
        ("sorry", "'sorry'"),
        ("exact Lean.ofReduceBool _ _ rfl", "the word"),
        ("norm_num)\naxiom cheat : False\ntheorem x : 1 = 1 := (rfl", "the word 'axiom'"),
        ("norm_num\n```\n```lean\ntheorem product : 1 = 1 := by\n  rfl", "Lean"),
    ],
)
def test_a_hostile_proof_is_unknown_with_the_reason(
    mathlete: Mathlete,
    lean: Lean,
    formal: Path,
    only_run: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    proof: str,
    reason: str,
) -> None:
    lean({**HOLDS, "reply": {"messages": [message("error", "so Lean says")]}})
    proving(monkeypatch, *[proof] * 3)
    assert mathlete("solve", formal, *FLAGS).code == 0
    [check] = checks_in(only_run())["a"]
    assert (check.evidence[0].verdict, check.evidence[0].answer, check.failure) == ("UNKNOWN", "42", "no_answer")
    assert reason in check.evidence[0].detail and len(check.turns) == 3


def test_without_lean_the_run_is_refused_before_the_model_is_loaded(
    mathlete: Mathlete, formal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MATHLETE_LEAN_SERVER", "MATHLETE_LEAN_REPL", "MATHLETE_LEAN_PROJECT", "ELAN_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    called = mathlete("solve", formal, *FLAGS)
    assert called.code == 2
    assert "no Lean 4 to check proofs with" in called.err and "MATHLETE_LEAN_REPL" in called.err
    assert "Only --checks lean_check needs Lean" in called.err and "loading the script" not in called.err
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_formal_statement_that_is_none_is_refused(mathlete: Mathlete, lean: Lean, tmp_path: Path) -> None:
    lean()
    path = tmp_path / "bad.csv"
    path.write_text("id,problem,formal_statement\na,How many?,example : 1 = {answer} := by sorry\n")
    called = mathlete("solve", path, *FLAGS)
    assert called.code == 2 and "one theorem" in called.err and "problem 'a'" in called.err
    assert mathlete("solve", path, "--checks", "none", "--attempts", "1").code == 0, "nobody asked for a proof"


def test_nothing_to_prove_is_said(mathlete: Mathlete, lean: Lean, problems: Path) -> None:
    lean()
    called = mathlete("solve", problems, *FLAGS, "--limit", "1")
    assert called.code == 0 and "lean_check has nothing to prove" in called.err


def test_proofs_are_for_the_policy_triad(mathlete: Mathlete, formal: Path) -> None:
    called = mathlete("solve", formal, "--policy", "vote", "--checks", "lean_check")
    assert called.code == 2 and "--checks is for --policy triad" in called.err


def wait_for_repl(said: Path) -> int:
    """The process id of the REPL that reads a transcript, once there is one."""
    for _ in range(600):
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(said).encode() in command.read_bytes():
                    return int(command.parent.name)
            except OSError:
                continue  # ended meanwhile
        time.sleep(0.05)
    raise AssertionError("no REPL was started")


@pytest.mark.parametrize("num_signals", [1, 2])
def test_ctrl_c_while_a_proof_is_checked_leaves_nothing_behind(
    lean: Lean, mathlete: Mathlete, formal: Path, tmp_path: Path, num_signals: int
) -> None:
    lean(HANGS)
    environment = {**os.environ, "MATHLETE_TEST_TOKEN_S": "0", "MATHLETE_TEST_LOAD_S": "0"}
    process = subprocess.Popen(
        [sys.executable, SCRIPTED_CLI, "solve", formal, *FLAGS, "--limit", "1"],
        cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        folder = wait_for_attempts(tmp_path / "runs", 2, patience_s=60)
        repl = wait_for_repl(tmp_path / "lean" / "said.json")
        for _ in range(num_signals):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)  # two at once would be one
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert not Path(f"/proc/{repl}").exists()
    lean(HOLDS)
    called = mathlete("solve", "--resume", folder)
    assert called.code == 0, called.err
    *cut_off, last = (attempt.evidence[0].verdict for attempt in checks_in(folder)["a"])
    assert last == "PROVED" and cut_off in ([["UNKNOWN"]] if num_signals == 1 else [["UNKNOWN"], []])
