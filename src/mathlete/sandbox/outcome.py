"""What a program's end means. Pure: wait status, output and measurements in, a `ToolResult` out."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from typing import Any, Literal

from mathlete.core.code import CodeLimits, RunStatus, ToolResult

Verdict = Literal["timeout", "output_limit", "killed"]

_MEMORY_ERROR = re.compile(r"^(?:[\w.]+\._Array)?MemoryError\b")
_NEAR_THE_CEILING = 0.8


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended.

    Attributes:
        verdict: why the pool ended it, or None when it ended by itself.
        report: the supervisor's last message (see `sandbox.supervisor`), empty when there was none.
        stdout: as kept, at most the ceiling.
        stderr: as kept.
        layers: isolation in force.
        elapsed_s: the pool's own measure, for want of the supervisor's.
    """

    verdict: Verdict | None
    report: dict[str, Any]
    stdout: bytes
    stderr: bytes
    layers: tuple[str, ...]
    elapsed_s: float


def cpu_ceiling_s(limits: CodeLimits) -> int:
    """Processor seconds that a program gets: twice its wall clock, for the case that nobody watches the clock."""
    return int(2 * limits.wall_s) + 2


def judge(ending: Ending, limits: CodeLimits) -> ToolResult:
    """The result that is shown to the model."""
    stdout, stderr = _text(ending.stdout), _text(ending.stderr)
    status, note = _status(ending, limits, stderr)
    if note:
        stderr = f"{stderr}{'' if stderr.endswith(chr(10)) or not stderr else chr(10)}{note}\n"
    return ToolResult(
        status=status,
        stdout=stdout,
        stderr=stderr,
        elapsed_s=ending.report.get("elapsed_s", ending.elapsed_s),
        isolation=ending.layers,
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\0", "\ufffd")  # NUL ends a string elsewhere


def _status(ending: Ending, limits: CodeLimits, stderr: str) -> tuple[RunStatus, str]:
    report = ending.report
    if ending.verdict is not None:
        return ending.verdict, ""
    if "failed" in report:
        return "killed", f"the program could not be started: {report['failed']}"
    if "wait_status" not in report:
        return "killed", "the program was lost with the process that watched it"
    if report["too_many_threads"]:
        return "killed", "ended: too many threads"
    code = os.waitstatus_to_exitcode(report["wait_status"])
    if code == 0:
        return "ok", ""
    last_line = stderr.rstrip().rpartition("\n")[2]
    if _MEMORY_ERROR.match(last_line):
        return "memory", ""
    if code > 0:
        return "error", "" if stderr else f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if -code in (signal.SIGXCPU, signal.SIGKILL) and report["cpu_s"] >= cpu_ceiling_s(limits) - 0.5:
        return "timeout", ""
    if -code != signal.SIGKILL:
        return "error", f"ended by {name}"
    if report["max_rss_bytes"] >= _NEAR_THE_CEILING * limits.memory_bytes:
        return "memory", "ended by the system for want of memory"
    return "killed", f"ended by {name}"
