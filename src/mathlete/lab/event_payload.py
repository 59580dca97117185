"""What an event tells, as a store keeps it: JSON text, packed by zlib where it is long.

Knows bytes. Does not know what the events mean, but for whole numbers in the kinds that make up nearly all of a store.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, cast

import orjson

_COMPRESS_FROM_BYTES = 1024  # below, a payload stays readable text; above, it is mostly arrays of logprobs
# In which object whole numbers stand in these kinds, and their names. orjson reads what does not fit 64 bits as float,
# and NaN not at all; only the recordings of others can have such numbers. All other kinds are few and read by the
# standard library.
_WHOLE_NUMBERS = {
    "attempt_started": ("", ("index", "seed", "round")),
    "turn_finished": ("turn", ("num_tokens", "num_discarded")),
    "attempt_finished": ("attempt", ("index", "seed", "num_tokens", "num_discarded", "round")),
}


def encode_payload(data: Mapping[str, Any]) -> str | bytes:
    """What is kept; numbers that are not finite are kept as `NaN` and `Infinity`."""
    text = json.dumps(dict(data), separators=(",", ":"))
    return text if len(text) < _COMPRESS_FROM_BYTES else zlib.compress(text.encode("ascii"))


def decode_payload(kind: str, payload: str | bytes) -> dict[str, Any]:
    """The inverse, for an event of a kind.

    Raises:
        ValueError: it is not what `encode_payload` made.
        zlib.error: likewise; what is packed has a checksum.
    """
    text = zlib.decompress(payload) if isinstance(payload, bytes) else payload
    if kind in _WHOLE_NUMBERS:
        try:
            data: dict[str, Any] = orjson.loads(text)
        except orjson.JSONDecodeError:
            return _decode_slowly(text)  # which tells whether it is broken or has numbers that are not finite
        name, numbers = _WHOLE_NUMBERS[kind]
        told = data.get(name, {}) if name else data
        if not any(isinstance(told.get(number), float) for number in numbers):
            return data
    return _decode_slowly(text)


def decode_payload_slowly(payload: str | bytes) -> dict[str, Any]:
    """As `decode_payload`, by the standard library alone."""
    return _decode_slowly(zlib.decompress(payload) if isinstance(payload, bytes) else payload)


def _decode_slowly(text: str | bytes) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(text))
