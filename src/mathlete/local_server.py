"""An HTTP server on this machine: its port, how it ends, and what every answer of it carries.

Knows sockets, signals, and names that only this machine has for itself. Does not know what is served, nor to whom.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from types import FrameType

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Send

from mathlete.core.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 for any that is free.

    Raises:
        InputError: there is no such address here, or the port is taken or not ours to take.
    """
    wanted = "127.0.0.1" if host == "localhost" else host
    try:
        kind, _, _, _, address = socket.getaddrinfo(wanted, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: no address of this machine ({error})") from error
    listening = socket.socket(kind, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        what = "is in use, perhaps by another server" if taken else f"cannot be opened on {host} ({error})"
        raise InputError(f"port {port} {what}; choose another with --port, or --port 0 for any that is free") from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_this_machine(host_header: str) -> bool:
    """Whether a `Host` header names this machine as only itself does: else it may be DNS rebinding."""
    name, _, port = host_header.rpartition(":") if not host_header.endswith("]") else (host_header, "", "")
    named = (name or host_header).lower()
    in_brackets = named.startswith("[") and named.endswith("]")
    is_known = named[1:-1] == "::1" if in_brackets else named in LOOPBACK and ":" not in named
    return is_known and (port.isdecimal() or not port or not name)


def with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """`send`, with these headers on every answer."""

    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            marked = MutableHeaders(scope=message)
            for name, value in headers.items():
                marked[name] = value
        await send(message)

    return send_marked


class Server(uvicorn.Server):
    """Serves until it is interrupted; what is under way is then told to end in order."""

    def __init__(self, app: ASGIApp, on_end: Callable[[], None], grace_s: int) -> None:
        """Serve an application.

        Args:
            app: the application.
            on_end: called when the end is asked for, maybe twice.
            grace_s: seconds for answers that are being sent then.
        """
        super().__init__(
            uvicorn.Config(
                app,
                log_level="critical",
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=grace_s,
            )
        )
        self._on_end = on_end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order; asked twice, end at once."""
        self._on_end()
        super().handle_exit(sig, frame)

    def serve_until_interrupted(self, listening: socket.socket) -> None:
        """Serve until Ctrl-C or SIGTERM, and return."""
        try:
            self.run(sockets=[listening])
        except KeyboardInterrupt:
            pass  # uvicorn has ended in order and hands the signal on; there is nothing left to end
        finally:
            listening.close()
