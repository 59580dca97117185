"""Runs inside the sandbox: calls a check that a model wrote, once for each number, and tells what it said.

Its source text is put in front of a job by `check_program.build_program`; nothing of ours can be imported there.
The check is hostile: each call starts from the model's source anew, under its own clock, with its output thrown
away. What it says is told line by line as it happens, behind a word that the check does not see, so that a check
which ends this process loses only what it had not been asked yet. A check that goes to lengths to find that word can
write results of its own: it then supports what it likes, which it could by returning True. The reader of the lines
believes nothing about their form (`trials.read_trials`).
"""

from __future__ import annotations

import ast
import builtins
import os
import signal
import sys
import time
from typing import Any, NoReturn

_REPEAT_S = 0.2  # the alarm rings again for a check that swallowed it
_WALL_FACTOR = 3.0  # a call's seconds are the processor's: others may be busy too; this many of the clock at most
_MAX_DETAIL = 200
_BUILT_INS = dict(builtins.__dict__)


class _OutOfTime(BaseException):
    """A call has taken too long. No `Exception`, so that fewer checks swallow it."""


class _Nowhere:
    """What the check prints goes here. Everything that is asked of it does nothing."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return None

    def isatty(self) -> bool:
        return False


def _ring(number: int, frame: object) -> NoReturn:
    raise _OutOfTime


def _truth(value: Any) -> tuple[str, str]:
    """What a returned value says: truth values of Python, numpy and SymPy, and the end of a function without one."""
    if value is True or (type(value).__name__ in ("bool", "bool_", "BooleanTrue", "BooleanFalse") and bool(value)):
        return "accepted", ""
    if value is None or value is False or type(value).__name__ in ("bool", "bool_", "BooleanTrue", "BooleanFalse"):
        return "rejected", ""
    return "raised", f"returned {type(value).__name__}, not True or False"


def _ask(code: Any, entry: str, *arguments: Any) -> Any:
    """What the check's function returns, its source run anew; built-ins that it removed are back afterwards."""
    names: dict[str, Any] = {"__name__": "check"}
    try:
        exec(code, names)
        return names[entry](*arguments)
    finally:
        builtins.__dict__.update(_BUILT_INS)


def _call_sympy(code: Any, job: dict[str, Any], answer: int) -> tuple[str, str]:
    return _truth(_ask(code, job["entry"], answer))


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple, set)):
        return [part for item in value for part in _flat(item)]
    return [value]


def _call_smt(code: Any, job: dict[str, Any], answer: int) -> tuple[str, str]:
    """Whether the constraints for this answer can be met."""
    import z3

    constraints = _flat(_ask(code, job["entry"], answer))
    if not any(isinstance(item, z3.BoolRef) for item in constraints):
        told, detail = _truth(all(constraints))
        return told, detail or "no constraint was left to solve"
    solver = z3.Solver()
    solver.set("timeout", int(1000 * job["call_s"]))
    solver.add(*constraints)
    result = str(solver.check())
    return {"sat": "accepted", "unsat": "rejected"}.get(result, "unknown"), ""


def _call_other_solution(code: Any, job: dict[str, Any], answer: int) -> tuple[str, str]:
    """Whether another integer in the range meets the constraints too: "accepted" names it, "rejected": none does."""
    import z3

    other = z3.Int("answer")
    solver = z3.Solver()
    solver.set("timeout", int(1000 * job["call_s"]))
    solver.add(*_flat(_ask(code, job["entry"], other)), other >= job["low"], other <= job["high"], other != answer)
    result = str(solver.check())
    if result == "sat":
        return "accepted", str(solver.model()[other])
    return {"unsat": "rejected"}.get(result, "unknown"), ""


def _call_enumeration(code: Any, job: dict[str, Any], answer: int) -> tuple[str, str]:
    """What was counted, as digits; the answer plays no part."""
    value = _ask(code, job["entry"])
    if isinstance(value, bool) or int(value) != value:
        return "raised", f"returned {type(value).__name__}, not an integer"
    return "counted", str(int(value))


_CALLS = {
    "sympy": _call_sympy,
    "smt": _call_smt,
    "enumeration": _call_enumeration,
    "other_solution": _call_other_solution,
}


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:_MAX_DETAIL]
    except BaseException:  # an error of the check's own making may refuse to be told
        return "an exception"


def _set_alarms(seconds: float) -> None:
    """For a call of so many seconds of the processor; 0 for none."""
    signal.setitimer(signal.ITIMER_PROF, seconds, _REPEAT_S if seconds else 0.0)
    signal.setitimer(signal.ITIMER_REAL, _WALL_FACTOR * seconds, _REPEAT_S if seconds else 0.0)


def _call(code: Any, job: dict[str, Any], kind: str, answer: int) -> tuple[str, str]:
    try:
        try:
            for number in (signal.SIGPROF, signal.SIGALRM):
                signal.signal(number, _ring)
            _set_alarms(job["call_s"])
            return _CALLS[kind](code, job, answer)
        finally:
            _set_alarms(0.0)
    except _OutOfTime:
        _set_alarms(0.0)
        return "timeout", ""
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: whatever a check throws, the next is asked
        return "raised", _describe(error)


def _without_demonstrations(source: str) -> Any:
    """The source, compiled, without calls at its top level whose value nobody uses: models like to try their check."""
    tree = ast.parse(source)
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Name)))
    ]
    return compile(tree, "<check>", "exec", dont_inherit=True)


def run_job(job: dict[str, Any]) -> None:
    """Ask the check about every number of the job, until its time is up.

    Args:
        job: "word" before each line that tells something; "kind", "source" and "entry" of the check; "asked", pairs of
            a kind of call and a number; "call_s" for each call and "total_s" for all; "low" and "high" of an answer.
    """
    write, dumps, clock = os.write, __import__("json").dumps, time.monotonic
    code = _without_demonstrations(job["source"])
    end_s = clock() + job["total_s"]
    sys.stdout = sys.stderr = _Nowhere()
    for kind, answer in job["asked"]:
        if clock() >= end_s:
            break
        told, detail = _call(code, job, kind, answer)
        line = dumps([kind, answer, told, detail[:_MAX_DETAIL]])
        write(1, f"\n{job['word']} {line}\n".encode("ascii", "backslashreplace"))
