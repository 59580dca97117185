"""Messages between pool, supervisor and confined process: one JSON object and some descriptors a packet.

Knows packets and who sent them; does not know what they say. The sender's process id comes from the kernel, so that a
program can speak for itself only.
"""

from __future__ import annotations

import array
import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

_PACKET_BYTES = 1 << 16
_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group
_TEXT_BYTES = 20_000  # of any one text in a message: a packet must fit into the socket's buffer


@dataclass(frozen=True, slots=True)
class Packet:
    """What arrived.

    Attributes:
        message: the object; empty for a packet that is no JSON object.
        descriptors: this process's to close.
        sender: process id of the sender, or 0 where this end does not ask for it.
    """

    message: dict[str, Any]
    descriptors: tuple[int, ...] = ()
    sender: int = 0


class Wire:
    """One end of a connection that keeps packets apart."""

    def __init__(self, end: socket.socket, *, asks_sender: bool = False, max_descriptors: int = 0) -> None:
        """Take over a socket.

        Args:
            end: of kind SOCK_SEQPACKET.
            asks_sender: have the kernel say who sent each packet.
            max_descriptors: accepted with a packet; the kernel closes any more.
        """
        self._end = end
        self._asks_sender = asks_sender
        self.max_descriptors = max_descriptors
        if asks_sender:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    @classmethod
    def pair(cls) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets. Raises `OSError` when descriptors have run out."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @classmethod
    def adopt(cls, descriptor: int, *, max_descriptors: int = 0) -> Self:
        """The wire on an inherited descriptor."""
        return cls(socket.socket(fileno=descriptor), max_descriptors=max_descriptors)

    def fileno(self) -> int:
        """The descriptor, for polling; -1 once closed."""
        return self._end.fileno()

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send one packet. Raises `OSError` when the other end is gone or, without waiting, its buffer is full."""
        short = {key: value[-_TEXT_BYTES:] if isinstance(value, str) else value for key, value in message.items()}
        socket.send_fds(self._end, [json.dumps(short).encode()], list(descriptors), socket.MSG_NOSIGNAL)

    def receive(self) -> Packet | None:
        """The next packet, or None at the end of the connection.

        Raises:
            BlockingIOError: when there is none yet and the socket does not wait.
        """
        room = socket.CMSG_SPACE(_CREDENTIALS.size) if self._asks_sender else 0
        room += socket.CMSG_SPACE(4 * self.max_descriptors) if self.max_descriptors else 0
        try:
            data, ancillary, _, _ = self._end.recvmsg(_PACKET_BYTES, room)
        except ConnectionResetError:  # told once, of an end that left something unread; what it said is still there
            data, ancillary, _, _ = self._end.recvmsg(_PACKET_BYTES, room)
        if not data:
            return None
        descriptors: list[int] = []
        sender = 0
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = array.array("i", payload[: len(payload) // 4 * 4])
                descriptors += whole
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                sender = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])[0]
        return Packet(_parse(data), tuple(descriptors), sender)

    def shut(self) -> None:
        """Say that nothing more will be sent; the other end may still answer. Harmless when it is gone."""
        try:
            self._end.shutdown(socket.SHUT_WR)
        except OSError:
            return  # not connected any more: there is nobody left to tell

    def close(self) -> None:
        """Close this end. Safe to call twice."""
        self._end.close()

    def set_blocking(self, blocking: bool) -> None:
        """Whether sending and receiving wait."""
        self._end.setblocking(blocking)


def _parse(data: bytes) -> dict[str, Any]:
    """The object of a packet; a program may send anything, and then it is none."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
