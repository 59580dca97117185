"""Addresses at which there is no cluster."""

from __future__ import annotations

import socket
import time

import pytest

from mathlete.core.errors import InputError

pytest.importorskip("ray", reason="needs Ray: pip install 'mathlete[cluster]'")


def test_an_address_at_which_nobody_listens_is_told_at_once() -> None:
    from mathlete.cluster.ray_connection import connected

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    start_s = time.monotonic()
    for asked in (address, f"ray://{address}", "127.0.0.1:99999"):
        with pytest.raises(InputError, match="cannot join the Ray cluster.*ray start --head"), connected(asked, 1):
            pass
    assert time.monotonic() - start_s < 10.0
