"""One session from the side of the pool: the wire to its supervisor, and the program that runs in it.

A state machine without threads or waiting. A program that stands alone runs in a session of its own without a name,
which ends with it. Knows no other sessions.
"""

from __future__ import annotations

import os
import time

from mathlete.sandbox.outcome import Verdict
from mathlete.sandbox.program_run import END_PATIENCE_S, Job, ProgramRun, ProgramStreams
from mathlete.sandbox.wire import Wire


class Session:
    """A supervisor that a zygote was asked to start."""

    def __init__(self, name: str | None, wire: Wire, work_dir: str, zygote_pid: int) -> None:
        """Take over the wire; `release` closes it.

        Args:
            name: by which its programs are submitted, or None where there will be one only.
            wire: to the supervisor.
            work_dir: of its programs.
            zygote_pid: whom it was asked of.
        """
        self.name = name
        self.work_dir = work_dir
        self.zygote_pid = zygote_pid
        self.run: ProgramRun | None = None
        self.layers: tuple[str, ...] = ()
        self.memory_bytes = 0
        self.gone = False
        self.has_state = False
        self.idle_since_s = time.monotonic()
        self._wire = wire
        self._num_programs = 0
        self._leaving_until_s: float | None = None

    @property
    def readable(self) -> frozenset[int]:
        """Descriptors to be watched for reading."""
        return frozenset({self._wire.fileno()}) if self.run is None else self.run.readable | {self._wire.fileno()}

    @property
    def leaving(self) -> bool:
        """Whether it was asked to end, or has."""
        return self.gone or self._leaving_until_s is not None

    @property
    def finished(self) -> bool:
        """Whether its program is over. One that stands alone is when all that it started is gone too."""
        return self.run is not None and (self.gone or (self.run.ended and self.name is not None))

    @property
    def deadline_s(self) -> float | None:
        """Reading of the monotonic clock at which something must have happened, or None while it is idle."""
        if self._leaving_until_s is not None:
            return self._leaving_until_s
        return None if self.run is None else self.run.deadline_s

    @property
    def overdue(self) -> bool:
        """Whether its clock has run out: for starting, for a program, or for ending."""
        return not self.gone and self.deadline_s is not None and time.monotonic() >= self.deadline_s

    def begin(self, job: Job) -> None:
        """Ask for a program.

        Raises:
            OSError: when the supervisor is gone or descriptors have run out; then nothing has begun.
        """
        descriptors: list[int] = []
        try:
            with open(os.memfd_create("source"), "wb") as source:  # in memory: a full disk stops nothing
                source.write(job.code.encode("utf-8", "surrogatepass"))
                source.flush()
                source.seek(0)
                descriptors += os.pipe()
                descriptors += os.pipe()
                out, out_w, err, err_w = descriptors
                self._num_programs += 1
                limits = job.limits
                terms = {
                    "number": self._num_programs,
                    "wall_s": limits.wall_s,
                    "memory_bytes": limits.memory_bytes,
                }
                self._wire.send(terms, [source.fileno(), out_w, err_w])
        except OSError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        os.close(out_w)
        os.close(err_w)
        for descriptor in (out, err):
            os.set_blocking(descriptor, False)
        self.run = ProgramRun(job, ProgramStreams(out, err), self.layers, in_session=self.name is not None)

    def read(self, descriptor: int) -> None:
        """Take what is ready on a descriptor."""
        if descriptor != self._wire.fileno():
            assert self.run is not None
            condemned = self.run.verdict is not None
            self.run.read(descriptor)
            if self.run.verdict is not None and not condemned:
                self._ask_to_kill()
            return
        try:
            packet = self._wire.receive()
        except BlockingIOError:
            return
        if packet is None:
            self.gone = True
            return
        message = packet.message
        if "layers" in message:
            self.layers = tuple(message["layers"])
        self.has_state |= "started" in message
        self.memory_bytes = message.get("memory_bytes", self.memory_bytes)
        if self.run is not None:
            self.run.hear(message)
        if "failed" in message or not message.get("goes_on", True):
            self.leave()

    def end_program(self, verdict: Verdict) -> None:
        """Have the program that runs killed; the session goes on from before it."""
        if self.run is not None and self.run.condemn(verdict):
            self._ask_to_kill()

    def _ask_to_kill(self) -> None:
        if self.name is None:
            self.leave()
            return
        try:
            self._wire.send({"end": True})
        except OSError:  # its supervisor is dead, as the end of the wire will say, or does not read any more
            self.leave()

    def leave(self) -> None:
        """Have everything in it ended."""
        if self._leaving_until_s is None:
            self._leaving_until_s = time.monotonic() + END_PATIENCE_S
            self._wire.shut()

    def enforce_clock(self) -> None:
        """For one that is overdue: end its program, and give up a supervisor that does not even do that."""
        if self._leaving_until_s is None and self.run is not None and self.run.started and self.run.verdict is None:
            self.end_program("timeout")
        else:
            self.gone = True

    def take_run(self) -> ProgramRun | None:
        """The program, which is not the session's any more."""
        run, self.run = self.run, None
        self.idle_since_s = time.monotonic()
        return run

    def release(self) -> None:
        """Close every descriptor."""
        if self.run is not None:
            self.run.release()
        self._wire.close()
