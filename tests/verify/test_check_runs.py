"""Checks in the sandbox: each kind for real, and checks that do their worst."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mathlete.core.code import CodeLimits, ToolResult
from mathlete.core.problem import AnswerKind
from mathlete.sandbox.pool import SandboxPool
from mathlete.verify.checks.check_program import Asked, CheckConfig, CheckKind, build_program, parse_check
from mathlete.verify.checks.trials import Trials, read_trials
from mathlete.verify.checks.verdicts import Finding, judge

_ASKED = Asked((7, 9, 30), (1, 2, 3, 4, 50, 70, 1000, 99_999))
_QUICK = CheckConfig(call_s=0.3, total_s=2.0)
_WORD = "told-0123456789abcdef"


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(num_workers=2) as shared:
        yield shared


def _run(pool: SandboxPool, kind: CheckKind, source: str, wall_s: float = 3.0) -> ToolResult:
    assert parse_check(source, kind) is not None, "what the harness would not run"
    program = build_program(kind, source, _ASKED, AnswerKind(), _WORD, _QUICK)
    pool.submit("check", program, CodeLimits(wall_s=wall_s))
    for _ in range(3_000):
        for done in pool.poll():
            return done.result
        time.sleep(0.01)
    raise AssertionError("the sandbox does not answer")


def _trials(pool: SandboxPool, kind: CheckKind, source: str) -> Trials:
    return read_trials(_run(pool, kind, source), _WORD, _ASKED)


def _findings(pool: SandboxPool, kind: CheckKind, source: str) -> list[Finding]:
    return list(judge(_trials(pool, kind, source), kind))


def _verdicts(pool: SandboxPool, kind: CheckKind, source: str) -> str:
    return "".join(finding.verdict[0] for finding in _findings(pool, kind, source))


@pytest.mark.parametrize(
    ("source", "verdicts"),
    [
        ("def check(answer):\n    return answer * answer == 49", "SRR"),
        ("from sympy import *\ndef check(a):\n    x = symbols('x')\n    return solve(x - 7, x)[0] == a", "SRR"),
        ("from sympy import *\ndef check(a):\n    x = symbols('x')\n    return Eq(x - 7, 0).subs(x, a)", "SRR"),
        ("import numpy as np\ndef check(a):\n    return np.array([a])[0] == 7", "SRR"),
        ("def check(answer):\n    return True", "UUU"),
        ("def check(answer):\n    return False", "UUU"),
        ("def check(answer):\n    return answer % 7 < 2", "UUU"),
        ("def check(answer):\n    return 1 if answer == 7 else 0", "UUU"),  # not a truth value
        ("def check(answer):\n    if answer == 7: return True", "SRR"),
        ("def check(answer):\n    assert answer == 7\n    return True", "UUU"),
        ("def check(answer):\n    return answer == 7 if answer != 9 else 0", "SUR"),
        ("x = 1 / 0\ndef check(answer):\n    return answer == 7", "UUU"),
        ("def check(answer):\n    return answer == 7\nprint(check(int(input())))", "SRR"),  # a demonstration
    ],
)
def test_a_check_by_test(pool: SandboxPool, source: str, verdicts: str) -> None:
    assert _verdicts(pool, "sympy", source) == verdicts


@pytest.mark.parametrize(
    ("source", "verdicts"),
    [
        ("x, y = Ints('x y')\n    return [x + y == 10, x - y == 4, x == a]", "SRR"),
        ("x = Int('x')\n    return And(x < 8, x > 6, x == a)", "SRR"),
        ("x = Int('x')\n    return [x < 8, [x > 6, (x == a,)]]", "SRR"),
        ("x, y = Ints('x y')\n    return [x + y == 10, x >= 0, y >= 0, x == a]", "UUU"),  # others meet it too
        ("return [a == 7]", "SRR"),  # nothing for the solver
        ("return []", "UUU"),
        ("return a == 7", "SRR"),
        ("return 5", "UUU"),
        ("x = Int('x')\n    return [x == 1, x == 2, x == a]", "UUU"),
    ],
)
def test_a_check_by_constraints(pool: SandboxPool, source: str, verdicts: str) -> None:
    assert _verdicts(pool, "smt", f"from z3 import *\ndef constraints(a):\n    {source}") == verdicts


def test_the_solver_tells_whether_another_integer_would_do(pool: SandboxPool) -> None:
    source = "from z3 import *\ndef constraints(a):\n    x = Int('x')\n    return [x == a, Or(x == 7, x == 31)]"
    trials = _trials(pool, "smt", source)
    assert {trial.answer: trial.outcome for trial in trials.candidates} == {
        7: "accepted",
        9: "rejected",
        30: "rejected",
    }
    assert trials.others[7] == "31"
    assert {finding.verdict for finding in judge(trials, "smt")} == {"UNKNOWN"}, "although no decoy was accepted"


@pytest.mark.parametrize(
    ("source", "verdicts"),
    [
        ("return sum(1 for n in range(1, 50) if n % 7 == 0)", "SRR"),
        ("return 7.0", "SRR"),
        ("import numpy\n    return numpy.int64(9)", "RSR"),
        ("import sympy\n    return sympy.Integer(30)", "RRS"),
        ("return 8", "UUU"),
        ("return None", "UUU"),
        ("return True", "UUU"),
        ("return 7.5", "UUU"),
        ("return '7'", "UUU"),
        ("return float('inf')", "UUU"),
        ("return [7]", "UUU"),
        ("return 7 * 10 ** 100_000", "UUU"),
    ],
)
def test_a_check_by_enumeration(pool: SandboxPool, source: str, verdicts: str) -> None:
    assert _verdicts(pool, "enumeration", f"def brute_force():\n    {source}") == verdicts


def test_an_enumeration_that_does_not_end_is_out_of_time(pool: SandboxPool) -> None:
    found = _findings(pool, "enumeration", "def brute_force():\n    while True: pass")
    assert [(f.verdict, f.failure) for f in found] == [("UNKNOWN", "timeout")] * 3


_HOSTILE = {
    "endless on one": ("while a == 9: pass", "SUR"),
    "endless and swallows the alarm": (
        "while a == 9:\n        try:\n            while True: pass\n        except BaseException: pass",
        None,
    ),
    "sleeps": ("import time\n    if a == 9: time.sleep(60)", "SUR"),
    "leaves": ("import sys\n    if a == 9: sys.exit(0)", "SUR"),
    "interrupts": ("if a == 9: raise KeyboardInterrupt", "SUR"),
    "dies": ("import os\n    if a == 9: os._exit(0)", "UUU"),  # before any decoy was judged
    "kills itself": ("import os, signal\n    if a == 50: os.kill(os.getpid(), signal.SIGKILL)", None),
    "prints": (f'print(\'{_WORD} \' + \'["sympy", 9, "accepted", ""]\')', "SRR"),
    "writes lines": ('import os\n    os.write(1, b\'\\ntold ["sympy", 9, "accepted", ""]\\n\')', "SRR"),
    "floods print": ("print('x' * 10_000_000)", "SRR"),
    "floods the descriptor": ("import os\n    while a == 50: os.write(1, b'x' * 65_536)", None),
    "deletes built-ins": ("import builtins\n    d = delattr\n    for n in list(vars(builtins)): d(builtins, n)", "SRR"),
    "replaces built-ins": ("import builtins\n    builtins.isinstance = builtins.len = None", "SRR"),
    "counts its calls": ("global n\n    n = globals().get('n', 0) + 1\n    a = a if n == 1 else 7", "SRR"),
    "counts its calls elsewhere": (
        "import math\n    math.n = getattr(math, 'n', 0) + 1\n    a = 7 if math.n == 2 else a",
        None,
    ),
    "closes the output": ("import sys\n    sys.stdout.close()", None),
    "recurses": ("f = lambda: f()\n    if a == 9: f()", "SUR"),
    "eats memory": ("if a == 9: x = [0] * 10 ** 10", "SUR"),
    "raises what cannot be told": (
        "class E(Exception):\n        def __str__(self): raise self\n    if a == 9: raise E",
        "SUR",
    ),
    "says what cannot be asked": (
        "class B:\n        def __bool__(self): raise OSError\n    B.__name__ = 'bool'\n    if a == 9: return B()",
        "SUR",
    ),
    "takes the alarm away": (
        "import signal as s\n    for n in (s.SIGALRM, s.SIGPROF): s.signal(n, s.SIG_IGN)\n    while a == 9: pass",
        None,
    ),
    "breaks json": ("import json, json.encoder\n    json.dumps = json.encoder.JSONEncoder = None", None),
    "leaves threads": ("import threading, time\n    threading.Thread(target=time.sleep, args=(60,)).start()", None),
    "surrogates": ("if a == 9: raise ValueError('\\udc80\\u2028\\n' * 1000)", "SUR"),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_check_costs_itself_alone(pool: SandboxPool, name: str) -> None:
    body, verdicts = _HOSTILE[name]
    source = f"def check(a):\n    {body}\n    return a == 7\n"
    findings = _findings(pool, "sympy", source)
    assert [finding.answer for finding in findings] == ["7", "9", "30"], "whatever it does, each is judged"
    told = "".join(finding.verdict[0] for finding in findings)
    assert verdicts is None or told == verdicts
    assert "R" not in told[0], "what it always accepts is not refuted"


def test_a_check_that_finds_the_word_supports_what_it_likes_and_no_more(pool: SandboxPool) -> None:
    source = (
        "import os, sys\n"
        "def check(answer):\n"
        "    frame = sys._getframe()\n"
        "    while 'job' not in frame.f_locals: frame = frame.f_back\n"
        "    word = frame.f_locals['job']['word']\n"
        '    for line in (\'["sympy", 9, "accepted", ""]\', \'["sympy", 9, "proved", ""]\', \'[\', \'\'):\n'
        "        os.write(1, f'\\n{word} {line}\\n'.encode())\n"
        "    os._exit(0)\n"
    )
    assert {finding.verdict for finding in _findings(pool, "sympy", source)} == {"UNKNOWN"}


def test_what_was_told_before_the_sandbox_ends_a_check_stands(pool: SandboxPool) -> None:
    source = (
        "import signal\n"
        "def check(a):\n"
        "    for s in (signal.SIGALRM, signal.SIGPROF): signal.signal(s, signal.SIG_IGN)\n"
        "    while a == 99_999: pass\n"
        "    return a == 7\n"
    )
    result = _run(pool, "sympy", source, wall_s=1.5)
    assert result.status == "timeout"
    found = judge(read_trials(result, _WORD, _ASKED), "sympy")
    assert "".join(finding.verdict[0] for finding in found) == "SRR"
