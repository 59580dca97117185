"""Runs a downloading program as a child process that cannot hang or outlive us. Knows nothing of models."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class ChildResult:
    """What an ended child left behind.

    Attributes:
        returncode: its exit status; negative for a signal.
        stdout: all it printed.
        stderr: all it printed as messages.
    """

    returncode: int
    stdout: str
    stderr: str

    def ran_out_of_disk(self) -> bool:
        """Whether its messages name a full disk (Python prints the number in every language)."""
        return any(sign in self.stderr for sign in ("Errno 28", "Errno 122", "No space left on device"))

    def last_words(self) -> str:
        """The lines of its messages that tell a person why it failed."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        return " / ".join((errors or lines)[-3:]) or f"exit status {self.returncode}, no message"


def largest_file_bytes(folder: Path) -> int:
    """Size of the largest file below `folder`, 0 for none: how far a download into it is."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
            except FileNotFoundError:
                continue  # the child moved or removed it while we looked
    return largest


def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    measure: Callable[[], int] = lambda: 0,
    on_bytes: Callable[[int], None] = lambda num_bytes: None,
    stall_s: float | None = None,
) -> ChildResult:
    """Run `command` to its end, and kill it and its children when this function is left in any other way.

    Args:
        command: program and arguments.
        environment: set in addition to our own.
        measure: called often; how many bytes the child has written so far.
        on_bytes: hears each new measure.
        stall_s: seconds without growth of `measure` after which the child is given up; None for never.

    Raises:
        TimeoutError: the child was given up.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        start_new_session=True,
    ) as process:
        try:
            grown_at, largest = time.monotonic(), 0
            while True:
                try:
                    stdout, stderr = process.communicate(timeout=POLL_S)
                    return ChildResult(process.returncode, stdout, stderr)
                except subprocess.TimeoutExpired:
                    num_bytes = measure()
                if num_bytes > largest:
                    grown_at, largest = time.monotonic(), num_bytes
                    on_bytes(num_bytes)
                elif stall_s is not None and time.monotonic() - grown_at > stall_s:
                    raise TimeoutError(f"nothing arrived for {stall_s:g} s")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()  # on Ctrl-C, Popen itself waits a quarter of a second only
