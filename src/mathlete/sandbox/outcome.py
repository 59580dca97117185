"""What a program's end means. Pure: wait status, output and measurements in, a `ToolResult` out."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Any, Literal

from mathlete.core.code import CodeLimits, RunStatus, ToolResult

Verdict = Literal["timeout", "output_limit", "killed"]

_MEMORY_ERROR = re.compile(r"^(?:[\w.]+\._Array)?MemoryError\b")
ENDED_WITH_SESSION = "ended with its session"
_NEAR_THE_CEILING = 0.8
_OF_REASON: dict[str, tuple[RunStatus, str]] = {
    "timeout": ("timeout", ""),
    "memory": ("memory", "ended: its processes and files held more memory than it may have"),
    "threads": ("killed", "ended: too many threads"),
    "files": ("killed", "ended: its files took more room than they may"),
}


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
        in_session: there may be programs after it that see what it defined.
    """

    verdict: Verdict | None
    report: dict[str, Any]
    stdout: bytes
    stderr: bytes
    layers: tuple[str, ...]
    elapsed_s: float
    in_session: bool = False


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
        return ending.verdict, ENDED_WITH_SESSION if ending.verdict == "killed" else ""
    if "failed" in report:
        return "killed", f"the program could not be started: {report['failed']}"
    if "exit_code" not in report:
        return "killed", "the program was lost with the process that watched it"
    if (reason := report["reason"]) is not None:
        return _OF_REASON[reason]
    code = report["exit_code"]
    last_line = stderr.rstrip().rpartition("\n")[2]
    if _MEMORY_ERROR.match(last_line) and code > 0:
        return "memory", ""
    if code == 0 and ending.in_session and not report["keeps"]:
        return "error", "the program ended its own process: what it defined is lost"
    if code == 0:
        return "ok", ""
    if code > 0:
        return "error", "" if stderr else f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if -code != signal.SIGKILL:
        return "error", f"ended by {name}"
    if report["max_rss_bytes"] >= _NEAR_THE_CEILING * limits.memory_bytes:
        return "memory", "ended by the system for want of memory"
    return "killed", f"ended by {name}"
