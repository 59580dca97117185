"""The processes of ranks 1 and up, as rank 0 sees them: starts them, hands them work, notices when one is gone.

Whatever goes wrong with a worker becomes one `EngineError` that names it, and the end of all of them: a model with a
part missing cannot go on. Knows nothing of models or requests.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait

import torch

from mathlete.core.errors import EngineError
from mathlete.ryanstream.parallel.collectives import CollectiveFailed, RankGroup, Rendezvous, connect
from mathlete.ryanstream.parallel.messages import Assignment, CacheSize, Failed, Loaded, Started
from mathlete.ryanstream.parallel.sharding import Shard
from mathlete.ryanstream.parallel.worker_process import WorkerProcess

# A step of a large model on a slow machine, its weights not yet read from the disk, takes tens of seconds.
ANSWER_TIMEOUT_S = 60.0

# Between a lost connection and the end of the process that had it.
_OBITUARY_S = 3.0


class Workers:
    """Ranks 1 and up of a tensor-parallel group."""

    def __init__(
        self,
        devices: Sequence[torch.device],
        tasks: Sequence[object],
        timeout_s: float = ANSWER_TIMEOUT_S,
        in_order: bool = False,
    ) -> None:
        """Start the processes of ranks 1, 2, ... and connect with them; they then load their tasks.

        Args:
            devices: of all ranks, rank 0's first.
            tasks: what ranks 1, 2, ... load.
            timeout_s: seconds without an answer after which a living worker counts as lost.
            in_order: sums do not depend on what else is in the batch, see `RankGroup`.

        Raises:
            EngineError: when a process ends before it is connected.
        """
        self._timeout_s = timeout_s
        self._failure: str | None = None
        self._ended: list[WorkerProcess] = []
        self._noticed = threading.Event()
        self._closing = False
        self._processes: list[WorkerProcess] = []
        self._group: RankGroup | None = None
        self._watcher = threading.Thread(target=self._watch, name="tensor-parallel watcher", daemon=True)
        rendezvous = Rendezvous(timeout_s)
        try:
            for rank in range(1, len(devices)):
                self._processes.append(WorkerProcess(Shard(rank, len(devices)), timeout_s))
            self._watcher.start()
            for process, device, task in zip(self._processes, devices[1:], tasks, strict=True):
                self._tell(process, Assignment(process.shard, device, rendezvous.port, timeout_s, in_order, task))
            for process in self._processes:
                self._hear(process, Started, "starting")
            self._group = connect(rendezvous.store, Shard(0, len(devices)), devices[0], timeout_s, in_order)
        except CollectiveFailed as error:
            raise self._fail("starting", error) from error
        except BaseException:
            self.close()
            raise

    @property
    def group(self) -> RankGroup:
        """Rank 0's place in the group."""
        assert self._group is not None
        return self._group

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of ranks 1, 2, ..."""
        return tuple(process.pid for process in self._processes)

    def wait_until_loaded(self, num_blocks: int) -> None:
        """Return when every rank is ready, as long as it takes, with a KV cache of `num_blocks` blocks.

        Raises:
            EngineError: when a worker could not load its part; the text is the worker's.
        """
        for process in self._processes:
            self._hear(process, Loaded, "loading its part of the model")
        with self.work([CacheSize(num_blocks)] * len(self._processes)):
            pass

    @contextmanager
    def work(self, messages: Sequence[object]) -> Iterator[None]:
        """Hand each rank its message; the body does rank 0's part of the same work.

        Raises:
            EngineError: when a worker is lost, within seconds of its end, and ever after.
        """
        if self._failure is not None:
            raise EngineError(self._failure)
        try:
            for process, message in zip(self._processes, messages, strict=True):
                self._tell(process, message)
            yield
        except CollectiveFailed as error:
            raise self._fail("computing a step", error) from error
        except BaseException as error:  # the workers are in the middle of work that rank 0 has left
            if self._failure is None:
                self._failure = f"a step of the tensor-parallel model was broken off ({error!r}); load the model again"
                self.close()
            raise
        if self._noticed.is_set():  # on a GPU an aborted sum gives no error but garbage
            raise self._fail("computing a step", None)

    def answers(self, expected: type) -> list[object]:
        """What each rank answers to the work it was last handed. Raises `EngineError` when one is lost."""
        answers = []
        for process in self._processes:
            if not process.has_spoken(self._timeout_s):
                raise self._fail("answering", None)
            answers.append(self._hear(process, expected, "answering"))
        return answers

    def close(self) -> None:
        """End all workers. Safe to call twice."""
        if self._failure is None:
            self._failure = "the engine is closed"
        self._closing = True
        for process in self._processes:
            process.hang_up()
        for process in self._processes:
            process.end()
        if self._watcher.is_alive():
            self._watcher.join()
        for process in self._processes:
            process.lifeline.close()

    def _tell(self, process: WorkerProcess, message: object) -> None:
        try:
            process.send(message)
        except OSError as error:
            raise CollectiveFailed(f"{process.name} cannot be reached: {error}") from error

    def _hear(self, process: WorkerProcess, expected: type, doing: str) -> object:
        try:
            message = process.receive()
        except (EOFError, OSError) as error:
            raise self._fail(doing, error) from error
        if isinstance(message, Failed):
            self._failure = f"{process.name} of the tensor-parallel model failed while {doing}: {message.text}"
            self.close()
            raise EngineError(self._failure)
        assert isinstance(message, expected), f"{process.name} said {message} instead of {expected.__name__}"
        return message

    def _watch(self) -> None:
        """Sleep until a worker ends. The others would wait for it without end, so they are ended as well."""
        lifelines = {process.lifeline: process for process in self._processes}
        gone = [lifelines[line] for line in wait(list(lifelines)) if isinstance(line, socket.socket)]
        if self._closing:
            return
        for process in gone:
            process.reap()
        self._ended = gone
        for process in self._processes:
            process.kill()
        if self._group is not None:
            self._group.abort()
        self._noticed.set()

    def _fail(self, doing: str, error: Exception | None) -> EngineError:
        """Say what happened, once, and end what is left."""
        if self._failure is None:
            self._noticed.wait(min(_OBITUARY_S, self._timeout_s))
            self._failure = self._what_happened(doing, error)
            for process in self._processes:
                process.kill()  # one that does not answer would not hear of the end either
            self.close()
        return EngineError(self._failure)

    def _what_happened(self, doing: str, error: Exception | None) -> str:
        for process in self._ended:
            text = process.last_words()
            if text is not None:
                return f"{process.name} of the tensor-parallel model failed while {doing}: {text}"
        if self._ended:  # of several that ended together, one that was killed is the cause
            cause = min(self._ended, key=lambda process: process.reap())
            return (
                f"{cause.name} of the tensor-parallel model {cause.way_of_ending()} while {doing}; "
                "its part of the model is gone, so the engine has stopped. Load the model again."
            )
        names = ", ".join(process.name for process in self._processes)
        return (
            f"the tensor-parallel model got no answer within {self._timeout_s:g} s while {doing} ({error}): {names} "
            "may be stopped or starved of processor time. They have been ended; load the model again."
        )
