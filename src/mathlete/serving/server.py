"""The server's port and its end: uvicorn on this machine, or, with a key, for others too.

Knows ports, keys and signals. Does not know what is served.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from mathlete.core.errors import InputError
from mathlete.serving.access import LOOPBACK

_GRACE_S = 60  # for answers to problems that were ended in order; the second Ctrl-C does not wait
_KEY = re.compile(r"[!-~]{16,512}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def key_of(variable: str | None) -> str | None:
    """The key in an environment variable, None where no variable is named.

    Raises:
        InputError: it is not set, or could be guessed.
    """
    if variable is None:
        return None
    if not _VARIABLE.fullmatch(variable):  # perhaps a key itself, so it is not told
        raise InputError("--api-key-env takes the name of an environment variable, such as MATHLETE_KEY, and not a key")
    key = os.environ.get(variable)
    if key is None:
        raise InputError(f"--api-key-env {variable}: there is no such environment variable; set it to the server's key")
    if not _KEY.fullmatch(key):
        raise InputError(
            f"--api-key-env {variable}: a key has from 16 to 512 letters, digits and signs, without spaces; make one "
            "with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return key


def new_key() -> str:
    """A key that nobody can guess."""
    return secrets.token_urlsafe(32)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    return host in LOOPBACK


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 for any that is free.

    Raises:
        InputError: there is no such address here, or the port is taken or not ours to take.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: no address of this machine ({error})") from error
    listening = socket.socket(kind, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        taken = error.errno == errno.EADDRINUSE
        what = "is in use, perhaps by another server" if taken else f"cannot be opened on {host} ({error.strerror})"
        raise InputError(f"port {port} {what}; choose another with --port, or --port 0 for any that is free") from error
    return listening


def address_of(listening: socket.socket) -> str:
    """The base URL that a client takes."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


class Server(uvicorn.Server):
    """Serves until it is interrupted; what is worked on is then ended in order, and its answers are sent."""

    def __init__(self, app: ASGIApp, on_end: Callable[[], None]) -> None:
        """Serve `app`; `on_end` is called when the end is asked for, maybe twice."""
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

    def serve_until_interrupted(self, listening: socket.socket) -> None:
        """Serve until Ctrl-C or SIGTERM, and return."""
        try:
            self.run(sockets=[listening])
        except KeyboardInterrupt:
            pass  # uvicorn has ended in order and hands the signal on; there is nothing left to end
        finally:
            listening.close()
