"""Any OpenAI-compatible server as a `Generator`: vLLM, SGLang, llama.cpp, hosted ones. `connect` makes one.

Knows requests and what becomes of them: who waits, who is under way, what is tried again and what goes on where it was
broken off. One thread drives it; the connections live in `openai_server_transport`, what a server takes and tells in
`openai_server_dialects`, how turns are written in `openai_server_turns`.

A request may take several *streams*: one that breaks off goes on behind what has come, as a turn that has begun, where
the server can; else it begins again, and what had come is told as taken back (`Rewound`, "broken").
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from random import Random

from mathlete.core.errors import EngineError
from mathlete.core.generation import (
    Finished,
    FinishReason,
    GenerateRequest,
    GeneratorEvent,
    Rewound,
    SamplingParams,
    TokenChunk,
)
from mathlete.core.protocols import Clock
from mathlete.generators.openai_server_connect import KnownServer, explore
from mathlete.generators.openai_server_dialects import refuse_what_it_cannot, sampling_fields
from mathlete.generators.openai_server_events import BrokenStream
from mathlete.generators.openai_server_exact import ExactTurns
from mathlete.generators.openai_server_formats import LoadFormat, capabilities_with, no_harmony
from mathlete.generators.openai_server_queue import RequestQueue, RunningRequest
from mathlete.generators.openai_server_retry import Failure, advice, wait_before
from mathlete.generators.openai_server_stream import DONE, Delta, read_delta
from mathlete.generators.openai_server_transport import StreamEnd, Streams
from mathlete.generators.server_settings import ServerSettings
from mathlete.generators.turn_formats import Read

__all__ = ["ServerGenerator", "connect"]

_MAX_CHARS_A_TOKEN = 512  # beyond which a server does not keep to `max_tokens`
_SPARE_CHARS = 1 << 16


def connect(model: str, settings: ServerSettings, load_harmony: LoadFormat = no_harmony) -> ServerGenerator:
    """Get to know a server and be ready for requests.

    Args:
        model: as the server calls it.
        settings: where it is.
        load_harmony: loads gpt-oss's turn format, where that is used.

    Raises:
        EngineError: it cannot be reached, wants another key, or has no such model.
        ModelError: it has a gpt-oss model, and there is no vocabulary for it here.
    """
    return ServerGenerator(explore(model, settings, load_harmony), settings)


class ServerGenerator:
    """Drives one server from one thread.

    Attributes:
        description: for the trace.
        warnings: what a person should know from the start.
        turn_start: what an assistant's turn begins with before the model writes; servers put that in themselves.
        capabilities: what it does.
    """

    turn_start = ""

    def __init__(
        self, server: KnownServer, settings: ServerSettings, clock: Clock = time.monotonic, random: Random | None = None
    ) -> None:
        """Ask nothing yet.

        Args:
            server: as it was found.
            settings: how it is treated.
            clock: tries and pauses go by it.
            random: shortens waits by chance.
        """
        self._server = server
        self._settings = settings
        self._clock = clock
        self._random = random or Random()
        self._url = settings.base_url.rstrip("/")
        self._streams = Streams(settings.base_url, server.api_key, settings.timeout_s)
        self._turns = server.turns
        self._queue = RequestQueue(min(settings.max_concurrency, server.num_slots or settings.max_concurrency))
        self._events: list[GeneratorEvent] = []
        self._new_warnings: dict[str, None] = {}
        self._is_closed = False
        self.warnings = server.warnings
        self.capabilities = capabilities_with(server.turn_format, server.dialect.capabilities)
        context = "" if server.context is None else f", {server.context} tokens"
        self.description = f"openai_server {server.model} at {self._url} ({server.dialect.name}{context})"

    def submit(self, request: GenerateRequest) -> None:
        """Queue a request. Raises `EngineError` for an id in use, and for what the server cannot do."""
        if self._is_closed:
            raise EngineError(f"request {request.request_id!r} comes too late: the connection to {self._url} is closed")
        is_ending = any(event.request_id == request.request_id for event in self._events)
        if self._queue.of(request.request_id) is not None or is_ending:
            raise EngineError(f"request id {request.request_id!r} is in use")
        refuse_what_it_cannot(request, self._server.dialect, self.capabilities)
        self._queue.add(request)
        self._start_some()

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """What happened; waits at most so long for it, where something is under way."""
        self._start_some()
        if len(self._queue):
            wait_s = 0.0 if self._events else self._queue.wait_s(self._clock(), timeout_s)
            for news in self._streams.take(wait_s):
                running = self._queue.with_stream(news.key)
                if running is not None:  # else its answer is cut, or it was given up, by news before this
                    self._take(running, news.told)
            self._start_some()
        events, self._events = self._events, []
        return events

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request or all of a group; each gives a `Finished` with reason "abort"."""
        for running in self._queue.matching(request_id, group):
            self._finish(running, "abort")

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Take a running request back to the end of one of its chunks; see `Generator.rewind`.

        Raises:
            EngineError: as there, where the server cannot go on with a turn that has begun, and between two chunks.
        """
        running = self._queue.of(request_id)
        if not self.capabilities.rewinding:
            raise EngineError(f"request {request_id!r} cannot go back: the server goes on with no turn that has begun")
        if running is None or not 0 <= num_tokens <= running.output.num_tokens:
            num = "none that runs" if running is None else f"only {running.output.num_tokens} tokens"
            raise EngineError(f"request {request_id!r} cannot go back to {num_tokens} tokens: there is {num}")
        if sampling.stop != running.request.sampling.stop or sampling.max_tokens <= num_tokens:
            raise EngineError(f"request {request_id!r} must keep its stop strings and have tokens left to draw")
        text = running.output.keep(num_tokens)
        if text is None:
            raise EngineError(f"request {request_id!r} cannot go back to {num_tokens} tokens: no chunk ended there")
        self._end_stream(running)
        running.request = replace(running.request, sampling=sampling)
        running.begin_from(text)
        self._start_some()

    def take_warnings(self) -> tuple[str, ...]:
        """What a person should know of what happened since the last call."""
        found, self._new_warnings = tuple(self._new_warnings), {}
        return found

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        self._is_closed = True
        self._queue.clear()
        self._events.clear()
        self._streams.close()

    def _start_some(self) -> None:
        """Send what may be under way."""
        while (running := self._queue.start_next(self._clock())) is not None:
            self._start(running)

    def _start(self, running: RunningRequest) -> None:
        request, output = running.request, running.output
        written = output.written if output.num_tokens else None
        asked = self._turns.ask(request, written)
        left = request.sampling.max_tokens - output.num_tokens
        if left < 1:  # it broke off between the last token and the word that it was the last
            self._finish(running, "length")
            return
        is_chat = asked.path.startswith("/chat")
        dialect = self._server.dialect
        body = {
            "model": self._server.model,
            **sampling_fields(dialect, request.sampling, self._settings, left, is_chat=is_chat),
            **{name: value for name, value in asked.fields.items() if name not in dialect.left_out},
        }
        if self._settings.priority_scheduling:
            body["priority"] = request.priority
        output.begin_stream()
        running.reader = self._turns.reader(request, written)
        assert running.key is not None, "given by the queue"
        self._streams.start(running.key, asked.path, body, asked.prompt)

    def _end_stream(self, running: RunningRequest) -> None:
        """Close its connection, whatever it still says."""
        key = self._queue.end_stream(running)
        if key is not None:
            self._streams.cancel(key)

    def _take(self, running: RunningRequest, told: str | StreamEnd) -> None:
        if isinstance(told, StreamEnd):
            self._on_end(running, told.failure)
        elif told == DONE:
            if running.key is not None:
                self._streams.release(running.key)
            self._on_end(running, None)
        else:
            try:
                self._on_delta(running, read_delta(told))
            except BrokenStream as error:
                self._failed(running, Failure(str(error)))

    def _on_delta(self, running: RunningRequest, delta: Delta) -> None:
        sampling = running.request.sampling
        assert running.reader is not None, "made when its stream began"
        read = running.reader.take(delta) if running.stop is None else Read()
        if self._turns.looks_for_stops:
            self._on_read(running, read, delta)
            return
        text = read.text
        if running.match is not None:
            text = ""
        if delta.finish_reason is not None:
            running.ended = _reason(delta.finish_reason)
            if running.match is None and delta.stop in sampling.stop and running.ended == "stop":
                text += delta.stop or ""  # a server that was told to keep it, and did not
        num_tokens = running.output.add(text, delta)
        running.num_chars += len(text)
        if self._is_too_long(running):
            return
        if running.match is None:
            running.match = running.matcher.push(text.encode())
            if running.match is not None and not self._server.dialect.ends_at_stops:
                self._answered(running, "stop")
                return
            if running.match is None and (text or num_tokens):
                self._events.append(TokenChunk(running.request.request_id, text, num_tokens))

    def _is_too_long(self, running: RunningRequest) -> bool:
        """Whether the server has written far more than it may; the request is given up then."""
        max_tokens = running.request.sampling.max_tokens
        if running.num_chars <= _SPARE_CHARS + _MAX_CHARS_A_TOKEN * max_tokens:
            return False
        self._finish(running, "error", f"{self._url}: it wrote far more than {max_tokens} tokens")
        return True

    def _on_read(self, running: RunningRequest, read: Read, delta: Delta) -> None:
        """The turn's reader knows where it ends, and what is put in."""
        request = running.request
        num_tokens = running.output.add(read.text, delta.without_last(read.num_beyond))
        running.num_chars += len(read.text) + sum(len(part.arguments) for part in delta.tool_calls)
        if self._is_too_long(running):
            return
        if read.ended:
            running.stop = read.stop or ""
        if delta.finish_reason is not None:
            running.ended = _reason(delta.finish_reason)
        elif read.ended:
            self._answered(running, "stop")
            return
        if read.forced and running.output.num_tokens + len(read.forced) >= request.sampling.max_tokens:
            self._answered(running, "length")
            return
        if read.forced:
            self._end_stream(running)
            running.output.put_in(read.forced)
            running.ended, num_tokens = None, num_tokens + len(read.forced)
        if read.text or num_tokens:
            self._events.append(TokenChunk(request.request_id, read.text, num_tokens))

    def _on_end(self, running: RunningRequest, failure: Failure | None) -> None:
        if failure is not None:
            self._failed(running, failure)
        elif running.ended is None:
            self._failed(running, Failure("the stream ended half-way"))
        elif running.ended == "error":
            self._failed(running, Failure("the server gave the answer up"))
        else:
            if self._turns.looks_for_stops and running.stop is None and running.reader is not None:
                read = running.reader.finish(was_cut=running.ended != "stop")
                running.output.add(read.text, Delta())
                running.stop = (read.stop or "") if read.ended else None
            has_stopped = running.match is not None or running.stop is not None
            self._answered(running, "stop" if has_stopped else running.ended)

    def _answered(self, running: RunningRequest, reason: FinishReason) -> None:
        self._queue.concurrency.on_answer()
        self._finish(running, reason)

    def _failed(self, running: RunningRequest, failure: Failure) -> None:
        """Try again, or give up."""
        self._end_stream(running)
        now_s = self._clock()
        running.ended, running.num_tries = None, running.num_tries + 1
        if not failure.is_transient or running.num_tries > self._settings.max_retries:
            self._finish(running, "error", self._told(running, failure))
            return
        wait_s = wait_before(running.num_tries - 1, failure, self._settings.max_retry_wait_s, self._random)
        running.due_s = now_s + wait_s
        if failure.is_overload:
            pause_s = min(failure.retry_after_s or 0.0, self._settings.max_retry_wait_s)
            if self._queue.concurrency.on_overload(running.started_s, now_s, pause_s):
                self._warn(f"{self._url} has too much to do ({failure.told}): fewer requests are under way at once")
        else:
            self._warn(f"{self._url}: {failure.told}; tried again")
        if running.match is not None or running.stop is not None:  # what was asked for is there
            self._finish(running, "stop")
        elif not self.capabilities.continuation and running.output.num_tokens:
            self._begin_again(running, failure)
        elif not self._turns.looks_for_stops:
            running.output.drop_unfinished()

    def _begin_again(self, running: RunningRequest, failure: Failure) -> None:
        """What has come cannot be gone on with: it is taken back, and told so."""
        text, num = running.output.text, running.output.num_tokens
        running.output.keep(0)
        running.begin_from("")
        self._events.append(Rewound(running.request.request_id, 0, num, "broken", failure.told, text))

    def _told(self, running: RunningRequest, failure: Failure) -> str:
        tries = f" after {running.num_tries} tries" if running.num_tries > 1 else ""
        what_to_do = advice(failure, self._server.model, self._settings.api_key_env)
        return f"{self._url}: {failure.told}{tries}" + (f"; {what_to_do}" if what_to_do else "")

    def _warn(self, message: str) -> None:
        self._new_warnings.setdefault(message)

    def _finish(self, running: RunningRequest, reason: FinishReason, error: str | None = None) -> None:
        self._end_stream(running)
        request, match = running.request, running.match if reason == "stop" else None
        self._queue.remove(running)
        if reason in ("stop", "length"):
            running.output.settle()
        text = running.output.text
        if match is not None:
            text = text.encode()[: match.end if request.sampling.include_stop else match.start].decode()
        stop = (running.stop or None) if match is None else match.stop
        completion = running.output.completion(reason, request.sampling, text=text, stop=stop, error=error)
        if isinstance(self._turns, ExactTurns):
            self._turns.remember(completion, running.output.covered(completion.text, reason))
        self._events.append(Finished(request.request_id, completion))


def _reason(told: str) -> FinishReason:
    """A server's word in ours; "error" for an answer that it withheld or gave up."""
    if told in ("stop", "tool_calls", "function_call"):
        return "stop"
    return "length" if told == "length" else "error"
