"""`SymbolicVerifier`: judges the equations of running text in a small pool of processes that can be killed.

Implements `core.protocols.StepChecker`. Knows processes, deadlines and whom to tell; which equations there are and
whether they hold is found by `symbolic_worker.py`. Never waits: whatever takes time happens between two calls.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from mathlete.core.protocols import StepChecked
from mathlete.core.selection import Evidence, Verdict
from mathlete.verify.equations_in_text import MAX_TEXT_CHARS
from mathlete.verify.symbolic_process import COMMAND, SymbolicProcess

CHECKER = "symbolic"
STARTING_DEADLINE_S = 60.0
"""For a worker to load SymPy on a busy machine."""
MAX_STARTS_IN_VAIN = 3
_VERDICTS = ("PROVED", "SUPPORTED", "REFUTED", "UNKNOWN")


class _Check:
    """One text under way.

    Attributes:
        check_id: the caller's name for it.
        job: our own number for it; names of checks may come again.
        text: what is judged.
        context: what stands before it.
        claims: (start, end, text) of each claim, once the worker has told.
        evidence: of the claims so far, in order.
        started_s: when a worker first got it, on the monotonic clock; None before.
        is_cancelled: nobody wants to hear of it.
    """

    def __init__(self, check_id: str, job: int, text: str, context: str) -> None:
        self.check_id = check_id
        self.job = job
        self.text = text
        self.context = context
        self.claims: list[tuple[int, int, str]] | None = None
        self.evidence: list[Evidence] = []
        self.started_s: float | None = None
        self.is_cancelled = False


class _Worker:
    """A process and what it is at.

    Attributes:
        process: the process.
        is_ready: it has loaded what it needs.
        check: the text it judges, or None.
        since_s: when it last began something: its start, a text, a claim.
    """

    def __init__(self, process: SymbolicProcess) -> None:
        self.process = process
        self.is_ready = False
        self.check: _Check | None = None
        self.since_s = process.started_s


class SymbolicVerifier:
    """Checks equations in text; see `equation_judgement.py` for what a verdict means.

    A claim that takes longer than its deadline, or ends its process, is UNKNOWN with failure "timeout" or "crash";
    the process is replaced and the claims behind it are judged all the same. A text that is, with its context, longer
    than `equations_in_text.MAX_TEXT_CHARS` gives one UNKNOWN with failure "too_large". Without SymPy (extra `tools`),
    whatever needs it is UNKNOWN with failure "missing"; plain arithmetic is judged nevertheless.
    """

    def __init__(
        self,
        num_workers: int = 1,
        deadline_s: float = 2.0,
        text_deadline_s: float = 10.0,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Prepare a pool; processes start with the first text.

        Args:
            num_workers: processes at most.
            deadline_s: seconds for one claim.
            text_deadline_s: seconds for all claims of one text; those left over are UNKNOWN ("timeout").
            command: the program that judges, for tests.
        """
        if num_workers < 1 or not deadline_s > 0 or not text_deadline_s > 0:
            raise ValueError("num_workers, deadline_s and text_deadline_s must be positive")
        self._num_workers = num_workers
        self._deadline_s = deadline_s
        self._text_deadline_s = text_deadline_s
        self._command = tuple(command)
        self._workers: list[_Worker] = []
        self._waiting: deque[_Check] = deque()
        self._done: list[StepChecked] = []
        self._num_jobs = 0
        self._starts_in_vain = 0
        self._is_closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(worker.process.pid for worker in self._workers)

    def submit(self, check_id: str, text: str, context: str = "") -> None:
        """Start judging the claims of `text`, or queue it.

        Args:
            check_id: the caller's name for it.
            text: what is judged.
            context: what stands directly before it and tells how it is meant; nothing is told of its own claims. Best
                is all there is: "we work modulo 7" may stand far before.
        """
        if self._is_closed:
            raise ValueError("submit() after close()")
        num_chars = len(context) + len(text)
        if num_chars > MAX_TEXT_CHARS:
            claim = f"a text of {num_chars} characters"
            unread = Evidence(CHECKER, claim, "UNKNOWN", "too_large", detail=f"only {MAX_TEXT_CHARS} are read")
            self._done.append(StepChecked(check_id, (unread,), ((0, len(text)),)))
            return
        self._num_jobs += 1
        self._waiting.append(_Check(check_id, self._num_jobs, text, context))
        self._advance()

    def poll(self) -> Sequence[StepChecked]:
        """What was judged since the last call; also moves everything on."""
        if not self._is_closed:
            self._advance()
        done, self._done = self._done, []
        return done

    def cancel(self, check_id: str) -> None:
        """Forget a check; no `StepChecked` follows. Unknown ids are ignored."""
        self._waiting = deque(check for check in self._waiting if check.check_id != check_id)
        self._done = [checked for checked in self._done if checked.check_id != check_id]
        for worker in self._workers:
            if worker.check is not None and worker.check.check_id == check_id:
                worker.check.is_cancelled = True

    def close(self) -> None:
        """End all workers. Safe to call twice."""
        self._is_closed = True
        for worker in self._workers:
            worker.process.kill()
        self._workers.clear()
        self._waiting.clear()

    def _advance(self) -> None:
        """Read what workers say, replace those that are lost, hand out what waits."""
        for worker in list(self._workers):
            for message in worker.process.receive():
                if not self._take(worker, message):
                    worker.process.failed = True
                    break
            if worker.process.failed:
                self._lose(worker, "crash")
            elif self._is_late(worker):
                self._lose(worker, "timeout")
        self._start_workers()
        for worker in self._workers:
            if worker.is_ready and worker.check is None and self._waiting:
                self._give(worker, self._waiting.popleft())

    def _start_workers(self) -> None:
        busy = sum(worker.check is not None for worker in self._workers)
        while len(self._workers) < min(self._num_workers, busy + len(self._waiting)):
            if self._starts_in_vain >= MAX_STARTS_IN_VAIN:
                for check in self._waiting:
                    self._finish(check, "crash")
                self._waiting.clear()
                return
            try:
                self._workers.append(_Worker(SymbolicProcess(self._command)))
            except OSError:
                self._starts_in_vain += 1

    def _give(self, worker: _Worker, check: _Check) -> None:
        now = time.monotonic()
        check.started_s = check.started_s or now
        worker.check, worker.since_s = check, now
        worker.process.send(
            {"job": check.job, "context": check.context, "text": check.text, "first": len(check.evidence)}
        )
        self._finish_if_done(worker)

    def _is_late(self, worker: _Worker) -> bool:
        now = time.monotonic()
        if not worker.is_ready:
            return now - worker.since_s > STARTING_DEADLINE_S
        if worker.check is None or worker.check.started_s is None:
            return False
        return now - worker.since_s > self._deadline_s or now - worker.check.started_s > self._text_deadline_s

    def _take(self, worker: _Worker, message: dict[str, Any]) -> bool:
        """Take one line in; False when it is none that a sound worker would send now."""
        if not worker.is_ready:
            worker.is_ready = message.get("ready") is True
            self._starts_in_vain = 0 if worker.is_ready else self._starts_in_vain
            return worker.is_ready
        check = worker.check
        if check is None or message.get("job") != check.job:
            return False
        worker.since_s = time.monotonic()
        if "claims" in message:
            check.claims = _claims(message["claims"])
            sound = check.claims is not None
        else:
            evidence = _evidence(message, check)
            sound = evidence is not None
            if evidence is not None:
                check.evidence.append(evidence)
        self._finish_if_done(worker)
        return sound

    def _finish_if_done(self, worker: _Worker) -> None:
        check = worker.check
        if check is not None and check.claims is not None and len(check.evidence) >= len(check.claims):
            worker.check = None
            self._finish(check, None)

    def _lose(self, worker: _Worker, failure: str) -> None:
        """Kill a worker; its claim is UNKNOWN, and the claims behind it go to the next one."""
        worker.process.kill()
        self._workers.remove(worker)
        check = worker.check
        if not worker.is_ready:
            self._starts_in_vain += 1
        if check is None:
            return
        assert check.started_s is not None
        is_spent = time.monotonic() - check.started_s > self._text_deadline_s
        if check.is_cancelled or check.claims is None or is_spent:
            self._finish(check, failure)
            return
        start, end, text = check.claims[len(check.evidence)]
        check.evidence.append(Evidence(CHECKER, text, "UNKNOWN", failure, time.monotonic() - worker.since_s))
        if len(check.evidence) == len(check.claims):
            self._finish(check, None)
        else:
            self._waiting.appendleft(check)

    def _finish(self, check: _Check, failure: str | None) -> None:
        """Tell of a check; with a `failure`, the claims without evidence are UNKNOWN for it."""
        if check.is_cancelled:
            return
        claims = check.claims if check.claims is not None else [(0, len(check.text), "the equations of a text")]
        for _, _, text in claims[len(check.evidence) :]:
            check.evidence.append(Evidence(CHECKER, text, "UNKNOWN", failure))
        spans = tuple((start, end) for start, end, _ in claims)
        self._done.append(StepChecked(check.check_id, tuple(check.evidence), spans))


def _claims(told: object) -> list[tuple[int, int, str]] | None:
    """The claims a worker tells of; None when it is garbage."""
    if not isinstance(told, list):
        return None
    claims: list[tuple[int, int, str]] = []
    for claim in told:
        match claim:
            case [int(start), int(end), str(text)]:
                claims.append((start, end, text))
            case _:
                return None
    return claims


def _evidence(message: dict[str, Any], check: _Check) -> Evidence | None:
    """The evidence on the next claim of `check`; None when the message is garbage."""
    match message:
        case {
            "index": int(index),
            "verdict": str(verdict),
            "failure": None | str() as failure,
            "detail": str(detail),
            "elapsed_s": int() | float() as elapsed_s,
        } if verdict in _VERDICTS:
            if check.claims is None or index != len(check.evidence) or index >= len(check.claims):
                return None
            claim = check.claims[index][2]
            return Evidence(CHECKER, claim, cast(Verdict, verdict), failure, float(elapsed_s), detail)
    return None
