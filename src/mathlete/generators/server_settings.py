"""The options of an OpenAI-compatible server, as seen by its client. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a server is and how it is treated.

    Attributes:
        base_url: of the API, such as "http://127.0.0.1:8000/v1".
        api_key_env: name of the environment variable that holds the key; None for a server that wants none. A key
            itself never stands in a recipe or a trace.
        max_concurrency: requests under way at once; more wait here (back-pressure).
        max_retries: times a request is tried again after 408, 409, 429, 5xx, or a connection that failed or broke off.
        timeout_s: seconds without a byte before a request counts as broken off.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str | None = None
    max_concurrency: int = 32
    max_retries: int = 5
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"base_url must be like http://127.0.0.1:8000/v1, not {self.base_url!r}")
        if self.max_concurrency < 1:
            raise ValueError(f"max_concurrency must be >= 1, not {self.max_concurrency}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be >= 0, not {self.max_retries}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be > 0, not {self.timeout_s}")
