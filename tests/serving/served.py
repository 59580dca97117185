"""What tests of the server share: where it is, and how it is asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mathlete.serving.desk import Desk


@dataclass
class Served:
    """A server that runs.

    Attributes:
        url: base URL, with /v1.
        desk: its desk.
        told: lines that it told.
        runs_dir: where its runs are.
        end: ends it in order; safe to call twice.
    """

    url: str
    desk: Desk
    told: list[str]
    runs_dir: Path
    end: Callable[[], None]

    def post(self, body: Any, **headers: str) -> httpx.Response:
        """Ask `/chat/completions`."""
        return httpx.post(f"{self.url}/chat/completions", json=body, headers=headers, timeout=60, trust_env=False)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Get what is below the base URL, or `/health`."""
        base = self.url.removesuffix("/v1") if path == "/health" else self.url
        return httpx.get(base + path, headers=headers, timeout=60, trust_env=False)

    def wait_for(self, what: Callable[[], bool], within_s: float = 20.0) -> None:
        """Until it is so."""
        end_s = time.monotonic() + within_s
        while not what():
            assert time.monotonic() < end_s, f"it did not come to that within {within_s} s; told: {self.told}"
            time.sleep(0.02)


Serve = Callable[..., Served]


def question(text: str = "What is 6 times 7?", **fields: Any) -> dict[str, Any]:
    """A request's body."""
    return {"model": "mathlete", "messages": [{"role": "user", "content": text}], **fields}
