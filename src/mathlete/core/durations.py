"""How people write a length of time, and how they are told one; errors name no flag or key, their callers do."""

from __future__ import annotations

import math
import re

from mathlete.core.errors import InputError

_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
_DURATION = re.compile(
    rf"(?:(?P<h>{_NUMBER})\s*h)?\s*(?:(?P<m>{_NUMBER})\s*m(?:in)?)?\s*(?:(?P<s>{_NUMBER})\s*s)?|(?P<bare>{_NUMBER})",
    re.IGNORECASE,
)
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "bare": 1.0}
MAX_DURATION_S = 366 * 24 * 3600.0


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "90", "90s", "10m", "1h30m" or "1.5h".

    Raises:
        InputError: another spelling, zero, negative, or more than a year.
    """
    match = _DURATION.fullmatch(text.strip())
    parts = {name: value for name, value in match.groupdict().items() if value is not None} if match else {}
    if not parts:
        raise InputError(f"{text[:40]!r} is not a duration; write it like 90, 90s, 10m, 1h30m or 1.5h")
    seconds = math.fsum(float(value) * _SECONDS[name] for name, value in parts.items())
    if not 0 < seconds <= MAX_DURATION_S:
        raise InputError(f"a duration must be longer than 0 and at most a year, not {text[:40]!r}")
    return seconds


def clock_text(seconds: float) -> str:
    """As a clock shows it: "0:09", "12:30", "1:02:03"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
