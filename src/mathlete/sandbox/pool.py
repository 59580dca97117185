"""A pool of untrusted programs and their sessions: queue, workers, memory, and no program ever lost.

Knows jobs and sessions; the fences are laid in `sandbox.isolation`, clocks are kept in `sandbox.supervisor`, and what
an end means is judged in `sandbox.outcome`. One thread watches all descriptors.
"""

from __future__ import annotations

import os
import selectors
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from mathlete.core.code import CodeLimits, ToolResult
from mathlete.core.errors import MathleteError, StorageError
from mathlete.core.protocols import CodeDone
from mathlete.sandbox.isolation import LAYERS, Fence, next_retreat
from mathlete.sandbox.launch import Zygote
from mathlete.sandbox.outcome import ENDED_WITH_SESSION
from mathlete.sandbox.program_run import START_PATIENCE_S, Job, ProgramRun
from mathlete.sandbox.removal import Sweeper
from mathlete.sandbox.session import Session
from mathlete.sandbox.session_book import SESSIONS_BYTES, SessionBook

_PROBE_ID = "\0probe"
_CLOSE_PATIENCE_S = 5.0
_MAX_LOSSES = 3  # of one program, before it is reported


@dataclass(frozen=True, slots=True)
class _Done:
    """A program that has ended, and what came of it."""

    job: Job
    result: ToolResult


class SandboxPool:
    """Runs programs that a model wrote, in processes of their own behind the layers of `sandbox.isolation`.

    A `CodeRunner`; its methods may be called from any thread. What goes wrong with a program is a `ToolResult`,
    never an exception. Programs of one session run one after the other, in the order of `submit`. Its first program
    sets what the session may hold (`memory_bytes`, `file_bytes`); a program that does not come to its end, or runs out
    of memory, takes back what it defined, but not what it wrote to files. A session costs no worker while it is idle.
    Where the "gate" layer cannot be had, such a program takes the whole session with it, and without the "seccomp"
    layer no session outlives a program; both are told.
    """

    def __init__(
        self, num_workers: int = 2, *, without: Iterable[str] = (), sessions_bytes: int = SESSIONS_BYTES
    ) -> None:
        """Start the process that programs are forked from, and return before it is ready.

        Args:
            num_workers: programs that run at the same time; the others wait in the order of `submit`.
            without: isolation layers that are left out, for tests and diagnosis.
            sessions_bytes: memory that living sessions may hold together between programs; above it, those that were
                idle longest are closed, as their next program is told. Programs that run may hold `num_workers` times
                two of their own ceilings on top.

        Raises:
            ValueError: for fewer than one worker, an unknown layer, or no memory.
            StorageError: when there is no temporary directory to run programs in.
        """
        if num_workers < 1:
            raise ValueError(f"num_workers must be >= 1, not {num_workers}")
        if sessions_bytes < 1:
            raise ValueError(f"sessions_bytes must be >= 1, not {sessions_bytes}")
        self._without = frozenset(without)
        if unknown := self._without - set(LAYERS):
            raise ValueError(f"without: no such isolation layer: {', '.join(sorted(unknown))}")
        self._num_workers = num_workers
        self._room = _make_room()
        self._sweeper = Sweeper()
        self._lock = threading.Lock()  # guards the next five
        self._waiting: deque[Job] = deque([Job(_PROBE_ID, "", CodeLimits())])
        self._sessions: list[Session] = []  # all, those of programs that stand alone included
        self._book = SessionBook(sessions_bytes)
        self._done: list[_Done] = []
        self._closing = False
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._failure: BaseException | None = None
        self._probe: ToolResult | None = None
        self._probe_ready = threading.Event()
        # From here on the thread's own.
        self._zygote: Zygote | None = None
        self._last_words = ""
        self._num_started = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._work, name="sandbox", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return the pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        self.close()

    def submit(self, run_id: str, code: str, limits: CodeLimits, session: str | None = None) -> None:
        """Start a program, or queue it when all workers, or its session, are busy.

        Raises:
            ValueError: when `run_id` is in the pool already, or the pool is closed.
        """
        with self._lock:
            if self._closing:
                raise ValueError("the sandbox is closed")
            known = {job.run_id for job in self._waiting} | {done.job.run_id for done in self._done}
            known |= {run.job.run_id for run in self._runs() if not run.cancelled}
            if run_id in known:
                raise ValueError(f"run {run_id!r} is in the sandbox already")
            self._waiting.append(Job(run_id, code, limits, session))
            self._wake()

    def poll(self) -> Sequence[CodeDone]:
        """Programs that have ended since the last call, in the order in which they ended.

        Raises:
            MathleteError: when the pool itself has failed, which is a defect of ours.
        """
        with self._lock:
            done, self._done = self._done, []
        if self._failure is not None and not done:
            raise MathleteError(f"the sandbox has stopped: {self._failure!r}; please report this") from self._failure
        return [CodeDone(one.job.run_id, one.result) for one in done]

    def cancel(self, run_id: str) -> None:
        """Kill a program; no `CodeDone` follows. Its session goes on from before it. Unknown ids are ignored."""
        with self._lock:
            self._waiting = deque(job for job in self._waiting if job.run_id != run_id)
            for done in [done for done in self._done if done.job.run_id == run_id]:
                self._done.remove(done)
                if done.result.session_restarted and done.job.session is not None:
                    self._book.note_loss(done.job.session)  # nobody has been told
            for session in self._sessions:
                if session.run is not None and session.run.job.run_id == run_id:
                    session.run.cancelled = True
                    session.end_program("killed")

    def end_session(self, session: str) -> None:
        """Forget what a session's programs defined, and free all that it holds. Unknown sessions are ignored.

        Its programs that run or wait come back as "killed".
        """
        with self._lock:
            for job in [job for job in self._waiting if job.session == session]:
                self._waiting.remove(job)
                self._settle(job, ToolResult("killed", "", f"{ENDED_WITH_SESSION}\n", 0.0))
            for running in self._sessions:
                if running.run is not None and running.run.job.session == session:
                    running.run.condemn("killed")
                    running.leave()
            if (living := self._book.strike(session)) is not None:
                living.leave()
            self._wake()

    def _runs(self) -> list[ProgramRun]:
        return [session.run for session in self._sessions if session.run is not None]

    def describe_isolation(self) -> tuple[str, ...]:
        """Names of the layers in force on this machine, as a trial program found them.

        Waits for the trial, which is started with the pool: about a second after a cold start.

        Raises:
            MathleteError: when programs cannot be run at all.
        """
        self._probe_ready.wait(2 * START_PATIENCE_S)
        if self._probe is None or self._probe.status != "ok":
            reason = self._probe.stderr if self._probe is not None else repr(self._failure)
            raise MathleteError(f"the sandbox cannot run programs here: {reason.strip()}")
        return self._probe.isolation

    def close(self) -> None:
        """Kill whatever runs and remove every trace of it. Safe to call twice."""
        with self._lock:
            self._closing = True
            self._waiting.clear()
            self._wake()
        self._thread.join()

    def _wake(self) -> None:
        """Have the thread look at the lists; under the lock, since the thread closes the pipe when it ends."""
        if self._wake_w < 0:
            return
        try:
            os.write(self._wake_w, b"w")
        except BlockingIOError:
            return  # the pipe is full of calls to wake up

    # What follows runs in the thread.

    def _work(self) -> None:
        try:
            while not self._closing:
                self._start_waiting()
                self._watch()
                self._finish_ended()
        except BaseException as failure:  # told by `poll`
            self._failure = failure
        finally:
            self._probe_ready.set()
            self._shut_down()

    def _start_waiting(self) -> None:
        while True:
            with self._lock:
                # Until the trial has found what fences can be had here, it is alone.
                num_workers = self._num_workers if self._probe_ready.is_set() else 1
                if self._closing or len(self._runs()) >= num_workers or (job := self._next_job()) is None:
                    return
                self._waiting.remove(job)
                session = None if job.session is None else self._book.living.get(job.session)
                try:
                    if session is None:
                        session = self._open_session(job)
                    session.begin(job)
                except OSError as error:  # the zygote or the supervisor is dead, or something has run out
                    if session is None:
                        self._replace_zygote()
                    else:
                        session.gone = True
                    self._lose(job, ToolResult("killed", "", f"the program could not be started: {error}\n", 0.0))
                    if session is None:
                        continue
            if session.run is not None:
                for descriptor in session.run.readable:
                    self._selector.register(descriptor, selectors.EVENT_READ, session)
            self._finish_ended()

    def _next_job(self) -> Job | None:
        """The first that waits for nothing but a worker."""
        busy = {session.name for session in self._book.living.values() if session.run is not None or session.leaving}
        busy |= {run.job.session for run in self._runs()}
        return next((job for job in self._waiting if job.session is None or job.session not in busy), None)

    def _open_session(self, job: Job) -> Session:
        """A new session for a job; one that keeps nothing for a program that stands alone.

        Raises:
            OSError: when no zygote can be started or reached.
        """
        if self._zygote is None:
            self._zygote = Zygote()
            self._selector.register(self._zygote.socket, selectors.EVENT_READ)
        self._num_started += 1
        work_dir = os.path.join(self._room.name, str(self._num_started))
        os.mkdir(work_dir, 0o700)
        # Without the filter, processes that a program left behind would live on in its session.
        name = job.session if self._probe is not None and "seccomp" in self._probe.isolation else None
        fence = Fence(work_dir, job.limits.memory_bytes, job.limits.file_bytes, self._without)
        try:
            wire = self._zygote.start_session(fence, keeps_state=name is not None)
        except OSError:
            self._sweeper.remove(work_dir)
            raise
        session = Session(name, wire, work_dir, self._zygote.pid)
        self._sessions.append(session)
        if name is not None:
            self._book.living[name] = session
        self._selector.register(wire.fileno(), selectors.EVENT_READ, session)
        return session

    def _watch(self) -> None:
        deadlines_s = [session.deadline_s for session in self._sessions if session.deadline_s is not None]
        timeout_s = max(0.0, min(deadlines_s) - time.monotonic()) if deadlines_s else None
        for key, _ in self._selector.select(timeout_s):
            session: Session | None = key.data
            if session is not None:
                self._read(session, key.fd)
            elif key.fd == self._wake_r:
                os.read(self._wake_r, 1 << 16)
            else:  # the zygote never speaks: it is dead
                self._replace_zygote()
        with self._lock:
            for session in self._sessions:
                if session.overdue:
                    if session.run is not None and not session.layers and self._is_of_this_zygote(session):
                        self._replace_zygote()  # it is stuck
                    session.enforce_clock()

    def _read(self, session: Session, descriptor: int) -> None:
        with self._lock:
            session.read(descriptor)
            if descriptor not in session.readable:
                self._selector.unregister(descriptor)

    def _is_of_this_zygote(self, session: Session) -> bool:
        return self._zygote is not None and session.zygote_pid == self._zygote.pid

    def _replace_zygote(self) -> None:
        """End the zygote; sessions go on, and the next one to start gets a new zygote."""
        if self._zygote is not None:
            self._selector.unregister(self._zygote.socket)
            self._last_words = self._zygote.end()
            self._zygote = None

    def _finish_ended(self) -> None:
        with self._lock:
            for session in [session for session in self._sessions if session.finished or session.gone]:
                if session.finished:
                    self._finish(session)
                if session.gone:
                    self._bury(session)
            for session in self._book.close_idle():
                session.leave()
        if self._probe is not None:
            self._probe_ready.set()

    def _finish(self, session: Session) -> None:
        """Take the result of a session's program."""
        assert session.run is not None
        for descriptor in session.run.readable:
            self._selector.unregister(descriptor)
        run = session.take_run()
        assert run is not None
        name = run.job.session
        result = run.result(restarted=name in self._book.bereft)
        run.release()
        if run.lost and session.gone and not session.layers and self._is_of_this_zygote(session):
            self._replace_zygote()
        if run.cancelled:
            return
        is_probe = run.job.run_id == _PROBE_ID
        if run.verdict is None and ((run.lost and session.gone) or (run.failed and not is_probe)):
            self._lose(run.job, result)
        elif is_probe and run.failed and (retreat := next_retreat(self._without)):
            self._without = retreat
            self._waiting.appendleft(run.job)
        else:
            self._settle(run.job, result)
            if name is not None:
                self._book.note_told(name)
            if name is not None and session.name is None and run.started:
                self._book.note_loss(name)  # no session can be kept here

    def _bury(self, session: Session) -> None:
        """Forget a session that is gone; that it had defined something is told to its next program."""
        for descriptor in session.readable:
            self._selector.unregister(descriptor)
        session.release()
        self._sweeper.remove(session.work_dir)
        self._sessions.remove(session)
        self._book.note_gone(session)

    def _lose(self, job: Job, result: ToolResult) -> None:
        """Queue a program that never started once more, or report it with the zygote's last words."""
        if job.num_losses + 1 >= _MAX_LOSSES:
            self._settle(job, replace(result, stderr=result.stderr + self._last_words))
        else:
            self._waiting.appendleft(replace(job, num_losses=job.num_losses + 1))

    def _settle(self, job: Job, result: ToolResult) -> None:
        if job.run_id == _PROBE_ID:
            self._probe = result
        else:
            self._done.append(_Done(job, result))

    def _shut_down(self) -> None:
        with self._lock:
            self._closing = True
            for session in self._sessions:
                session.leave()
        give_up_s = time.monotonic() + _CLOSE_PATIENCE_S
        while any(not session.gone for session in self._sessions) and time.monotonic() < give_up_s:
            for key, _ in self._selector.select(0.1):
                if key.data is not None:
                    key.data.read(key.fd)
                    if key.data.gone or key.fd not in key.data.readable:
                        self._selector.unregister(key.fd)
        self._replace_zygote()
        for session in self._sessions:
            session.release()
            self._sweeper.remove(session.work_dir)
        self._sessions.clear()
        self._selector.close()
        with self._lock:
            os.close(self._wake_r)
            os.close(self._wake_w)
            self._wake_w = -1
        self._sweeper.close()
        self._room.cleanup()


def _make_room() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="mathlete-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(
            f"the sandbox needs a temporary directory to run programs in: {error}; "
            "set TMPDIR to a directory that you may write to, on a disk with room"
        ) from error
