"""The viewer's server: uvicorn on a port of this machine that no other machine can reach.

Knows ports and how to end. Does not know what is served.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from mathlete.core.errors import InputError

DEFAULT_PORT = 7717
_LOOPBACK = {"127.0.0.1": socket.AF_INET, "localhost": socket.AF_INET, "::1": socket.AF_INET6}
_GRACE_S = 2  # for pages that are being sent when the end is asked for


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens on a port of this machine.

    Args:
        host: a name of this machine that only itself knows it by.
        port: 0 for any that is free.

    Raises:
        InputError: the host can be reached from outside, or the port is taken or not ours to take.
    """
    if host not in _LOOPBACK:
        raise InputError(
            f"the viewer shows all to whoever can reach it, so it listens on this machine only, not on {host!r}; "
            "from elsewhere, forward the port: ssh -L 7717:127.0.0.1:7717 THIS-MACHINE"
        )
    listening = socket.socket(_LOOPBACK[host], socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1" if host == "localhost" else host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        what = "is in use, perhaps by another viewer" if taken else f"cannot be opened ({error})"
        raise InputError(f"port {port} {what}; choose another with --port, or --port 0 for any that is free") from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Server(uvicorn.Server):
    """Serves until it is interrupted; what never ends by itself is told to end first."""

    def __init__(self, app: ASGIApp, on_end: Callable[[], None]) -> None:
        """Serve `app`; `on_end` is called when the end is asked for."""
        super().__init__(
            uvicorn.Config(
                app,
                log_level="critical",
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._on_end = on_end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order; asked twice, end at once."""
        self._on_end()
        super().handle_exit(sig, frame)


def serve(server: Server, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM, and return."""
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # uvicorn has ended in order and hands the signal on; there is nothing left to end
    finally:
        listening.close()
