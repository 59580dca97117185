"""What an attack is: a program, what it tries, and what must hold afterwards.

Glossary:
    arena      what lies outside and must not be touched: files with a secret, sockets that listen, a victim process
    tried      the prelude's function: it does something forbidden and prints "refused" or "DONE"
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from mathlete.core.code import CodeLimits, RunStatus, ToolResult

# Every program begins with it. It holds what is the same in many attacks, and takes the process a name by which
# it and all that it starts are found again.
PRELUDE = """
import ctypes, errno, os, socket, sys, time
c = ctypes.CDLL(None, use_errno=True)
c.prctl(15, MARK.encode(), 0, 0, 0)

def call(function, *arguments):
    result = function(*arguments)
    if result == -1 or result is None:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def system_call(number, *arguments):
    x86_64, aarch64 = number
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return call(c.syscall, ctypes.c_long(x86_64 if os.uname().machine == "x86_64" else aarch64), *words)

def tried(what, action):
    try:
        got = action()
    except Exception as error:
        print(f"{what}: refused, {type(error).__name__} {getattr(error, 'errno', '')}")
    else:
        print(f"{what}: DONE {got!r}"[:200])

# Process ids: those it was told, its parent's, and the first ones of its namespace, if it has one. What would end
# whoever runs the tests, should a fence be broken, is tried by the victim alone: the others get FATAL, which may be 0.
OTHERS = {PARENT, VICTIM, ZYGOTE, os.getppid(), *(range(1, 40) if FATAL else ())} - {0, os.getpid()}

def read(path):
    with open(path, "rb") as file:
        return file.read(4096)
"""
END = "\nprint('the attack ended')"


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile program.

    Attributes:
        name: unique.
        tries: what it tries, for a person.
        code: the program, behind `PRELUDE`; the names of `Arena.names` are defined in it.
        statuses: how it may end.
        holds: what must hold beyond what must hold for all; raises `AssertionError`.
        needs: groups of layers; where one of each group is in force, it is held off.
        limits: its ceilings.
        is_refused: whether it must print that something was refused; False where it is let alone and comes to nothing.
        statuses_of_cell: how it may end as a cell of a session, where that differs.
        spoils_session: whether it may cost the session it is a cell of (never a neighbour's): it spoils itself.
    """

    name: str
    tries: str
    code: str
    statuses: frozenset[RunStatus] = frozenset({"ok"})
    holds: Callable[[ToolResult], None] | None = None
    needs: tuple[frozenset[str], ...] = ()
    limits: CodeLimits = CodeLimits(wall_s=5, memory_bytes=1 << 30, file_bytes=1 << 20)
    is_refused: bool = True
    statuses_of_cell: frozenset[RunStatus] = frozenset()
    spoils_session: bool = False

    def is_held_off_by(self, layers: Collection[str]) -> bool:
        """Whether somebody claims so of these layers."""
        return all(group & set(layers) for group in self.needs)

    def program(self, names: Mapping[str, object]) -> str:
        """The whole program for an arena."""
        head = "\n".join(f"{name} = {value!r}" for name, value in names.items())
        return f"{head}\n{PRELUDE}\n{textwrap.dedent(self.code).strip()}{END}"

    def check(self, result: ToolResult, secret: str, *, is_cell: bool = False) -> None:
        """Fail unless the program was held off. Does not look at the arena."""
        told = f"{self.name} ({self.tries}): {result}"
        statuses = self.statuses_of_cell if is_cell and self.statuses_of_cell else self.statuses
        assert result.status in statuses, told
        assert "DONE" not in result.stdout, told
        assert secret not in result.stdout + result.stderr, told
        assert result.elapsed_s < self.limits.wall_s + 2, told
        assert len((result.stdout + result.stderr).encode()) <= 3 * self.limits.output_bytes + 200, told
        assert result.isolation, told
        if self.is_refused:
            assert ": refused" in result.stdout, told
        if statuses == {"ok"}:
            assert result.stdout.endswith("the attack ended\n"), told
        if self.holds is not None:
            self.holds(result)


def ends_with(*statuses: RunStatus) -> frozenset[RunStatus]:
    """The statuses that are all right."""
    return frozenset(statuses)


def prints(text: str) -> Callable[[ToolResult], None]:
    """Holds when the program's output contains `text`."""

    def check(result: ToolResult) -> None:
        assert text in result.stdout, result

    return check


def stderr_has(text: str) -> Callable[[ToolResult], None]:
    """Holds when the program's errors contain `text`."""

    def check(result: ToolResult) -> None:
        assert text in result.stderr, result

    return check
