"""Comparisons that need SymPy, in a process that can be killed, from any thread."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mathlete.verify.algebra import SympyAlgebra
from mathlete.verify.algebra_process import AlgebraProcess
from mathlete.verify.equivalence import Equivalence, equivalent
from mathlete.verify.equivalence_worker import judged

pytest.importorskip("sympy")


@pytest.fixture(scope="module")
def algebra() -> Iterator[AlgebraProcess]:
    with AlgebraProcess(deadline_s=20) as process:
        yield process


@pytest.mark.parametrize(
    ("left", "right", "verdict"),
    [
        (r"\sqrt{2+\sqrt3}", r"\frac{\sqrt6+\sqrt2}{2}", "SAME"),
        (r"\sqrt[3]{2}", r"2^{\frac{1}{3}}", "SAME"),
        (r"\cot x", r"\frac{\cos x}{\sin x}", "SAME"),
        (r"\sin 30^\circ", r"\frac12", "SAME"),
        (r"\log_2 8", "3", "SAME"),
        (r"\ln 4", r"2 \ln 2", "SAME"),
        (r"\{\sqrt[3]{2}, 1\}", r"1, 2^{1/3}", "SAME"),
        (r"\sqrt[3]{2}", r"\sqrt[3]{3}", "DIFFERENT"),
        (r"\tan x", r"\cot x", "DIFFERENT"),
        (r"((1 - 5^{1/2})^{2}) \sqrt[3]{2}", "125", "DIFFERENT"),
        (
            r"\sqrt[3]{2} + \frac{1}{2004!}",
            r"\sqrt[3]{2} + \frac{1}{2006!}",
            "UNKNOWN",
        ),  # equal to 50 digits is no proof
        (r"\sqrt{x^2}", "x", "UNKNOWN"),  # for x >= 0 only
        (r"\sin x", r"\sin y", "UNKNOWN"),
    ],
)
def test_verdicts(algebra: AlgebraProcess, left: str, right: str, verdict: str) -> None:
    found = equivalent(left, right, algebra)
    assert (found.verdict, found.failure) == (verdict, None)
    assert equivalent(right, left, algebra).verdict == verdict


def test_the_process_says_what_its_program_says_without_one(algebra: AlgebraProcess) -> None:
    for left, right in [(r"\sqrt[3]{2}", r"2^{1/3}"), (r"\tan x", "x"), ("x +", "1")]:
        assert algebra.judge(left, right) == judged(left, right, SympyAlgebra())


def test_it_works_from_any_thread(algebra: AlgebraProcess) -> None:
    """`signal.alarm` works in the main thread only; a process that is killed has no such limit."""
    found: list[Equivalence] = []
    threads = [
        threading.Thread(target=lambda: found.append(equivalent(r"\ln 4", r"2 \ln 2", algebra))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.verdict for each in found] == ["SAME"] * 4


def double(tmp_path: Path, body: str) -> AlgebraProcess:
    script = tmp_path / "worker.py"
    answer = '{"job": %d, "verdict": "%s", "reason": "", "failure": null}'
    script.write_text(f"import sys, time\nANSWER = {answer!r}\nprint('{{\"ready\": true}}', flush=True)\n{body}\n")
    return AlgebraProcess(deadline_s=0.5, command=(sys.executable, str(script)))


def test_a_late_answer_is_unknown_and_its_process_killed(tmp_path: Path) -> None:
    with double(tmp_path, "time.sleep(60)") as slow:
        started = time.monotonic()
        results: list[Equivalence] = []
        thread = threading.Thread(target=lambda: results.append(equivalent(r"\sin x", "x", slow)))
        thread.start()
        while slow.pid is None and thread.is_alive():
            time.sleep(0.01)
        pid = slow.pid
        thread.join()
        assert (results[0].verdict, results[0].failure) == ("UNKNOWN", "timeout")
        assert time.monotonic() - started < 10
        assert slow.pid is None and pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    "body",
    [
        "sys.stdin.readline(); sys.exit(1)",
        "sys.stdin.readline(); print('garbage', flush=True); time.sleep(60)",
        "sys.stdin.readline(); print(ANSWER % (7, 'SAME'), flush=True); time.sleep(60)",
        "sys.stdin.readline(); print(ANSWER % (1, 'YES'), flush=True); time.sleep(60)",
    ],
)
def test_a_broken_worker_is_unknown_and_replaced(tmp_path: Path, body: str) -> None:
    with double(tmp_path, body) as broken:
        for _ in range(2):
            found = equivalent(r"\sin x", "x", broken)
            assert (found.verdict, found.failure) == ("UNKNOWN", "crash")
        assert broken.pid is None


def test_without_sympy_it_says_so(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("print('{\"ready\": false}', flush=True)")
    with AlgebraProcess(command=(sys.executable, str(script))) as none:
        for _ in range(2):
            found = equivalent(r"\sin x", "x", none)
            assert (found.verdict, found.failure) == ("UNKNOWN", "missing")


def test_a_deadline_is_positive() -> None:
    with pytest.raises(ValueError, match="deadline_s"):
        AlgebraProcess(deadline_s=0)
