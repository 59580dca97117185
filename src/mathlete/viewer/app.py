"""The viewer as an ASGI application.

Knows HTTP, and that whoever asks may be a page of somebody else's in the same browser: it answers only to names of this
machine (DNS rebinding), only to GET and HEAD, gives no other origin leave to read anything, and its pages run no script
but their own. Does not know how pages are drawn. Nothing that is asked for changes anything.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mathlete.core.errors import InputError, MathleteError
from mathlete.local_server import is_this_machine, with_headers
from mathlete.viewer.index import Catalogue, comparison_page, index_page
from mathlete.viewer.pages import POLICY, Address, front_page, plain_page, problem_page
from mathlete.viewer.pushing import IndexReader, Push, Reader
from mathlete.viewer.watching import WatchedRun

POLL_S = 0.5
_STILL_HERE_S = 15.0  # a comment so often, so that a reader who went away is noticed
_MAX_SHARE = 0.3  # of a reader's time that may go into drawing for it
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Result = TypeVar("Result")


class Viewer:
    """Answers requests about the runs of a catalogue."""

    def __init__(self, catalogue: Catalogue, poll_s: float = POLL_S) -> None:
        """Serve `catalogue`, looking for news every `poll_s` seconds while somebody has a page open."""
        self._closing = False
        self._catalogue = catalogue
        self._poll_s = poll_s
        # One page is drawn at a time, so that memory is bounded by the largest.
        self._turn = anyio.CapacityLimiter(1)

    def close(self) -> None:
        """End what is being pushed, so that the server can stop."""
        self._closing = True

    def app(self) -> ASGIApp:
        """The application."""
        routes = [
            Route("/", self._index),
            Route("/events", self._index_events),
            Route("/compare", self._compare),
            Route("/runs/{key}", self._front),
            Route("/runs/{key}/problems/{number:int}", self._problem),
            Route("/runs/{key}/events", self._events),
        ]
        handlers: Mapping[type[Exception], Callable[[Request, Exception], Response]] = {MathleteError: _unreadable}
        return Guard(Starlette(routes=routes, exception_handlers=dict(handlers)))

    async def _index(self, request: Request) -> Response:
        if len(self._catalogue.named) == 1 and not self._catalogue.grows:
            return RedirectResponse(self._catalogue.address(self._catalogue.named[0].id).front)
        return HTMLResponse(await self._draw(lambda: index_page(self._catalogue)))

    async def _index_events(self, request: Request) -> Response:
        return StreamingResponse(self._push(IndexReader(self._catalogue)), media_type="text/event-stream")

    async def _compare(self, request: Request) -> Response:
        keys = request.query_params.getlist("run")
        return HTMLResponse(await self._draw(lambda: comparison_page(self._catalogue, keys)))

    async def _front(self, request: Request) -> Response:
        address, watched = await self._find(request)
        return HTMLResponse(await self._draw(lambda: front_page(address, watched.glance())))

    async def _problem(self, request: Request) -> Response:
        address, watched = await self._find(request)
        number = int(request.path_params["number"])

        def draw() -> str:
            snapshot = watched.glance()
            ids = list(snapshot.run.problems) if snapshot.run is not None else []
            if not 0 < number <= len(ids):
                raise InputError(f"the run {address.key} has no problem {number}")
            return problem_page(address, snapshot, number, watched.read_problem(ids[number - 1]))

        return HTMLResponse(await self._draw(draw))

    async def _events(self, request: Request) -> Response:
        address, watched = await self._find(request)
        asked = request.query_params
        try:
            seen = request.headers.get("last-event-id") or asked["seen"]
            epoch, place = map(int, seen.split("-"))
            number = int(asked["problem"]) if "problem" in asked else None
            if number is not None and number < 1:
                raise ValueError(f"there is no problem {number}")
        except (KeyError, ValueError):
            return PlainTextResponse("write ?seen=<epoch>-<place>, and &problem=<number> for a problem's page\n", 400)
        reader = Reader(address, watched, epoch, place, asked.get("shell", ""), number)
        return StreamingResponse(self._push(reader), media_type="text/event-stream")

    async def _push(self, reader: Reader | IndexReader) -> AsyncIterator[str]:
        """News for one reader, as server-sent events, until it goes away or the viewer does."""
        yield f"retry: {round(1000 * max(1.0, self._poll_s))}\n\n"
        told_s = time.monotonic()
        while not self._closing:
            begun_s = time.monotonic()
            try:
                push = await self._draw(reader.news)
            except MathleteError:
                push = None  # the store went away between two looks; the next look says so in words
            if push is not None:
                told_s = time.monotonic()
                yield _as_event(push)
                if push.parts is None:
                    return
            elif time.monotonic() - told_s > _STILL_HERE_S:
                told_s = time.monotonic()
                yield ": still here\n\n"
            drawn_s = time.monotonic() - begun_s
            await asyncio.sleep(max(self._poll_s, drawn_s / _MAX_SHARE))

    async def _find(self, request: Request) -> tuple[Address, WatchedRun]:
        key = request.path_params["key"]
        return self._catalogue.address(key), await self._draw(lambda: self._catalogue.find(key))

    async def _draw(self, draw: Callable[[], Result]) -> Result:
        """Reading and drawing, away from the event loop."""
        return await anyio.to_thread.run_sync(draw, limiter=self._turn)


class Guard:
    """Lets in only requests that a browser on this machine makes to this machine, and marks every answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSockets: the server closes what is not answered

        refusal = _refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, with_headers(send, _HEADERS))


def _refusal(scope: Scope) -> Response | None:
    if not is_this_machine(Headers(scope=scope).get("host", "")):
        return PlainTextResponse("this viewer answers only to 127.0.0.1 and localhost\n", 421)
    if scope["method"] not in ("GET", "HEAD"):
        return PlainTextResponse("only GET\n", 405, {"Allow": "GET, HEAD"})
    return None


def _as_event(push: Push) -> str:
    if push.parts is None:
        return f"event: again\nid: {push.place}\ndata: {{}}\n\n"
    # JSON has no line ends of its own, which would end the event.
    return f"event: parts\nid: {push.place}\ndata: {json.dumps(push.parts)}\n\n"


def _unreadable(request: Request, error: Exception) -> Response:
    return HTMLResponse(plain_page("This cannot be shown", str(error)), 404)
