"""Values of flags that need reading. Knows spellings; does not know which command they belong to."""

from __future__ import annotations

import re

from mathlete.core.durations import parse_duration as parse_duration  # of --budget and the like
from mathlete.core.errors import InputError

_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
_BYTES = re.compile(rf"(?P<number>{_NUMBER})\s*(?:(?P<unit>[kmgt])i?)?b?", re.IGNORECASE)
_POWERS = {None: 0, "k": 1, "m": 2, "g": 3, "t": 4}
MAX_BYTES = 1 << 50


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "512m", "2g", "1.5G", "2GiB" or "1073741824"; units are powers of 1024.

    Raises:
        InputError: another spelling, zero, negative, or more than a PiB.
    """
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text[:40]!r} is not a size; write it like 512m, 2g or 1.5g")
    unit = match["unit"]
    num_bytes = int(float(match["number"]) * 1024 ** _POWERS[unit and unit.lower()])
    if not 0 < num_bytes <= MAX_BYTES:
        raise InputError(f"a size must be larger than 0 and at most a PiB, not {text[:40]!r}")
    return num_bytes


def parse_names(text: str) -> tuple[str, ...]:
    """The names of a list such as "code,reasoning"; "none" for none."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    return () if names == ("none",) else names
