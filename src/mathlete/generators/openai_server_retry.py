"""What a failed request means: whether and when it is tried again, and how many may be under way meanwhile.

Pure: given statuses, headers and a clock's readings. Knows no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import Random

_FIRST_WAIT_S = 0.5
_OVERLOADED = (429, 503, 529)
_AGAIN = (408, 409, 425, 429)


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that came to nothing, or only half.

    Attributes:
        message: what happened, in the server's words or those of the connection.
        status: of HTTP; None where there was none, or it was 200 and the stream broke.
        retry_after_s: seconds after which the server wants to be asked again.
    """

    message: str
    status: int | None = None
    retry_after_s: float | None = None

    @property
    def is_transient(self) -> bool:
        """Whether it makes sense to try again."""
        return self.status is None or self.status in _AGAIN or self.status >= 500

    @property
    def is_overload(self) -> bool:
        """Whether the server has more to do than it can."""
        return self.status in _OVERLOADED

    @property
    def told(self) -> str:
        """What happened, for a person."""
        return self.message if self.status is None else f"HTTP {self.status}: {self.message}"


def advice(failure: Failure, model: str, api_key_env: str | None) -> str:
    """What a person can do about it; may be empty."""
    if failure.status in (401, 403):
        if api_key_env is None:
            return "it wants a key: put it in an environment variable, and name that in api_key_env"
        return f"look at the key in the environment variable {api_key_env}"
    if failure.status == 404:
        return f"look at base_url (most servers want /v1 at its end) and at the model's name, {model!r}"
    if failure.status == 429:
        return "it is asked too often: lower max_concurrency, or raise max_retries"
    if failure.status is None or failure.status >= 500:
        return "look at the server's own log, and whether it still runs"
    return ""


def retry_after(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds that `Retry-After` (RFC 9110, 10.2.3) asks for: a number, or a date. None when it cannot be read.

    Args:
        headers: with lower-case names.
        now_s: seconds since 1970.
    """
    told = headers.get("retry-after", "").strip()
    if told.replace(".", "", 1).isdecimal():
        return float(told[:12])
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def wait_before(num_tries: int, failure: Failure, max_wait_s: float, random: Random) -> float:
    """Seconds before the next try.

    At least what the server asks for; else twice as long each time, shortened by up to a half by chance, so that many
    clients do not come back together ("equal jitter", AWS Architecture Blog, "Exponential Backoff And Jitter").
    """
    grown = _FIRST_WAIT_S * 2.0 ** min(num_tries, 30)
    wait_s = min(grown, max_wait_s) * random.uniform(0.5, 1.0)
    return min(max(wait_s, failure.retry_after_s or 0.0), max_wait_s)


class Concurrency:
    """How many requests may be under way: halved when the server has too much to do, slowly raised again.

    Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP does: each answer adds 1/limit, so one
    whole round of answers adds one request.
    """

    def __init__(self, most: int) -> None:
        """At most `most`, from the start."""
        self._most = most
        self._limit = float(most)
        self._lowered_s = float("-inf")
        self.resumes_s = float("-inf")

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return int(self._limit)

    def on_overload(self, started_s: float, now_s: float, wait_s: float) -> bool:
        """A request was turned away; whether the limit was lowered.

        Requests sent before it was last lowered say nothing new. Nothing is started for `wait_s`.
        """
        self.resumes_s = max(self.resumes_s, now_s + wait_s)
        if started_s < self._lowered_s:
            return False
        self._lowered_s = now_s
        self._limit = max(1.0, self._limit / 2)
        return True

    def on_answer(self) -> None:
        """A request was answered well."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)
