"""The checker over a REPL that answers from transcripts, written after the REPL's documented format (not recorded)."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mathlete.core.selection import Evidence
from mathlete.verify.lean.lean_check import LeanChecker
from mathlete.verify.lean.repl_pool import ReplConfig, ReplPool
from mathlete.verify.lean.repl_process import resident_bytes
from mathlete.verify.lean.script import read_axioms

STATEMENT = "import Mathlib\n\nopen Nat\n\ntheorem small (n : ℕ) (h : 2 ≤ n) : 1 ≤ n := by sorry"


def message(severity: str, data: str) -> dict[str, Any]:
    place = {"line": 1, "column": 0}
    return {"severity": severity, "pos": place, "endPos": place, "data": data}


IMPORTS = {"expect": "^import Mathlib$", "reply": {}, "repeat": True}
PREAMBLE = {"expect": "^open Nat$", "reply": {}, "repeat": True}
SORRY = {"pos": {"line": 2, "column": 0}, "endPos": {"line": 2, "column": 5}, "goal": "⊢ 1 ≤ n", "proofState": 0}
REFERENCE = {
    "expect": r"^theorem mathlete_reference_\w+ .*:=\nsorry$",
    "reply": {"sorries": [SORRY], "messages": [message("warning", "declaration uses 'sorry'")]},
    "repeat": True,
}
ATTEMPT = {"expect": r"^theorem mathlete_attempt_\w+ .*:=\n\(\n", "reply": {}, "repeat": True}
AUDIT_RE = r"^theorem (?P<audit>\w+) : type_of% @(?P<reference>\w+) := @(?P<attempt>\w+)\n#print axioms (?P=audit)$"


def audit(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"expect": AUDIT_RE, "reply": {"messages": list(messages)}, "repeat": True}


GOOD = audit(message("info", "'$audit' depends on axioms: [propext,\n Classical.choice,\n Quot.sound]"))

Start = Callable[..., tuple[LeanChecker, ReplPool]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    pools: list[ReplPool] = []

    def started(*exchanges: dict[str, Any], **options: Any) -> tuple[LeanChecker, ReplPool]:
        transcript = tmp_path / f"{len(pools)}.json"
        transcript.write_text(json.dumps(exchanges))
        command = (sys.executable, "-m", "mathlete.verify.lean.transcript_repl", str(transcript))
        pools.append(ReplPool(ReplConfig(command, **{"check_s": 10.0, "import_s": 20.0, **options})))
        return LeanChecker(pools[-1]), pools[-1]

    yield started
    for pool in pools:
        pool.close()
        assert pool.pids == ()


def test_a_proof_is_proved_with_its_axioms(start: Start) -> None:
    checker, _ = start(IMPORTS, PREAMBLE, REFERENCE, ATTEMPT, GOOD)
    found = checker.check(STATEMENT, "by omega")
    assert (found.verdict, found.failure, found.claim) == ("PROVED", None, "Lean proof of small")
    assert found.detail.startswith("axioms: Classical.choice, Quot.sound, propext")
    assert found.elapsed_s > 0


def test_a_proof_without_axioms(start: Start) -> None:
    checker, _ = start(
        IMPORTS, PREAMBLE, REFERENCE, ATTEMPT, audit(message("info", "'$audit' does not depend on any axioms"))
    )
    assert checker.check(STATEMENT, "by omega").detail.startswith("axioms: none")


ERROR = message("error", "unsolved goals\n⊢ 1 ≤ n")
UNPROVED = {
    "an ordinary error": ([REFERENCE, {**ATTEMPT, "reply": {"messages": [ERROR]}}], None, "unsolved goals"),
    "a statement that Lean rejects": ([{**REFERENCE, "reply": {"messages": [ERROR]}}], "statement", "unsolved goals"),
    "a statement without its warning": ([{**REFERENCE, "reply": {}}, ATTEMPT, GOOD], "statement", "no message"),
    "a sorry that got through": ([REFERENCE, {**ATTEMPT, "reply": {"sorries": [SORRY]}}, GOOD], "audit", "sorry"),
    "a sorry in a warning": (
        [REFERENCE, {**ATTEMPT, "reply": {"messages": [message("warning", "declaration uses `sorry`")]}}, GOOD],
        "audit",
        "sorry",
    ),
    "another type than the statement's": (
        [
            REFERENCE,
            ATTEMPT,
            audit(message("error", "type mismatch"), message("info", "'$audit' depends on axioms: [sorryAx]")),
        ],
        "audit",
        "type mismatch",
    ),
    "sorry's axiom": (
        [REFERENCE, ATTEMPT, audit(message("info", "'$audit' depends on axioms: [sorryAx]"))],
        "audit",
        "sorryAx",
    ),
    "an axiom of its own": (
        [REFERENCE, ATTEMPT, audit(message("info", "'$audit' depends on axioms: [cheat, propext]"))],
        "audit",
        "cheat",
    ),
    "compiled computation": (
        [REFERENCE, ATTEMPT, audit(message("info", "'$audit' depends on axioms: [a._native.native_decide.ax_1_1]"))],
        "audit",
        "native_decide",
    ),
    "an audit that says nothing": ([REFERENCE, ATTEMPT, audit()], "audit", "0 things"),
    "an audit with a second voice": (
        [
            REFERENCE,
            ATTEMPT,
            audit(message("info", "hello"), message("info", "'$audit' does not depend on any axioms")),
        ],
        "audit",
        "2 things",
    ),
    "an audit of another name": (
        [REFERENCE, ATTEMPT, audit(message("info", "'small' does not depend on any axioms"))],
        "audit",
        "does not tell",
    ),
    "a message that imitates the audit, from the attempt": (
        [
            REFERENCE,
            {**ATTEMPT, "reply": {"messages": [message("info", "'small' depends on axioms: [propext]")]}},
            audit(message("info", "'$audit' depends on axioms: [sorryAx]")),
        ],
        "audit",
        "sorryAx",
    ),
    "an unknown environment": (
        [REFERENCE, {"expect": "attempt", "raw": '{"message": "Unknown environment."}\n'}],
        None,
        "Unknown environment",
    ),
}


@pytest.mark.parametrize("name", UNPROVED)
def test_everything_else_is_unknown_and_never_refuted(start: Start, name: str) -> None:
    exchanges, failure, detail = UNPROVED[name]
    checker, _ = start(IMPORTS, PREAMBLE, *exchanges)
    found = checker.check(STATEMENT, "by omega")
    assert (found.verdict, found.failure) == ("UNKNOWN", failure)
    assert detail in found.detail


def test_a_forged_answer_ahead_of_the_real_one_gains_nothing(start: Start) -> None:
    """Code that gets to write on the REPL's output can put answers there, yet not the name of the audit."""
    forged = json.dumps({"env": 9, "messages": [message("info", "'small' does not depend on any axioms")]})
    checker, pool = start(
        IMPORTS, PREAMBLE, REFERENCE, {"expect": "attempt", "raw": f'{{"env": 8}}\n\n{forged}\n\n{{"env": 10}}\n'}, GOOD
    )
    found = checker.check(STATEMENT, "by omega")
    assert (found.verdict, found.failure) == ("UNKNOWN", "crash")
    assert "without having been asked" in found.detail and pool.pids == ()


def test_refused_proofs_never_reach_lean(start: Start) -> None:
    checker, pool = start()
    found = checker.check(STATEMENT, "by native_decide")
    assert (found.verdict, found.failure) == ("UNKNOWN", "refused") and "native_decide" in found.detail
    assert checker.check("nonsense", "by simp").failure == "statement"
    assert pool.pids == ()


def test_imports_are_loaded_once_a_process(start: Start) -> None:
    once = [{**exchange, "repeat": False} for exchange in (IMPORTS, PREAMBLE)]
    checker, pool = start(*once, REFERENCE, ATTEMPT, GOOD)
    assert [checker.check(STATEMENT, "by omega").verdict for _ in range(3)] == ["PROVED"] * 3
    assert len(pool.pids) == 1


def test_a_process_is_replaced_after_its_checks(start: Start) -> None:
    checker, pool = start(IMPORTS, PREAMBLE, REFERENCE, ATTEMPT, GOOD, max_checks=1)
    assert [checker.check(STATEMENT, "by omega").verdict for _ in range(2)] == ["PROVED"] * 2
    assert pool.pids == ()


FAILURES = {
    "timeout": ({**ATTEMPT, "sleep_s": 60}, {"check_s": 2.0}, "timeout"),
    "memory": ({**ATTEMPT, "allocate_mib": 300, "sleep_s": 60}, {"memory_bytes": 150 << 20}, "memory"),
    "end": ({**ATTEMPT, "exit": 1}, {}, "crash"),
    "garbage": ({**ATTEMPT, "raw": "segmentation fault\n"}, {}, "crash"),
    "another form": ({**ATTEMPT, "raw": '{"env": 3, "messages": [{"data": 5}]}\n'}, {}, "crash"),
    "a list": ({**ATTEMPT, "raw": "[]\n"}, {}, "crash"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_costs_its_process_and_the_next_check_is_sound(start: Start, name: str) -> None:
    exchange, options, failure = FAILURES[name]
    bad = {**exchange, "expect": r"^theorem mathlete_attempt_.*by bad", "repeat": True}
    checker, pool = start(IMPORTS, PREAMBLE, REFERENCE, bad, ATTEMPT, GOOD, **options)
    assert checker.check(STATEMENT, "by omega").verdict == "PROVED"
    (pid,) = pool.pids
    found = checker.check(STATEMENT, "by bad")
    assert (found.verdict, found.failure) == ("UNKNOWN", failure)
    assert pool.pids == ()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert checker.check(STATEMENT, "by omega").verdict == "PROVED"


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    checker = LeanChecker(ReplPool(ReplConfig((str(tmp_path / "repl"),))))
    found = checker.check(STATEMENT, "by omega")
    assert (found.verdict, found.failure) == ("UNKNOWN", "crash") and "No such file" in found.detail


def test_several_threads_share_the_processes(start: Start) -> None:
    checker, pool = start(IMPORTS, PREAMBLE, REFERENCE, {**ATTEMPT, "sleep_s": 0.2}, GOOD, num_processes=2)
    verdicts: list[str] = []
    threads = [
        threading.Thread(target=lambda: verdicts.append(checker.check(STATEMENT, "by omega").verdict)) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["PROVED"] * 5
    assert 1 <= len(pool.pids) <= 2


def test_a_closed_pool_gives_no_verdict(start: Start) -> None:
    checker, pool = start(IMPORTS, PREAMBLE, REFERENCE, ATTEMPT, GOOD)
    with checker:
        assert checker.check(STATEMENT, "by omega").verdict == "PROVED"
    assert checker.check(STATEMENT, "by omega").failure == "crash"


def test_closing_ends_a_check_in_another_thread(start: Start) -> None:
    checker, pool = start(IMPORTS, PREAMBLE, REFERENCE, {**ATTEMPT, "sleep_s": 60}, GOOD)
    found: list[Evidence] = []
    thread = threading.Thread(target=lambda: found.append(checker.check(STATEMENT, "by omega")))
    thread.start()
    while not pool.pids:
        time.sleep(0.01)
    time.sleep(0.3)
    (pid,) = pool.pids
    pool.close()
    thread.join(timeout=10)
    assert (found[0].verdict, found[0].failure) == ("UNKNOWN", "crash")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_memory_of_a_process_and_its_children_is_counted() -> None:
    own = resident_bytes(os.getpid())
    assert own > 10 << 20
    assert resident_bytes(2**22 + 1) == 0
    started = time.monotonic()
    resident_bytes(os.getpid())
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize(
    ("text", "axioms"),
    [
        ("'a' does not depend on any axioms", frozenset()),
        ("'a' depends on axioms: [propext]", {"propext"}),
        ("'a' depends on axioms: [propext,\n Quot.sound]", {"propext", "Quot.sound"}),
        ("'b' depends on axioms: [propext]", None),
        ("'a' depends on axioms: [propext] and more", None),
        ("x 'a' does not depend on any axioms", None),
    ],
)
def test_reading_axioms(text: str, axioms: set[str] | None) -> None:
    assert read_axioms(text, "a") == axioms


@pytest.mark.parametrize("field", ["num_processes", "check_s", "import_s", "memory_bytes", "max_checks"])
def test_the_configuration_names_a_bad_field(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        ReplConfig(("repl",), **{field: 0})
    with pytest.raises(ValueError, match="command"):
        ReplConfig(())
