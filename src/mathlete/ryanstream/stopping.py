"""Stop strings over a stream of token bytes. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopMatch:
    """A stop string and the number of output bytes up to its end and up to its start."""

    stop: str
    end: int
    start: int


class StopMatcher:
    """Looks for the first stop string in a growing text, whatever way tokens cut it.

    Only the output is searched, never the prompt.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Prepare to look for `stops`. The one that ends first wins, of two that end together the longer.

        Judged by bytes, not by tokens, so the result does not depend on how tokens cut the text.
        """
        self._stops = [(stop, stop.encode()) for stop in stops]
        self._longest = max((len(raw) for _, raw in self._stops), default=0)
        self._tail = b""
        self._num_bytes = 0

    def push(self, piece: bytes) -> StopMatch | None:
        """Add the bytes of one token; the match, if one is complete now."""
        if not self._stops:
            return None
        text = self._tail + piece
        base = self._num_bytes - len(self._tail)
        self._num_bytes += len(piece)
        found = [(text.find(raw), stop, raw) for stop, raw in self._stops if raw in text]
        if found:
            at, stop, raw = min(found, key=lambda item: (item[0] + len(item[2]), item[0]))
            return StopMatch(stop, base + at + len(raw), base + at)
        self._tail = text[-(self._longest - 1) :] if self._longest > 1 else b""
        return None
