"""Who may ask: this machine, or whoever has the key. Knows HTTP headers; does not know what is asked.

Without a key a server listens on this machine only, and still a page of somebody else's in a browser here may try to
reach it: so names of other machines in `Host` (DNS rebinding) and other pages' requests (`Origin`) are refused.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mathlete.local_server import is_this_machine, with_headers
from mathlete.serving.chat_answer import error_body
from mathlete.serving.chat_request import Refusal

OPEN_PATHS = frozenset({"/health"})  # for whoever watches over the server; tells nothing of problems
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class Guard:
    """Stands before an application: lets in who may ask, and tells others why not."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        """Let in whoever has `key`; without one, this machine."""
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSockets: the server closes what is not answered

        refusal = _refusal(scope["path"], Headers(scope=scope), self._key)
        answer = self._app
        if refusal is not None:
            told = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else None
            body = error_body(refusal.status, refusal.message, code=refusal.code)
            answer = JSONResponse(body, refusal.status, told)
        await answer(scope, receive, with_headers(send, _HEADERS))


def _refusal(path: str, headers: Headers, key: str | None) -> Refusal | None:
    if key is None and not is_this_machine(headers.get("host", "")):
        return Refusal(421, "without a key this server answers only to 127.0.0.1 and localhost", code="wrong_host")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return Refusal(403, "pages of other origins may not ask this server", code="wrong_origin")
    if key is not None and path not in OPEN_PATHS:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
            return Refusal(401, "this server wants its key: Authorization: Bearer KEY", code="invalid_api_key")
    return None
