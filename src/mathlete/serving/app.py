"""OpenAI's chat protocol over HTTP: `/v1/models`, `/v1/chat/completions`, `/health`.

Knows HTTP, server-sent events and when a client goes away. Does not know how a problem is worked on.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mathlete.core.errors import EngineError
from mathlete.serving.access import Guard
from mathlete.serving.chat_answer import Answered, Envelope, answer_text, error_body
from mathlete.serving.chat_request import Asked, Ceilings, Refusal, read_request
from mathlete.serving.desk import RETRY_AFTER_S, Desk, Work
from mathlete.serving.telling import Glimpse, news

_LOOK_S = 0.1
_STILL_HERE_S = 10.0  # a comment so often, so that a reader who went away is noticed, and one that waits keeps waiting
_END = b"data: [DONE]\n\n"


class ChatServer:
    """Answers requests by a desk."""

    def __init__(self, desk: Desk, model: str, ceilings: Ceilings, key: str | None = None) -> None:
        """Serve `desk` as the model of this name, to whoever has `key`."""
        self._desk = desk
        self._model = model
        self._ceilings = ceilings
        self._key = key
        self._created = int(time.time())

    def app(self) -> ASGIApp:
        """The application."""
        routes = [
            Route("/health", self._health),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model_named),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
        ]
        starlette = Starlette(routes=routes, exception_handlers={Refusal: _refused, HTTPException: _not_found})
        return Guard(starlette, self._key)

    async def _health(self, request: Request) -> Response:
        trouble = self._desk.trouble()
        told = {"status": trouble or "ok", "running": self._desk.num_running, "waiting": self._desk.num_in_queue}
        return JSONResponse(told, 200 if trouble is None else 503)

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._about()]})

    async def _model_named(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != self._model:
            raise Refusal(404, f"the model {name!r:.80} does not exist; there is {self._model!r}", "model")
        return JSONResponse(self._about())

    def _about(self) -> dict[str, Any]:
        return {"id": self._model, "object": "model", "created": self._created, "owned_by": "mathlete"}

    async def _complete(self, request: Request) -> Response:
        body = await _read_json(request, self._ceilings.body_bytes)
        asked = read_request(body, self._model, self._ceilings)
        envelope = Envelope(f"chatcmpl-{secrets.token_hex(8)}", int(time.time()), self._model)
        work = self._desk.hand_in(envelope.id, asked)
        if asked.stream:
            return _Stream(_pieces(work, envelope, asked), lambda: self._desk.stop(work), work)
        return await self._whole(request, work, envelope)

    async def _whole(self, request: Request, work: Work, envelope: Envelope) -> Response:
        """The answer at once; a client that goes away meanwhile ends the work."""
        told: list[str] = []
        before: Glimpse | None = None
        try:
            while not work.done.done():
                if await request.is_disconnected():
                    return Response(status_code=499)  # nobody reads it
                now = work.glimpse()
                if (text := news(before, now)) is not None:
                    told.append(text)
                    before = now
                await asyncio.sleep(_LOOK_S)
        finally:
            if not work.done.done():
                self._desk.stop(work)
        answered = _result(work)
        if (text := news(before, work.glimpse())) is not None:  # what happened between the last look and the end
            told.append(text)
        return JSONResponse(envelope.completion(answered, "".join(told)))


class _Stream(StreamingResponse):
    """Server-sent events; however they end, nobody waits for the problem any more."""

    def __init__(self, pieces: AsyncIterator[bytes], stop: Callable[[], None], work: Work) -> None:
        super().__init__(pieces, media_type="text/event-stream")
        self._stop = stop
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:  # here, since pieces that were never asked for cannot clean up after themselves
            if not self._work.done.done():
                self._stop()


async def _pieces(work: Work, envelope: Envelope, asked: Asked) -> AsyncIterator[bytes]:
    """Progress as reasoning, then the answer, as server-sent events."""
    before: Glimpse | None = None
    told_s = time.monotonic()
    yield _event(envelope.chunk({"role": "assistant", "content": ""}))
    while not work.done.done():
        now = work.glimpse()
        if (text := news(before, now)) is not None:
            before, told_s = now, time.monotonic()
            yield _event(envelope.chunk({"reasoning_content": text}))
        elif time.monotonic() - told_s > _STILL_HERE_S:
            told_s = time.monotonic()
            yield b": still here\n\n"
        await asyncio.sleep(_LOOK_S)
    if (text := news(before, work.glimpse())) is not None:  # what happened between the last look and the end
        yield _event(envelope.chunk({"reasoning_content": text}))
    for part in _ending(work, envelope, asked):
        yield _event(part)
    yield _END


def _ending(work: Work, envelope: Envelope, asked: Asked) -> list[dict[str, Any]]:
    try:
        answered = _result(work)
    except Refusal as refusal:
        return [error_body(refusal.status, refusal.message, code=refusal.code)]
    parts = [envelope.chunk({"content": answer_text(answered)}), envelope.chunk({}, answered)]
    return [*parts, envelope.usage_chunk(answered.tokens)] if asked.include_usage else parts


def _result(work: Work) -> Answered:
    """What became of it. Raises `Refusal` when that is no answer."""
    if work.done.cancelled():
        raise Refusal(499, "given up before it began")
    error = work.done.exception()
    if error is not None:
        status = 503 if isinstance(error, EngineError) else 500
        raise Refusal(status, f"the problem could not be worked on: {error}", code="run_failed") from error
    return work.done.result()


async def _read_json(request: Request, max_bytes: int) -> Any:
    """The body, decoded. Raises `Refusal`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "the body must be application/json")  # what another page's form can send is not
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise Refusal(413, f"the body has more than {max_bytes:,} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error


def _event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()  # JSON has no line ends of its own, which would end the event


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if error.status == 429 else None
    return JSONResponse(error_body(error.status, error.message, error.param, error.code), error.status, headers)


def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(error_body(error.status_code, words), error.status_code, error.headers)
