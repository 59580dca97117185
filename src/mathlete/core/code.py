"""Running a program that a model wrote: what is asked, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RunStatus = Literal["ok", "error", "timeout", "memory", "output_limit", "killed"]


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """Ceilings for one program.

    Attributes:
        wall_s: seconds of wall clock.
        memory_bytes: address space at most.
        output_bytes: stdout and stderr together, kept at most; writing more ends the program.
        file_bytes: size of any file it writes.
    """

    wall_s: float = 10.0
    memory_bytes: int = 2 << 30
    output_bytes: int = 64 << 10
    file_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first ceiling that is not positive."""
        for name in ("wall_s", "memory_bytes", "output_bytes", "file_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"CodeLimits.{name} must be > 0")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a program did.

    Attributes:
        status: "ok" when it exited with 0.
        stdout: its output, cut at the ceiling.
        stderr: its errors, cut at the ceiling, traceback last.
        elapsed_s: seconds from start to end.
        isolation: names of the isolation layers that were in force.
        waited_s: seconds it waited for a free worker before it started; not part of `elapsed_s`.
        session_restarted: whether its session had died, so that it ran in a fresh one, without what was defined before.
    """

    status: RunStatus
    stdout: str
    stderr: str
    elapsed_s: float
    isolation: tuple[str, ...] = ()
    waited_s: float = 0.0
    session_restarted: bool = False
