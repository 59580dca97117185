"""Joining a Ray cluster, or starting one on this machine. The only module that imports Ray."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mathlete.core.errors import InputError

try:
    import ray
except ModuleNotFoundError as error:
    raise InputError(
        "several workers need Ray, which is not installed: pip install 'mathlete[engine,tools,cluster]'"
    ) from error

__all__ = ["LOCAL", "connected", "ray"]

LOCAL = "local"
# The least that Ray takes: problems and attempts are small, and nothing is shared through its object store.
_OBJECT_STORE_BYTES = 80 << 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CONNECT_S = 5.0


@contextmanager
def connected(address: str, num_workers: int) -> Iterator[None]:
    """Be a driver of the cluster at `address`, or of one started here for as long as this lasts.

    Args:
        address: "local"; or "auto" or host:port of a cluster that runs.
        num_workers: that are going to be started; a local cluster is made to have a CPU for each.

    Raises:
        InputError: there is no cluster at the address, or it is of another version.
    """
    if ray.is_initialized():  # whoever connected keeps the connection
        yield
        return
    if address != LOCAL:
        _check_there(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "mathlete"}
    _keep_stdout_clean()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        if address == LOCAL:
            cpus = max(num_workers, len(os.sched_getaffinity(0)))
            ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **common)
        else:
            ray.init(address, **common)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise _cannot_join(address, error) from error
    finally:
        _restore(handlers)
    try:
        yield
    finally:
        ray.shutdown()
        _restore(handlers)


def _check_there(address: str) -> None:
    """Raise `InputError` where nobody listens at a host:port: Ray itself goes on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise _cannot_join(address, error) from error


def _cannot_join(address: str, why: Exception) -> InputError:
    told = str(why).rstrip(".")
    return InputError(
        f"cannot join the Ray cluster {address!r}: {told}. Start one with `ray start --head`, and `ray start --address "
        "HOST:PORT` on other hosts, or use --ray local"
    )


def _keep_stdout_clean() -> None:
    """Ray prints what it has to say of dead workers to stdout, where results go; the head tells of them itself."""
    internals: Any = getattr(ray._private, "worker", None)
    if hasattr(internals, "print_to_stdstream"):
        internals.print_to_stdstream = _log


def _log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    for line in data.get("lines", ()):
        logging.getLogger(__name__).debug("ray: %s", line)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    """Ray takes over SIGTERM; the session's own handlers end a run in order."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
