"""The viewer's port: one of this machine that no other machine can reach."""

from __future__ import annotations

import socket

from mathlete.core.errors import InputError
from mathlete.local_server import LOOPBACK
from mathlete.local_server import open_port as open_any_port

DEFAULT_PORT = 7717
GRACE_S = 2  # for pages that are being sent when the end is asked for


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens on a port of this machine.

    Args:
        host: a name of this machine that only itself knows it by.
        port: 0 for any that is free.

    Raises:
        InputError: the host can be reached from outside, or the port is taken or not ours to take.
    """
    if host not in LOOPBACK:
        raise InputError(
            f"the viewer shows all to whoever can reach it, so it listens on this machine only, not on {host!r}; "
            "from elsewhere, forward the port: ssh -L 7717:127.0.0.1:7717 THIS-MACHINE"
        )
    return open_any_port(host, port)
