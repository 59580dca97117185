"""Server-sent events out of bytes (WHATWG HTML, 9.2.6), bounded. Pure; does not know what events mean."""

from __future__ import annotations

from mathlete.core.errors import EngineError

MAX_LINE_BYTES = 4 << 20
_SHOWN = 120


class BrokenStream(EngineError):
    """What a server sent is not what it should be, or ended half-way. The request can be tried again."""


class EventLines:
    """Takes the bytes of a stream and gives the data of its events.

    Lines end at a line feed, with or without a carriage return before it, and nowhere else: other line ends of Unicode
    may stand in the data. OpenAI's servers put each event on one line.
    """

    def __init__(self) -> None:
        """Begin a stream."""
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[str]:
        """The data of the events that end in `piece`.

        Raises:
            BrokenStream: for a line that is none of an event stream, or longer than `MAX_LINE_BYTES`.
        """
        self._rest += piece
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        if max(map(len, (*lines, rest))) > MAX_LINE_BYTES:
            raise BrokenStream(f"it sent a line of more than {MAX_LINE_BYTES >> 20} MiB")
        return [data for line in lines if (data := _data_of(bytes(line)))]

    def finish(self) -> list[str]:
        """The stream has ended: the data of a last line without a line feed."""
        return self.feed(b"\n") if self._rest else []


def _data_of(line: bytes) -> str | None:
    """What a line says; None for comments, for empty lines and for fields that nobody needs."""
    line = line.rstrip(b"\r")
    name, _, value = line.partition(b":")
    if name in (b"data", b"error"):  # llama.cpp up to 2025 wrote "error: {...}"
        return value.strip().decode("utf-8", errors="replace")
    if not name or name in (b"event", b"id", b"retry"):
        return None
    raise BrokenStream(f"it sent no event stream, but {line[:_SHOWN].decode('utf-8', errors='replace')!r}")
