"""One generator for several runs at once: each gets one of its own, and all their requests are computed together.

Knows whose request is whose, and that a generator is driven by one thread: that of `SharedGenerator`. It goes on while
a client looks away, so nothing can be taken back (`Generator.rewind`). Does not know what a run is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any, TypeVar

from mathlete.core.errors import EngineError
from mathlete.core.generation import Finished, GenerateRequest, GeneratorEvent, SamplingParams, Usage
from mathlete.core.protocols import Generator

_STEP_S = 0.02  # that the generator may wait for news, while somebody may have something for it to do
_BURST_S = 0.001  # wait for the next call after one: siblings are submitted one by one, and start in one step so
_IDLE_S = 0.5

Result = TypeVar("Result")


class SharedGenerator:
    """Drives a generator in a thread of its own for all clients.

    Attributes:
        failure: what the generator raised; from then on nothing works. None as long as it has not.
    """

    def __init__(self, generator: Generator) -> None:
        """Take over `generator`: only this thread calls it from now on."""
        self._generator = generator
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of who the clients are
        self._clients: dict[str, GeneratorClient] = {}
        self._num_clients = 0
        self._closing = False
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._pump, name="mathlete-generator", daemon=True)
        self._thread.start()

    def client(self) -> GeneratorClient:
        """A generator for one run, which its run closes."""
        with self._lock:
            self._num_clients += 1
            name = str(self._num_clients)
            client = self._clients[name] = GeneratorClient(self, name)
        return client

    def call(self, what: Callable[[], Result]) -> Result:
        """Do something between two steps of the generator, and give back what it gives or raises.

        Raises:
            EngineError: the generator has failed, or is closed.
        """
        future: Future[Result] = Future()
        self._calls.put((what, future))
        while not wait([future], _IDLE_S).done:
            if not self._thread.is_alive() and not future.done():  # it ended with the call in its queue
                raise self._ended()
        return future.result()

    def close(self) -> None:
        """End the thread and the generator. Safe to call twice."""
        if not self._closing:
            self._closing = True
            self._calls.put((lambda: None, Future()))
            self._thread.join()
            self._generator.close()

    def forget(self, name: str) -> None:
        """A client is closed: what its requests still tell is dropped."""
        with self._lock:
            self._clients.pop(name, None)

    @property
    def is_running(self) -> bool:
        """Whether it is neither closed nor has failed."""
        return self._thread.is_alive()

    @property
    def generator(self) -> Generator:
        """What is shared; to be called inside `call` only."""
        return self._generator

    def _pump(self) -> None:
        try:
            while not self._closing:
                self._take_calls()
                with self._lock:
                    busy = any(client.num_running for client in self._clients.values())
                if busy:
                    for event in self._generator.events(_STEP_S):
                        self._hand_out(event)
        except Exception as error:
            self.failure = str(error) or type(error).__name__
        with self._lock:
            for client in self._clients.values():
                client.wake()

    def _take_calls(self) -> None:
        """Do what clients ask for; waits for it when nothing runs."""
        with self._lock:
            is_idle = not any(client.num_running for client in self._clients.values())
        wait_s = _IDLE_S if is_idle else 0.0
        while True:
            try:
                what, future = self._calls.get(timeout=wait_s) if wait_s else self._calls.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(what())
            except Exception as error:  # it is the caller's
                future.set_exception(error)
            wait_s = _BURST_S

    def _hand_out(self, event: GeneratorEvent) -> None:
        name, _, request_id = event.request_id.partition("/")
        with self._lock:
            client = self._clients.get(name)
        if client is not None:
            client.take(replace(event, request_id=request_id))

    def _ended(self) -> EngineError:
        return EngineError(
            "the generator is closed" if self.failure is None else f"the generator has failed: {self.failure}"
        )


class GeneratorClient:
    """A `Generator` for one run. Its request ids and groups may be the same as those of another client.

    Attributes:
        usage: of all its requests that have ended: tokens given, found again, and written.
    """

    def __init__(self, shared: SharedGenerator, name: str) -> None:
        """Made by `SharedGenerator.client`."""
        self._shared = shared
        self._name = name
        self._news: queue.SimpleQueue[GeneratorEvent | None] = queue.SimpleQueue()
        self._running: set[str] = set()  # as the generator's thread knows it
        self._open: set[str] = set()  # until their end is told
        self.usage = Usage()

    @property
    def num_running(self) -> int:
        """Requests whose end has not been told of."""
        return len(self._running)

    def submit(self, request: GenerateRequest) -> None:
        """Queue a request. Raises `EngineError` when its prompt can never fit, or the generator has failed."""
        if request.request_id in self._open:
            raise EngineError(f"request id {request.request_id!r} is in use")
        named = replace(request, request_id=self._named(request.request_id), group=self._group(request.group))

        def submit() -> None:
            self._shared.generator.submit(named)
            self._running.add(request.request_id)

        try:
            self._shared.call(submit)
        except EngineError as error:
            raise EngineError(str(error).replace(named.request_id, request.request_id)) from error
        self._open.add(request.request_id)

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """What happened to this client's requests; waits at most about `timeout_s` for the first news.

        Raises:
            EngineError: the generator has failed.
        """
        if not self._open:
            return []
        found: list[GeneratorEvent] = []
        try:
            told = self._news.get(timeout=timeout_s)
            while True:
                if told is not None:
                    found.append(told)
                told = self._news.get_nowait()
        except queue.Empty:
            pass
        self._open -= {event.request_id for event in found if isinstance(event, Finished)}
        if not found and self._shared.failure is not None:
            raise EngineError(f"the generator has failed: {self._shared.failure}")
        return found

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request or all of a group; each gives a `Finished` with reason "abort"."""
        named = None if request_id is None else self._named(request_id)
        self._shared.call(lambda: self._shared.generator.abort(request_id=named, group=self._group(group)))

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Refused: the generator goes on while its clients look away, and may have ended what is to go back."""
        raise EngineError(
            f"request {request_id!r} cannot go back to {num_tokens} tokens: a generator that several runs share runs "
            "ahead of each of them"
        )

    def close(self) -> None:
        """End this client's requests; the generator goes on for the others. Safe to call twice."""
        self._shared.forget(self._name)
        if self._shared.is_running:
            for request_id in tuple(self._running):
                self.abort(request_id=request_id)
        self._running.clear()
        self._open.clear()
        self._news = queue.SimpleQueue()

    def take(self, event: GeneratorEvent) -> None:
        """News, from the generator's thread."""
        if isinstance(event, Finished):
            told = event.completion.usage
            self.usage = replace(
                self.usage,
                prompt=self.usage.prompt + told.prompt,
                cached=self.usage.cached + told.cached,
                output=self.usage.output + told.output + told.discarded,
            )
            self._running.discard(event.request_id)
        self._news.put(event)

    def wake(self) -> None:
        """Whoever waits for news looks again."""
        self._news.put(None)

    def _named(self, request_id: str) -> str:
        return f"{self._name}/{request_id}"

    def _group(self, group: str | None) -> str | None:
        return None if group is None else f"{self._name}/{group}"
