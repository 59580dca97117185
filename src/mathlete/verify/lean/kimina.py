"""`KiminaClient`: a Kimina Lean Server over HTTP (github.com/project-numina/kimina-lean-server).

Speaks its current endpoint, POST /api/check, and the older POST /verify where that is missing. The server runs a
whole file at once: which message belongs to which command is told by its line. Knows HTTP and the server's answers;
what messages mean is found in `script.py`. The server is trusted to run Lean, and no further: answers are bounded, read
strictly, and never followed elsewhere.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.parse import urlsplit

from mathlete.core.errors import InputError
from mathlete.verify.lean.backend import LeanRun
from mathlete.verify.lean.script import CheckScript, read_reply, split_by_line

MAX_RESPONSE_BYTES = 8 << 20
_TRANSIENT = frozenset({429, 500, 502, 503, 504})
_ID = "mathlete"


@dataclass(frozen=True, slots=True)
class KiminaConfig:
    """Where the server is and how it is asked.

    Attributes:
        url: such as "http://localhost:8000".
        key: sent as bearer token; None for a server that asks for none.
        check_s: whole seconds that the server gives one check.
        waiting_s: seconds beyond them for a free REPL, its imports, and the network.
        num_tries: for each check, when the server is busy or out of reach.
        pause_s: before the second try; doubled for each further one.
    """

    url: str
    key: str | None = None
    check_s: int = 60
    waiting_s: float = 120.0
    num_tries: int = 3
    pause_s: float = 1.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that cannot be used."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"KiminaConfig.url must be a http(s) address, not {self.url!r}")
        for name in ("check_s", "waiting_s", "num_tries"):
            if not getattr(self, name) > 0:
                raise ValueError(f"KiminaConfig.{name} must be > 0")
        if self.pause_s < 0:
            raise ValueError("KiminaConfig.pause_s must be >= 0")


class _Unusable(Exception):
    """No answer from the server; `is_transient` says whether another try may help, `status` is HTTP's."""

    def __init__(self, detail: str, is_transient: bool, status: int | None = None) -> None:
        super().__init__(detail)
        self.is_transient = is_transient
        self.status = status


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: statements and the key go to the server that was named."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


class KiminaClient:
    """A `LeanBackend` over a server. Keeps no connection, so that threads need not share one."""

    def __init__(self, config: KiminaConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        """Set up without asking anything.

        Args:
            config: where and how.
            sleep: waits between tries, seconds.
        """
        self._config = config
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirects())

    def run(self, script: CheckScript) -> LeanRun:
        """Have the server run the script as one file."""
        text, lines = script.as_file()
        try:
            result = self._checked(text)
        except _Unusable as error:
            return LeanRun((), "unreachable", f"Kimina Lean Server at {self._config.url}: {error}")
        told = result.get("error")
        if told is not None:
            return LeanRun((), "timeout" if "timed out" in str(told) else "crash", f"Kimina Lean Server: {told}"[:500])
        response = result.get("response")
        try:
            reply = read_reply(response if isinstance(response, dict) else {"messages": None, "env": "none"})
        except InputError as failure:
            return LeanRun((), "crash", f"Kimina Lean Server: {failure}")
        return LeanRun(split_by_line(reply, lines))

    def is_alive(self) -> bool:
        """Whether the server answers at all."""
        request = urllib.request.Request(self._config.url.rstrip("/") + "/health", headers=self._headers())
        try:
            with self._opener.open(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, HTTPException):
            return False

    def close(self) -> None:
        """Nothing is kept open."""

    def _checked(self, text: str) -> Mapping[str, Any]:
        """The server's result for one file."""
        current = {"snippets": [{"id": _ID, "code": text}], "timeout": self._config.check_s, "reuse": True}
        try:
            answer = self._posted("/api/check", current)
        except _Unusable as error:
            if error.status != 404:
                raise
            older = {"codes": [{"custom_id": _ID, "proof": text}], "timeout": self._config.check_s}
            answer = self._posted("/verify", older)
        results = answer.get("results")
        if not isinstance(results, list) or len(results) != 1 or not isinstance(results[0], dict):
            raise _Unusable("its answer is not of the documented form", is_transient=False)
        result: Mapping[str, Any] = results[0]
        if _ID not in (result.get("id"), result.get("custom_id")):
            raise _Unusable("it answered for another check", is_transient=False)
        return result

    def _posted(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        pause = self._config.pause_s
        for left in reversed(range(self._config.num_tries)):
            try:
                return self._once(path, body)
            except _Unusable as error:
                if not error.is_transient or left == 0:
                    raise
            self._sleep(pause)
            pause *= 2
        raise AssertionError("num_tries is at least 1")

    def _once(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        url = self._config.url.rstrip("/") + path
        request = urllib.request.Request(url, json.dumps(body).encode(), self._headers(), method="POST")
        try:
            with self._opener.open(request, timeout=self._config.check_s + self._config.waiting_s) as answer:
                raw = answer.read(MAX_RESPONSE_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise _Unusable(f"HTTP {error.code} for {path}", error.code in _TRANSIENT, error.code) from error
        except (OSError, HTTPException) as error:
            raise _Unusable(f"{type(error).__name__}: {error}", is_transient=True) from error
        if len(raw) > MAX_RESPONSE_BYTES:
            raise _Unusable(f"its answer is longer than {MAX_RESPONSE_BYTES >> 20} MiB", is_transient=False)
        try:
            parsed = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _Unusable("its answer is no JSON", is_transient=False) from error
        if not isinstance(parsed, dict):
            raise _Unusable("its answer is no JSON object", is_transient=False)
        return parsed

    def _headers(self) -> dict[str, str]:
        key = {} if self._config.key is None else {"Authorization": f"Bearer {self._config.key}"}
        return {"Content-Type": "application/json", **key}
