"""Streams from a server, read in a thread of their own; their news are fetched from the driving thread.

Knows HTTP and keys of streams; does not know what is asked or answered. A stream's news are the data of its events,
then one `StreamEnd`. Nothing more is told of a stream that was cancelled.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mathlete.core.errors import EngineError
from mathlete.generators.openai_server_events import BrokenStream, EventLines
from mathlete.generators.openai_server_retry import Failure, retry_after
from mathlete.generators.openai_server_stream import error_text, parse_json, token_ids_in
from mathlete.generators.openai_server_turns import PromptPiece

try:
    import httpx as httpx
except ModuleNotFoundError as error:
    raise EngineError("a server is asked with httpx, which is not installed: pip install 'mathlete[server]'") from error

_CONNECT_S = 10.0
_MAX_ERROR_BYTES = 1 << 16
_LINGER_S = 1.0
_JOIN_S = 5.0
_MAX_KNOWN_IDS = 512


class StreamEnd(NamedTuple):
    """A stream is over; with a failure when it did not go well."""

    failure: Failure | None


class StreamNews(NamedTuple):
    """What happened to a stream: the data of an event, or its end."""

    key: int
    told: str | StreamEnd


class _Refused(Exception):
    """What a stream needs first was refused."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Streams:
    """Requests under way to one server. Its methods are for one thread."""

    def __init__(self, base_url: str, api_key: str | None, timeout_s: float) -> None:
        """Open nothing yet.

        Args:
            base_url: of the API.
            api_key: sent with each request, and cut out of whatever is told of errors.
            timeout_s: seconds without a byte after which a stream counts as broken.
        """
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._news: queue.SimpleQueue[StreamNews] = queue.SimpleQueue()
        self._tasks: dict[int, asyncio.Task[None]] = {}  # touched in the loop's thread only
        self._connected: set[int] = set()
        self._doomed: set[int] = set()
        self._live: set[int] = set()
        self._client: httpx.AsyncClient | None = None
        self._known_ids: dict[str, tuple[int, ...]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mathlete-server", daemon=True)
        self._thread.start()

    def start(self, key: int, path: str, body: Mapping[str, Any], prompt: Sequence[PromptPiece] = ()) -> None:
        """Send a request whose answer is a stream; `prompt` as in `openai_server_turns.Asked`."""
        self._live.add(key)
        self._loop.call_soon_threadsafe(self._start, key, path, body, prompt)

    def cancel(self, key: int) -> None:
        """Close a stream's connection, whereupon the server ends the request. Unknown keys are ignored."""
        if key in self._live:
            self._live.discard(key)
            self._loop.call_soon_threadsafe(self._cancel, key)

    def release(self, key: int) -> None:
        """A stream has said all it had to: nothing more is told of it, and it ends by itself."""
        self._live.discard(key)

    def take(self, timeout_s: float) -> list[StreamNews]:
        """What happened since the last call; waits for the first news at most so long."""
        found: list[StreamNews] = []
        end_s = time.monotonic() + timeout_s
        while True:
            wait_s = 0.0 if found else max(0.0, end_s - time.monotonic())
            try:
                news = self._news.get(timeout=wait_s) if wait_s else self._news.get_nowait()
            except queue.Empty:
                return found
            if news.key in self._live:
                found.append(news)
                if isinstance(news.told, StreamEnd):
                    self._live.discard(news.key)

    def close(self) -> None:
        """Close all connections and end the thread. Safe to call twice."""
        self._live.clear()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._client = httpx.AsyncClient(**client_options(self._base_url, self._api_key, self._timeout_s))
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._cancel_all())
            self._loop.run_until_complete(self._client.aclose())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    def _start(self, key: int, path: str, body: Mapping[str, Any], prompt: Sequence[PromptPiece]) -> None:
        task = self._loop.create_task(self._follow(key, path, body, prompt))
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._forget(key))

    def _forget(self, key: int) -> None:
        del self._tasks[key]
        self._connected.discard(key)
        self._doomed.discard(key)

    def _cancel(self, key: int) -> None:
        """End a stream; one that has no connection yet, as soon as it has: a half-made one would not be closed."""
        task = self._tasks.get(key)
        if task is not None and key in self._connected:
            task.cancel()
        elif task is not None:
            self._doomed.add(key)

    async def _cancel_all(self) -> None:
        for key in tuple(self._tasks):
            self._cancel(key)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_LINGER_S)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _tracer(self, key: int) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
        """Told by httpcore how far a request is."""
        task = asyncio.current_task()
        assert task is not None, "called by the stream's own task"

        async def trace(name: str, _: Mapping[str, Any]) -> None:
            if name.endswith(".send_request_headers.started"):
                self._connected.add(key)
                if key in self._doomed:
                    task.cancel()

        return trace

    async def _follow(self, key: int, path: str, body: Mapping[str, Any], prompt: Sequence[PromptPiece]) -> None:
        try:
            if prompt:
                ids = [await self._ids_of(key, piece, body["model"]) for piece in prompt]
                body = {**body, "prompt": [token_id for piece in ids for token_id in piece]}
            failure = await self._read(key, path, body)
        except _Refused as error:
            failure = error.failure
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            failure = Failure(connection_text(error, self._timeout_s))
        except BrokenStream as error:
            failure = Failure(str(error))
        except Exception as error:  # whatever it is, the request must not be waited for in vain
            failure = Failure(f"{type(error).__name__}: {error}")
        if failure is not None:
            failure = replace(failure, message=without_key(failure.message, self._api_key))
        self._news.put(StreamNews(key, StreamEnd(failure)))

    async def _ids_of(self, key: int, piece: PromptPiece, model: str) -> tuple[int, ...]:
        """The ids of a piece; siblings' chats are asked for once."""
        if isinstance(piece, tuple):
            return piece
        assert self._client is not None, "made before the loop runs"
        name = json.dumps(piece)
        if name not in self._known_ids:
            url = f"{self._base_url.removesuffix('/v1')}/tokenize"
            asked = {"model": model, **piece}
            answer = await self._client.post(url, json=asked, extensions={"trace": self._tracer(key)})
            self._connected.discard(key)
            if answer.status_code != 200:
                raise _Refused(failure_of(answer.status_code, answer.headers, answer.content[:_MAX_ERROR_BYTES]))
            self._known_ids[name] = token_ids_in(answer.text)
            if len(self._known_ids) > _MAX_KNOWN_IDS:
                del self._known_ids[next(iter(self._known_ids))]
        return self._known_ids[name]

    async def _read(self, key: int, path: str, body: Mapping[str, Any]) -> Failure | None:
        assert self._client is not None, "made before the loop runs"
        traced = {"trace": self._tracer(key)}
        async with self._client.stream("POST", self._base_url + path, json=dict(body), extensions=traced) as response:
            if response.status_code != 200:
                told = bytearray()
                async for piece in response.aiter_bytes():
                    told += piece
                    if len(told) > _MAX_ERROR_BYTES:
                        break
                return failure_of(response.status_code, response.headers, bytes(told))
            lines = EventLines()
            async for piece in response.aiter_bytes():
                for data in lines.feed(piece):
                    self._news.put(StreamNews(key, data))
            for data in lines.finish():
                self._news.put(StreamNews(key, data))
        return None


def client_options(base_url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """How connections are made.

    No redirects, which could carry the key elsewhere; no proxy to this machine. A connection is used once: those that
    idle would be closed by whatever request comes next, and one that is cancelled meanwhile leaves them open.
    """
    headers = {"Accept": "text/event-stream, application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return {
        "headers": headers,
        "timeout": httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s), pool=None),
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=0),
        "follow_redirects": False,
        "trust_env": urlsplit(base_url).hostname not in ("127.0.0.1", "localhost", "::1"),
    }


def failure_of(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """What an answer other than 200 means."""
    text = body.decode("utf-8", errors="replace")
    try:
        message = error_text(parse_json(text))
    except BrokenStream:
        message = error_text(text)
    return Failure(message or "it says no more", status, retry_after(headers, time.time()))


def without_key(text: str, api_key: str | None) -> str:
    """A text in which the key, which some servers repeat, is not readable."""
    return text if not api_key else text.replace(api_key, "***")


def connection_text(error: Exception, timeout_s: float) -> str:
    """What went wrong with a connection, for a person."""
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return f"no connection ({error or type(error).__name__})"
    if isinstance(error, httpx.TimeoutException):
        return f"not a byte for {timeout_s:g} s"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
        return f"the connection broke off ({error or type(error).__name__})"
    return f"{type(error).__name__}: {error}"
