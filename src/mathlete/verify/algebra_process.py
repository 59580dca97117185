"""`AlgebraProcess`: a computer algebra system in a process of its own, asked and waited for with a deadline.

Knows processes and deadlines; what is asked is compared in `equivalence_worker.py`. Works from any thread: a process
is killed, there is no alarm.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, cast, get_args

from mathlete.verify.ceilings import DEADLINE_S
from mathlete.verify.equivalence import Equivalence, Sameness
from mathlete.verify.symbolic_process import SymbolicProcess

COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "mathlete.verify.equivalence_worker")
STARTING_DEADLINE_S = 60.0
"""For a worker to load SymPy on a busy machine."""
_NO_SYMPY = Equivalence("UNKNOWN", 'needs SymPy: pip install "mathlete[tools]"', "missing")
_CRASHED = Equivalence("UNKNOWN", "the algebra's process ended", "crash")


class AlgebraProcess:
    """An `equivalence.ExpressionJudge` with one worker, started when it is first needed.

    A question that takes longer than its deadline is UNKNOWN with failure "timeout" and one that ends its process
    UNKNOWN with "crash"; the next question gets a new process. Threads take turns.
    """

    def __init__(self, deadline_s: float = DEADLINE_S, command: Sequence[str] = COMMAND) -> None:
        """Set up without starting anything; see the class.

        Args:
            deadline_s: seconds for one question, once the worker is ready.
            command: that starts a worker.
        """
        if not deadline_s > 0:
            raise ValueError("AlgebraProcess.deadline_s must be > 0")
        self._deadline_s = deadline_s
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._process: SymbolicProcess | None = None
        self._is_missing = False
        self._job = 0

    @property
    def pid(self) -> int | None:
        """Process id of the worker, when there is one."""
        return None if self._process is None else self._process.pid

    def judge(self, left: str, right: str) -> Equivalence:
        """Compare two expressions; waits at most for the deadline, and for a worker to start."""
        with self._lock:
            if self._is_missing:
                return _NO_SYMPY
            process = self._started()
            if process is None:
                return _NO_SYMPY if self._is_missing else _CRASHED
            self._job += 1
            process.send({"job": self._job, "left": left, "right": right})
            answer = _next_line(process, self._deadline_s)
            found = None if answer is None else _understood(answer, self._job)
            if found is not None:
                return found
            is_late = answer is None and not process.failed
            self._drop()
            return Equivalence("UNKNOWN", f"no answer in {self._deadline_s:g} s", "timeout") if is_late else _CRASHED

    def close(self) -> None:
        """End the worker; a later question starts a new one. Safe to call twice."""
        with self._lock:
            self._drop()

    def __enter__(self) -> AlgebraProcess:
        """For `with`: closed at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _started(self) -> SymbolicProcess | None:
        """The worker, ready; None when it cannot be had."""
        if self._process is not None:
            return self._process
        try:
            self._process = SymbolicProcess(self._command)
        except OSError:
            return None
        ready = _next_line(self._process, STARTING_DEADLINE_S)
        if ready == {"ready": True}:
            return self._process
        self._is_missing = ready == {"ready": False}
        self._drop()
        return None

    def _drop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None


def _next_line(process: SymbolicProcess, timeout_s: float) -> dict[str, Any] | None:
    """The next line, or None when none comes in time or the process has failed."""
    deadline = time.monotonic() + timeout_s
    while True:
        lines = process.receive()
        if lines:
            return lines[0] if len(lines) == 1 else None  # a sound worker says one thing at a time
        remaining = deadline - time.monotonic()
        if process.failed or remaining <= 0:
            return None
        process.wait(remaining)


def _understood(answer: dict[str, Any], job: int) -> Equivalence | None:
    """The answer, or None when a sound worker would not have given it."""
    match answer:
        case {
            "job": int(told),
            "verdict": str(verdict),
            "reason": str(reason),
            "failure": None | str() as failure,
        } if told == job and verdict in get_args(Sameness):
            return Equivalence(cast(Sameness, verdict), reason, failure)
    return None
