"""`LeanInBackground`: proofs checked by threads around a `LeanChecker`, so that whoever drives a run never waits.

Implements `core.protocols.ProofChecker`. Knows threads and queues; what a proof is worth is found by the checker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from mathlete.core.protocols import StepChecked
from mathlete.core.selection import Evidence

_CLOSING_S = 2.0
"""To wait for threads at the end. One that waits for a server may take longer; it ends with the process."""


class BlockingChecker(Protocol):
    """What a `LeanChecker` is to the threads."""

    def check(self, statement: str, proof: str) -> Evidence:
        """Check a proof, however long it takes; safe to use from several threads."""
        ...

    def close(self) -> None:
        """End what runs: checks under way in other threads return soon. Safe to call twice."""
        ...


@dataclass(slots=True, eq=False)
class _Job:
    """One proof.

    Attributes:
        check_id: the caller's name for it.
        statement: what is to be proved.
        proof: what the model wrote.
        is_cancelled: nobody wants to hear of it.
        evidence: what was found.
        error: what the checker failed with; it is not meant to.
    """

    check_id: str
    statement: str
    proof: str
    is_cancelled: bool = False
    evidence: Evidence | None = None
    error: Exception | None = None


class LeanInBackground:
    """Checks proofs in the order in which they come. Threads start with the first proof.

    A check that is cancelled while it runs is finished unheard, within the limits of its backend.
    """

    def __init__(self, checker: BlockingChecker, num_threads: int = 1) -> None:
        """Join the parts.

        Args:
            checker: does the work; `close` closes it.
            num_threads: checks at once at most. Raises `ValueError` below 1.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads must be >= 1, not {num_threads}")
        self._checker = checker
        self._num_threads = num_threads
        self._threads: list[threading.Thread] = []
        self._jobs: dict[str, _Job] = {}  # that somebody wants to hear of
        self._waiting: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: SimpleQueue[_Job] = SimpleQueue()
        self._is_closed = False

    def submit(self, check_id: str, statement: str, proof: str) -> None:
        """Start checking a proof, or queue it. Raises `ValueError` for an id in use, or after `close`."""
        if self._is_closed:
            raise ValueError("submit() after close()")
        if check_id in self._jobs:
            raise ValueError(f"check id {check_id!r} is in use")
        job = self._jobs[check_id] = _Job(check_id, statement, proof)
        self._waiting.put(job)
        if len(self._threads) < min(self._num_threads, len(self._jobs)):
            # Daemons: a thread that waits for a server must not keep the program from ending.
            thread = threading.Thread(target=self._work, name="lean-check", daemon=True)
            self._threads.append(thread)
            thread.start()

    def poll(self) -> Sequence[StepChecked]:
        """What was checked since the last call. Raises what the checker raised, if it ever did."""
        checked: list[StepChecked] = []
        while True:
            try:
                job = self._done.get_nowait()
            except Empty:
                return checked
            if job.error is not None:
                raise job.error
            if not job.is_cancelled:
                del self._jobs[job.check_id]
                assert job.evidence is not None, "a job that is done has evidence or an error"
                checked.append(StepChecked(job.check_id, (job.evidence,)))

    def cancel(self, check_id: str) -> None:
        """Forget a check; no `StepChecked` follows. Unknown ids are ignored."""
        job = self._jobs.pop(check_id, None)
        if job is not None:
            job.is_cancelled = True

    def close(self) -> None:
        """End what runs. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        for check_id in list(self._jobs):
            self.cancel(check_id)
        self._checker.close()
        for _ in self._threads:
            self._waiting.put(None)
        until_s = time.monotonic() + _CLOSING_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _work(self) -> None:
        """What a thread does."""
        while (job := self._waiting.get()) is not None:
            if job.is_cancelled:
                continue
            try:
                job.evidence = self._checker.check(job.statement, job.proof)
            except Exception as error:  # told to the driving thread by `poll`
                job.error = error
            self._done.put(job)
