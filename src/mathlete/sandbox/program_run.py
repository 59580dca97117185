"""One program in flight, from the side of the pool: its pipes, its clock, what it has said so far.

A small state machine without threads or waiting: `read` when a descriptor is ready, `enforce_clock` when it is
`overdue`, and `result` once it has `ended`.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

from mathlete.core.code import CodeLimits, ToolResult
from mathlete.sandbox import outcome
from mathlete.sandbox.launch import ProgramPipes

START_PATIENCE_S = 120.0  # a cold disk makes the first import of the libraries slow
END_PATIENCE_S = 10.0  # a killed process that waits for a device ends late
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Job:
    """A program that is to be run.

    Attributes:
        run_id: unique among the programs in the pool.
        code: its source.
        limits: its ceilings.
        is_rerun: it was lost once, before it had started.
    """

    run_id: str
    code: str
    limits: CodeLimits
    is_rerun: bool = False


class ProgramRun:
    """A program that a zygote was asked to start."""

    def __init__(self, job: Job, pipes: ProgramPipes, work_dir: str, zygote_pid: int) -> None:
        """Take over the pipes; `release` closes them."""
        self.job = job
        self.work_dir = work_dir
        self.zygote_pid = zygote_pid
        self.started = False
        self.cancelled = False
        self._pipes = pipes
        self._open = {pipes.out, pipes.err, pipes.status, pipes.control}
        self._output = {pipes.out: bytearray(), pipes.err: bytearray()}
        self._messages = bytearray()
        self._report: dict[str, Any] = {}
        self._layers: tuple[str, ...] = ()
        self._verdict: outcome.Verdict | None = None
        self._since_s = time.monotonic()
        self._deadline_s = self._since_s + START_PATIENCE_S

    @property
    def readable(self) -> frozenset[int]:
        """Descriptors to be watched for reading."""
        return frozenset(self._open - {self._pipes.control})

    @property
    def ended(self) -> bool:
        """Whether the supervisor has hung up: the program and all it started are gone."""
        return self._pipes.status not in self._open

    @property
    def failed(self) -> bool:
        """Whether its supervisor could not start it."""
        return "failed" in self._report

    @property
    def lost(self) -> bool:
        """Whether it ended without having started, through no fault of its own: it may be run again."""
        return self.ended and not self.started and self._verdict is None and not self.failed

    @property
    def deadline_s(self) -> float:
        """Reading of the monotonic clock at which it will be `overdue`."""
        return self._deadline_s

    def read(self, descriptor: int) -> None:
        """Take what is ready on a descriptor; closes it at its end."""
        data = _read_ready(descriptor)
        if data is None:
            return
        if not data:
            self._close(descriptor)
        elif descriptor == self._pipes.status:
            self._hear(data)
        else:
            self._keep(descriptor, data)

    def _hear(self, data: bytes) -> None:
        self._messages += data
        *lines, rest = self._messages.split(b"\n")
        self._messages = rest
        for line in lines:
            message = json.loads(line)
            if "layers" in message:
                self.started = True
                self._layers = tuple(message["layers"])
                self._since_s = time.monotonic()
                if self._verdict is None:
                    self._deadline_s = self._since_s + self.job.limits.wall_s
            else:
                self._report |= message

    def _keep(self, descriptor: int, data: bytes) -> None:
        room = self.job.limits.output_bytes - sum(map(len, self._output.values()))
        self._output[descriptor] += data[:room]
        if len(data) > room:
            self.end("output_limit")

    def end(self, verdict: outcome.Verdict) -> None:
        """Have the program killed; the first verdict stands."""
        if self._verdict is None:
            self._verdict = verdict
            self._deadline_s = time.monotonic() + END_PATIENCE_S
        self._close(self._pipes.control)

    @property
    def overdue(self) -> bool:
        """Whether its clock has run out before its end: for starting, for running, or for ending."""
        return not self.ended and time.monotonic() >= self._deadline_s

    def enforce_clock(self) -> None:
        """End a program that is overdue. A supervisor that did not hang up after a kill or a report is given up."""
        if self._verdict is None and self.started and not self._report:
            self.end("timeout")
        else:
            self._close(self._pipes.status)

    def result(self) -> ToolResult:
        """What came of it; for a program that has ended."""
        for descriptor in self._output:
            while descriptor in self._open and (data := _read_ready(descriptor)):
                self._keep(descriptor, data)
        ending = outcome.Ending(
            verdict=self._verdict,
            report=self._report,
            stdout=bytes(self._output[self._pipes.out]),
            stderr=bytes(self._output[self._pipes.err]),
            layers=self._layers,
            elapsed_s=time.monotonic() - self._since_s,
        )
        return outcome.judge(ending, self.job.limits)

    def release(self) -> None:
        """Close every descriptor that is still open."""
        for descriptor in list(self._open):
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)


def _read_ready(descriptor: int) -> bytes | None:
    """Bytes at hand, empty at the end, None when there is nothing yet."""
    try:
        return os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return None
