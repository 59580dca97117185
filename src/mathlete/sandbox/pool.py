"""A pool of untrusted programs: queue, clock, output ceilings, and no program ever lost.

Knows jobs and their pipes; the fences are laid in `sandbox.isolation`, and what an end means is judged in
`sandbox.outcome`. One thread watches all descriptors, so that clocks are kept while the caller computes.
"""

from __future__ import annotations

import os
import selectors
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from mathlete.core.code import CodeLimits, ToolResult
from mathlete.core.errors import MathleteError, StorageError
from mathlete.core.protocols import CodeDone
from mathlete.sandbox.isolation import LAYERS, Fence, next_retreat
from mathlete.sandbox.launch import Zygote
from mathlete.sandbox.outcome import cpu_ceiling_s
from mathlete.sandbox.program_run import START_PATIENCE_S, Job, ProgramRun
from mathlete.sandbox.removal import remove_tree

_PROBE_ID = "\0probe"
_CLOSE_PATIENCE_S = 5.0


class SandboxPool:
    """Runs programs that a model wrote, each in a process of its own behind the layers of `sandbox.isolation`.

    A `CodeRunner`; its methods may be called from any thread. What goes wrong with a program is a `ToolResult`,
    never an exception.
    """

    def __init__(self, num_workers: int = 2, *, without: Iterable[str] = ()) -> None:
        """Start the process that programs are forked from, and return before it is ready.

        Args:
            num_workers: programs that run at the same time; the others wait in the order of `submit`.
            without: isolation layers that are left out, for tests and diagnosis.

        Raises:
            ValueError: for fewer than one worker or an unknown layer.
            StorageError: when there is no temporary directory to run programs in.
        """
        if num_workers < 1:
            raise ValueError(f"num_workers must be >= 1, not {num_workers}")
        self._without = frozenset(without)
        if unknown := self._without - set(LAYERS):
            raise ValueError(f"without: no such isolation layer: {', '.join(sorted(unknown))}")
        self._num_workers = num_workers
        self._room = _make_room()
        self._lock = threading.Lock()  # guards the next five
        self._waiting: deque[Job] = deque([Job(_PROBE_ID, "", CodeLimits())])
        self._running: list[ProgramRun] = []
        self._done: list[CodeDone] = []
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

    def end_session(self, session: str) -> None:
        """Forget a session."""

    def submit(self, run_id: str, code: str, limits: CodeLimits, session: str | None = None) -> None:
        """Start a program, or queue it when all workers are busy.

        Raises:
            ValueError: when `run_id` is in the pool already, or the pool is closed.
        """
        with self._lock:
            if self._closing:
                raise ValueError("the sandbox is closed")
            known = {job.run_id for job in self._waiting} | {done.run_id for done in self._done}
            known |= {run.job.run_id for run in self._running if not run.cancelled}
            if run_id in known:
                raise ValueError(f"run {run_id!r} is in the sandbox already")
            self._waiting.append(Job(run_id, code, limits))
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
        return done

    def cancel(self, run_id: str) -> None:
        """Kill a program; no `CodeDone` follows. Unknown ids are ignored."""
        with self._lock:
            self._waiting = deque(job for job in self._waiting if job.run_id != run_id)
            self._done = [done for done in self._done if done.run_id != run_id]
            for run in self._running:
                if run.job.run_id == run_id:
                    run.cancelled = True
                    if not run.ended:  # else the thread is judging it
                        run.end("killed")

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
                if self._closing or not self._waiting or len(self._running) >= num_workers:
                    return
                job = self._waiting.popleft()
                try:
                    run = self._start(job)
                except OSError as error:  # the zygote is dead, or something has run out
                    self._replace_zygote()
                    stderr = f"the program could not be started: {error}\n"
                    self._lose(job, ToolResult("killed", "", stderr, 0.0))
                    continue
                self._running.append(run)
            for descriptor in run.readable:
                self._selector.register(descriptor, selectors.EVENT_READ, run)

    def _start(self, job: Job) -> ProgramRun:
        if self._zygote is None:
            self._zygote = Zygote()
            self._selector.register(self._zygote.socket, selectors.EVENT_READ)
        self._num_started += 1
        work_dir = os.path.join(self._room.name, str(self._num_started))
        os.mkdir(work_dir, 0o700)
        limits = job.limits
        fence = Fence(work_dir, limits.memory_bytes, limits.file_bytes, cpu_ceiling_s(limits), self._without)
        try:
            pipes = self._zygote.start_program(job.code, fence)
        except OSError:
            remove_tree(work_dir)
            raise
        return ProgramRun(job, pipes, work_dir, self._zygote.pid)

    def _watch(self) -> None:
        deadline_s = min((run.deadline_s for run in self._running), default=None)
        timeout_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        for key, _ in self._selector.select(timeout_s):
            run: ProgramRun | None = key.data
            if run is not None:
                with self._lock:
                    run.read(key.fd)
                    if key.fd not in run.readable:
                        self._selector.unregister(key.fd)
            elif key.fd == self._wake_r:
                os.read(self._wake_r, 1 << 16)
            else:  # the zygote never speaks: it is dead
                self._replace_zygote()
        with self._lock:
            for run in self._running:
                if run.overdue:
                    self._enforce_clock(run)

    def _enforce_clock(self, run: ProgramRun) -> None:
        if not run.started and self._zygote is not None and run.zygote_pid == self._zygote.pid:
            self._replace_zygote()  # it is stuck
        status_fds = run.readable
        run.enforce_clock()
        for descriptor in status_fds - run.readable:
            self._selector.unregister(descriptor)

    def _replace_zygote(self) -> None:
        """End the zygote; running programs go on, and the next one to start gets a new zygote."""
        if self._zygote is not None:
            self._selector.unregister(self._zygote.socket)
            self._last_words = self._zygote.end()
            self._zygote = None

    def _finish_ended(self) -> None:
        for run in [run for run in self._running if run.ended]:
            self._finish(run)

    def _finish(self, run: ProgramRun) -> None:
        for descriptor in run.readable:
            self._selector.unregister(descriptor)
        result = run.result()
        run.release()
        remove_tree(run.work_dir)
        if run.lost and self._zygote is not None and self._zygote.pid == run.zygote_pid:
            self._replace_zygote()
        with self._lock:
            self._running.remove(run)
            if run.cancelled:
                return
            if run.lost:
                self._lose(run.job, result)
            elif run.job.run_id == _PROBE_ID and run.failed and (retreat := next_retreat(self._without)):
                self._without = retreat
                self._waiting.appendleft(run.job)
            else:
                self._settle(run.job.run_id, result)

    def _lose(self, job: Job, result: ToolResult) -> None:
        """Queue a program that never started once more, or report it with the zygote's last words."""
        if job.is_rerun:
            self._settle(job.run_id, replace(result, stderr=result.stderr + self._last_words))
        else:
            self._waiting.appendleft(replace(job, is_rerun=True))

    def _settle(self, run_id: str, result: ToolResult) -> None:
        if run_id == _PROBE_ID:
            self._probe = result
            self._probe_ready.set()
        else:
            self._done.append(CodeDone(run_id, result))

    def _shut_down(self) -> None:
        with self._lock:
            self._closing = True
            for run in self._running:
                run.end("killed")
        give_up_s = time.monotonic() + _CLOSE_PATIENCE_S
        while any(not run.ended for run in self._running) and time.monotonic() < give_up_s:
            for key, _ in self._selector.select(0.1):
                if key.data is not None:
                    key.data.read(key.fd)
                    if key.fd not in key.data.readable:
                        self._selector.unregister(key.fd)
        self._replace_zygote()
        for run in self._running:
            run.release()
            remove_tree(run.work_dir)
        self._running.clear()
        self._selector.close()
        with self._lock:
            os.close(self._wake_r)
            os.close(self._wake_w)
            self._wake_w = -1
        self._room.cleanup()


def _make_room() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="mathlete-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(
            f"the sandbox needs a temporary directory to run programs in: {error}; "
            "set TMPDIR to a directory that you may write to, on a disk with room"
        ) from error
