"""One program in flight, from the side of the pool: its streams, its clock, what has been said of it.

A small state machine without threads or waiting: `read` when a stream is ready, `hear` what its supervisor says, and
`result` once it has `ended`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import Any

from mathlete.core.code import CodeLimits, ToolResult
from mathlete.sandbox import outcome

START_PATIENCE_S = 120.0  # a cold disk makes the first import of the libraries slow
GRACE_S = 1.0  # for the supervisor, which keeps the clock, before the pool does
END_PATIENCE_S = 10.0  # a killed process that waits for a device ends late
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Job:
    """A program that is to be run.

    Attributes:
        run_id: unique among the programs in the pool.
        code: its source.
        limits: its ceilings.
        session: whose definitions it sees; None for a program that stands alone.
        submitted_s: reading of the monotonic clock.
        num_losses: how often it was lost before it had started.
    """

    run_id: str
    code: str
    limits: CodeLimits
    session: str | None = None
    submitted_s: float = field(default_factory=time.monotonic)
    num_losses: int = 0


@dataclass(frozen=True, slots=True)
class ProgramStreams:
    """The ends that the pool reads, both non-blocking."""

    out: int
    err: int


class ProgramRun:
    """A program that a supervisor was asked to run."""

    def __init__(
        self, job: Job, streams: ProgramStreams, layers: tuple[str, ...] = (), *, in_session: bool = False
    ) -> None:
        """Take over the streams; `release` closes them.

        Args:
            job: what is run.
            streams: what it says.
            layers: in force, where its session stands already.
            in_session: there may be programs after it that see what it defined.
        """
        self.job = job
        self.layers = layers
        self._in_session = in_session
        self.cancelled = False
        self._streams = streams
        self._open = {streams.out, streams.err}
        self._output = {streams.out: bytearray(), streams.err: bytearray()}
        self._report: dict[str, Any] = {}
        self._verdict: outcome.Verdict | None = None
        self._asked_s = time.monotonic()
        self._started_s: float | None = None
        self._deadline_s = self._asked_s + START_PATIENCE_S

    @property
    def readable(self) -> frozenset[int]:
        """Descriptors to be watched for reading."""
        return frozenset(self._open)

    @property
    def started(self) -> bool:
        """Whether its first line has been run."""
        return self._started_s is not None

    @property
    def ended(self) -> bool:
        """Whether its supervisor has told its end."""
        return bool(self._report)

    @property
    def failed(self) -> bool:
        """Whether its supervisor could not start it."""
        return "failed" in self._report

    @property
    def lost(self) -> bool:
        """Whether, once its supervisor is gone, it has not started and nobody wanted it to end: it may be run again."""
        return not self.started and self._verdict is None and not self.failed

    @property
    def verdict(self) -> outcome.Verdict | None:
        """Why the pool ended it, or None."""
        return self._verdict

    @property
    def deadline_s(self) -> float:
        """Reading of the monotonic clock at which something must have happened."""
        return self._deadline_s

    def read(self, descriptor: int) -> None:
        """Take what is ready on a stream; closes it at its end."""
        data = _read_ready(descriptor)
        if data is None:
            return
        if not data:
            self._close(descriptor)
        else:
            self._keep(descriptor, data)

    def hear(self, message: dict[str, Any]) -> None:
        """Take a message of its supervisor."""
        if "layers" in message:
            self.layers = tuple(message["layers"])
        elif "started" in message:
            self._started_s = time.monotonic()
            if self._verdict is None:
                self._deadline_s = self._started_s + self.job.limits.wall_s + GRACE_S
        else:
            self._report |= message

    def _keep(self, descriptor: int, data: bytes) -> None:
        room = self.job.limits.output_bytes - sum(map(len, self._output.values()))
        self._output[descriptor] += data[:room]
        if len(data) > room:
            self.condemn("output_limit")

    def condemn(self, verdict: outcome.Verdict) -> bool:
        """Note why it is to be killed; the first verdict stands. Returns whether this is it."""
        if self._verdict is not None:
            return False
        self._verdict = verdict
        self._deadline_s = time.monotonic() + END_PATIENCE_S
        return True

    def result(self, *, restarted: bool = False) -> ToolResult:
        """What came of it; for a program that has ended or whose supervisor is gone.

        Args:
            restarted: it ran in a session that replaced a dead one.
        """
        for descriptor in self._output:
            while descriptor in self._open and (data := _read_ready(descriptor)):
                self._keep(descriptor, data)
        now_s = time.monotonic()
        began_s = now_s if self._started_s is None else self._started_s
        ending = outcome.Ending(
            verdict=self._verdict,
            report=self._report,
            stdout=bytes(self._output[self._streams.out]),
            stderr=bytes(self._output[self._streams.err]),
            layers=self.layers,
            elapsed_s=now_s - began_s,
            in_session=self._in_session,
        )
        result = outcome.judge(ending, self.job.limits)
        return replace(result, waited_s=began_s - self.job.submitted_s, session_restarted=restarted)

    def release(self) -> None:
        """Close every stream that is still open."""
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
