"""The command line again and again without the time it takes to start: each line of arguments runs in a fork.

Reads lines of JSON, each the arguments and the seconds after which the fork is killed (null: never), and answers with
its exit code, or minus the signal, once it has ended. A scripted generator stands in for the model and instant programs
for the sandbox. Every attempt whose end has been kept, as the run store said by returning, is told in the file named by
MATHLETE_TEST_KEPT.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow
import scripted_cli

from mathlete.cli import main
from mathlete.core.code import CodeLimits, ToolResult
from mathlete.core.protocols import CodeDone
from mathlete.core.trace import TraceEvent
from mathlete.lab.run_store import RunStore
from mathlete.session import (
    crew,
    summary,  # noqa: F401  as above
)
from mathlete.session import run_session as session


class InstantPrograms:
    """A sandbox whose programs all print 42."""

    def __init__(self) -> None:
        self._done: deque[CodeDone] = deque()

    def submit(self, run_id: str, code: str, limits: CodeLimits, session: str | None = None) -> None:
        self._done.append(CodeDone(run_id, ToolResult("ok", "42\n", "", 0.001)))

    def end_session(self, session: str) -> None:
        pass

    def poll(self) -> Sequence[CodeDone]:
        done = tuple(self._done)
        self._done.clear()
        return done

    def cancel(self, run_id: str) -> None:
        self._done = deque(done for done in self._done if done.run_id != run_id)

    def close(self) -> None:
        self._done.clear()

    def describe_isolation(self) -> tuple[str, ...]:
        return ("netns", "newroot", "readonly")

    def __enter__(self) -> InstantPrograms:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TellingStore(RunStore):
    """Tells of each attempt that is kept, after it is kept."""

    def append_many(self, events: Iterable[TraceEvent]) -> None:
        events = list(events)
        super().append_many(events)
        names = [str(event.attempt_id) for event in events if event.kind == "attempt_finished"]
        if names:
            handle = os.open(os.environ["MATHLETE_TEST_KEPT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, "".join(f"{name}\n" for name in names).encode())
            os.close(handle)


def run_in_fork(arguments: list[str], log: Path) -> int:
    """The process id of a fork that runs the command, its output in `log`."""
    pid = os.fork()
    if pid:
        return pid
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = ["mathlete", *arguments]
    code = 1
    try:
        main.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ending_of(child: int, kill_after_s: float | None) -> int:
    """How a fork ended, killed if it did not in time."""
    kill_at_s = time.monotonic() + (math.inf if kill_after_s is None else kill_after_s)
    while time.monotonic() < kill_at_s:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)  # nobody has waited for it, so the number is still its own
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    pyarrow.table({"answer": [42]})  # imports what it needs now and not in every fork
    session.load_generator = scripted_cli.load_scripted
    crew.build_sandbox = InstantPrograms  # type: ignore[assignment]
    session.RunStore = TellingStore  # type: ignore[misc]
    for line in sys.stdin:
        arguments, kill_after_s = json.loads(line)
        child = run_in_fork(arguments, Path("log"))
        print(ending_of(child, kill_after_s), flush=True)
