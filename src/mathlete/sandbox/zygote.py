"""The process from which sessions are forked: it has imported what programs will import, and nothing more of ours.

Each message on a socket brings a descriptor, which is handed to a forked supervisor and forgotten. Holds no state, so
that its death loses no running program and no session. Knows neither programs nor results.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket

from mathlete.sandbox import isolation, kernel, supervisor

_PRELOADED = (
    "bisect",
    "cmath",
    "collections",
    "decimal",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "statistics",
    "string",
    "typing",
)
_PRELOADED_IF_INSTALLED = ("numpy", "numpy.random", "numpy.linalg", "mpmath", "sympy", "z3")


def preload() -> None:
    """Import what programs are likely to import. What is not installed is left out: importing it fails there."""
    for name in _PRELOADED:
        importlib.import_module(name)
    for name in _PRELOADED_IF_INSTALLED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    isolation.importable_directories()  # takes milliseconds, once
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page


def serve(jobs: socket.socket) -> None:
    """Fork a supervisor for every descriptor until the other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are reaped by the kernel,
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)  # also those whose parent went first
    while True:
        message, descriptors, _, _ = socket.recv_fds(jobs, 1, 1)
        if not message:
            return
        if os.fork() == 0:
            jobs.close()
            supervisor.supervise(descriptors[0])
        for descriptor in descriptors:
            os.close(descriptor)


def main(job_socket: int) -> None:
    """Entry point of the process; `job_socket` is the inherited descriptor of a SOCK_SEQPACKET socket."""
    preload()
    with socket.socket(fileno=job_socket) as jobs:
        serve(jobs)
