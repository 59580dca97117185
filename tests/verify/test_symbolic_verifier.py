"""The pool that judges equations: verdicts come, whatever its processes do, and nobody waits."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from mathlete.core.protocols import StepChecked, StepChecker
from mathlete.verify import symbolic
from mathlete.verify.equations_in_text import MAX_TEXT_CHARS
from mathlete.verify.symbolic import SymbolicVerifier

TEXT = r"So $12 \times 13 = 154$, and then $2 + 3 = 5$. Also 7 * 8 = 56."


def child(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


REPLY = """
import json, os, sys, time
def tell(**what): print(json.dumps(what), flush=True)
tell(ready=True)
for line in sys.stdin:
    job = json.loads(line)
    name, first = job["job"], job["first"]
    tell(job=name, claims=[[0, 1, "a"], [1, 2, "b"], [2, 3, "c"]])
    for index in range(first, 3):
        if index == 1:
            {trouble}
        tell(job=name, index=index, verdict="PROVED", failure=None, detail="", elapsed_s=0.0)
"""


@pytest.fixture
def verifier() -> Iterator[SymbolicVerifier]:
    made = SymbolicVerifier()
    yield made
    made.close()


def wait(verifier: StepChecker, num_checks: int = 1, seconds: float = 60.0) -> list[StepChecked]:
    found: list[StepChecked] = []
    until = time.monotonic() + seconds
    while len(found) < num_checks:
        assert time.monotonic() < until, f"only {found}"
        found.extend(verifier.poll())
        time.sleep(0.005)
    return found


def verdicts(checked: StepChecked) -> list[tuple[str, str | None]]:
    return [(evidence.verdict, evidence.failure) for evidence in checked.evidence]


def test_judges_the_claims_of_a_text(verifier: SymbolicVerifier) -> None:
    verifier.submit("step 1", TEXT)
    verifier.submit("step 2", "nothing to see")

    first, second = sorted(wait(verifier, 2), key=lambda checked: checked.check_id)

    assert verdicts(first) == [("REFUTED", None), ("PROVED", None), ("PROVED", None)]
    assert [TEXT[start:end] for start, end in first.spans] == [r"12 \times 13 = 154", "2 + 3 = 5", "7 * 8 = 56"]
    assert first.evidence[0].claim == r"12 \times 13 = 154"
    assert "156" in first.evidence[0].detail
    assert (second.evidence, second.spans) == ((), ())
    assert verifier.poll() == []


def test_nothing_is_told_of_the_context(verifier: SymbolicVerifier) -> None:
    step = "So $12 = 13 - 2$, and $2 + 3 = 5$."
    verifier.submit("alone", step, "As 2 + 2 = 5. ")
    verifier.submit("modular", step, "We work modulo 1, so 2 + 2 = 5.\n\n" + "Words. " * 200)

    alone, modular = sorted(wait(verifier, 2), key=lambda checked: checked.check_id)

    assert verdicts(alone) == [("REFUTED", None), ("PROVED", None)]
    assert verdicts(modular) == [("UNKNOWN", None), ("PROVED", None)]
    for checked in (alone, modular):
        assert [step[start:end] for start, end in checked.spans] == ["12 = 13 - 2", "2 + 3 = 5"]
    verifier.submit("long", step, "x" * MAX_TEXT_CHARS)
    assert verdicts(wait(verifier)[0]) == [("UNKNOWN", "too_large")]


def test_needs_sympy_for_roots_and_says_so() -> None:
    blocked = "import sys; sys.modules['sympy'] = None\nfrom mathlete.verify.symbolic_worker import main\nmain()"
    verifier = SymbolicVerifier(command=child(blocked))
    try:
        verifier.submit("a", r"$\sqrt{8} = 2\sqrt{2}$. So 2 + 3 = 5")
        (checked,) = wait(verifier)
    finally:
        verifier.close()

    assert verdicts(checked) == [("UNKNOWN", "missing"), ("PROVED", None)]
    assert "mathlete[tools]" in checked.evidence[0].detail


def test_a_stopped_worker_is_replaced() -> None:
    verifier = SymbolicVerifier(deadline_s=1.0)
    try:
        verifier.submit("warm", "2 + 3 = 5")
        wait(verifier)
        (before,) = verifier.pids
        os.kill(before, signal.SIGSTOP)
        verifier.submit("a", TEXT)
        verifier.submit("b", TEXT)
        found = {checked.check_id: checked for checked in wait(verifier, 2)}
        (after,) = verifier.pids
    finally:
        verifier.close()

    assert after != before
    assert verdicts(found["a"]) == [("UNKNOWN", "timeout")]
    assert verdicts(found["b"]) == [("REFUTED", None), ("PROVED", None), ("PROVED", None)]


def test_a_killed_worker_is_replaced(verifier: SymbolicVerifier) -> None:
    verifier.submit("warm", "2 + 3 = 5")
    wait(verifier)
    os.kill(verifier.pids[0], signal.SIGKILL)
    verifier.submit("a", TEXT)

    (checked,) = wait(verifier)

    failures = {failure for _, failure in verdicts(checked)}
    assert failures <= {None, "crash"}
    verifier.submit("b", TEXT)
    assert verdicts(wait(verifier)[0])[0] == ("REFUTED", None)


@pytest.mark.parametrize(
    ("trouble", "failure"),
    [
        ("time.sleep(60)", "timeout"),
        ("os._exit(3)", "crash"),
        ("print('what?', flush=True)", "crash"),
        ("print('[' * 100000, flush=True)", "crash"),
        ("tell(job=name, index=2, verdict='PROVED', failure=None, detail='', elapsed_s=0.0)", "crash"),
        ("tell(job=name, index=1, verdict='CERTAIN', failure=None, detail='', elapsed_s=0.0)", "crash"),
        ("os.write(1, b'x' * (5 << 20)); time.sleep(60)", "crash"),
    ],
)
def test_the_claims_behind_a_bad_one_are_judged(trouble: str, failure: str) -> None:
    deadline_s = 1.0 if failure == "timeout" else 20.0
    verifier = SymbolicVerifier(deadline_s=deadline_s, command=child(REPLY.format(trouble=trouble)))
    try:
        verifier.submit("a", "any")
        (checked,) = wait(verifier)
    finally:
        verifier.close()

    assert verdicts(checked) == [("PROVED", None), ("UNKNOWN", failure), ("PROVED", None)]


def test_all_claims_of_a_text_share_a_deadline() -> None:
    slow = REPLY.format(trouble="pass").replace("for index", "time.sleep(0.4)\n    for index")
    verifier = SymbolicVerifier(text_deadline_s=0.2, command=child(slow))
    try:
        verifier.submit("a", "any")
        (checked,) = wait(verifier)
    finally:
        verifier.close()

    assert verdicts(checked) == [("UNKNOWN", "timeout")] * 3


@pytest.mark.parametrize("command", [child("raise SystemExit(1)"), ("/nonexistent/program",)])
def test_a_worker_that_never_starts_gives_no_verdict(command: tuple[str, ...]) -> None:
    verifier = SymbolicVerifier(command=command)
    try:
        verifier.submit("a", TEXT)
        (checked,) = wait(verifier)
    finally:
        verifier.close()

    assert verdicts(checked) == [("UNKNOWN", "crash")]


def test_a_worker_that_never_is_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "STARTING_DEADLINE_S", 0.05)
    verifier = SymbolicVerifier(command=child("import time; time.sleep(60)"))
    try:
        verifier.submit("a", TEXT)
        assert verdicts(wait(verifier)[0]) == [("UNKNOWN", "crash")]
    finally:
        verifier.close()


def test_long_texts_do_not_block() -> None:
    verifier = SymbolicVerifier(deadline_s=20.0, text_deadline_s=60.0)
    verifier.submit("warm", "2 + 3 = 5")
    wait(verifier)
    longest = ("so 2 + 3 = 5 and " * MAX_TEXT_CHARS)[:MAX_TEXT_CHARS]
    started = time.monotonic()
    verifier.submit("huge", "2 + 2 = 5 " * 1_000_000)
    for number in range(5):
        verifier.submit(str(number), longest)
    assert time.monotonic() - started < 1

    found = {checked.check_id: checked for checked in wait(verifier, 6)}
    verifier.close()

    assert verdicts(found["huge"]) == [("UNKNOWN", "too_large")]
    assert set(verdicts(found["4"])) == {("PROVED", None)}


def test_a_cancelled_check_is_not_told(verifier: SymbolicVerifier) -> None:
    for name in ("a", "b", "c"):
        verifier.submit(name, TEXT)
    verifier.cancel("a")
    verifier.cancel("b")
    verifier.cancel("unknown")

    assert [checked.check_id for checked in wait(verifier)] == ["c"]
    assert verifier.poll() == []


def test_close_ends_all_processes() -> None:
    verifier = SymbolicVerifier(num_workers=2)
    for number in range(4):
        verifier.submit(str(number), TEXT)
    pids = verifier.pids
    verifier.close()
    verifier.close()

    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(ValueError, match="close"):
        verifier.submit("a", TEXT)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="num_workers"):
        SymbolicVerifier(num_workers=0)
