"""One program from fork to reaped, in a process of its own between the pool and the program.

The supervisor is the program's parent and its only judge on site: it ends the program when the pool closes the
control pipe (or dies), when it starts too many threads, and reports how it ended. Knows one program.

Messages on the status pipe, one JSON object a line:
    {"layers": [...]}                    the program is about to start behind these layers
    {"failed": "traceback"}              it could not be started
    {"wait_status", "elapsed_s", "cpu_s", "max_rss_bytes", "too_many_threads"}   it has ended and is reaped
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn

from mathlete.sandbox import isolation, kernel, program

_WATCH_INTERVAL_MS = 100
_BLIND_INTERVAL_MS = 10  # where the kernel does not tell when a process ends


@dataclass(frozen=True, slots=True)
class Channels:
    """Descriptors that the pool sent with a job; all are this process's to close.

    Attributes:
        job: memory file with the job as JSON.
        out: write end of the program's stdout.
        err: write end of its stderr.
        status: write end of the status pipe.
        control: read end; the pool closes the other end to end the program.
    """

    job: int
    out: int
    err: int
    status: int
    control: int


def supervise(channels: Channels) -> NoReturn:
    """Run the job and exit; for a freshly forked process with a single thread."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        with open(channels.job, "rb") as file:
            job = json.load(file)
        fence = isolation.Fence(**{**job["fence"], "without": frozenset(job["fence"]["without"])})
        entered = isolation.enter_namespaces(fence)
        started_s = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _become_program(job["code"], fence, entered, channels)
        os.close(channels.out)
        os.close(channels.err)
        _send(channels.status, _watch(pid, channels.control, started_s, alone="pidns" in entered))
        os._exit(0)
    except BaseException:
        _send(channels.status, {"failed": traceback.format_exc()})
        os._exit(1)


def _send(status: int, message: dict[str, Any]) -> None:
    os.write(status, json.dumps(message).encode() + b"\n")


def _watch(pid: int, control: int, started_s: float, *, alone: bool) -> dict[str, Any]:
    """Wait for the program's end, or bring it about; nothing it started is left afterwards.

    Args:
        pid: of the program.
        control: readable when the program is to end.
        started_s: reading of the monotonic clock.
        alone: the program is the first process of its own namespace, so that all it started end with it.
    """
    too_many_threads = False
    poller = select.poll()
    poller.register(control, select.POLLIN)
    interval_ms = _BLIND_INTERVAL_MS
    if (pid_fd := _open_process(pid)) is not None:
        poller.register(pid_fd, select.POLLIN)
        interval_ms = _WATCH_INTERVAL_MS
    while not poller.poll(interval_ms) and not _has_ended(pid):
        too_many_threads = _num_threads(pid) > isolation.MAX_THREADS
        if too_many_threads:
            break
    # Before it is reaped nobody else can have its number; a program that has ended is beyond harm.
    os.kill(pid, signal.SIGKILL)
    if not alone:
        _end_group(pid)
    _, wait_status, usage = os.wait4(pid, 0)
    elapsed_s = time.monotonic() - started_s
    if not alone:
        _end_orphans()
    return {
        "wait_status": wait_status,
        "elapsed_s": elapsed_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "max_rss_bytes": usage.ru_maxrss * 1024,
        "too_many_threads": too_many_threads,
    }


def _open_process(pid: int) -> int | None:
    """A descriptor that is readable once the process has ended; None where there is none (before Linux 5.3)."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # this Python does not know the call, or the kernel does not
        return None


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _num_threads(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[17])


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it had not got so far as to lead a group


def _end_orphans() -> None:
    """Kill what left the program's group; orphans become children of this process, the "subreaper"."""
    while True:
        with open("/proc/thread-self/children") as file:
            children = [int(word) for word in file.read().split()]
        for child in children:
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _become_program(code: str, fence: isolation.Fence, entered: list[str], channels: Channels) -> NoReturn:
    exit_code = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _connect_streams(channels)
        _forget_the_house(fence.work_dir)
        layers = isolation.confine(fence, entered)
        streams = program.open_standard_streams()
        _send(channels.status, {"layers": layers})
        os.closerange(3, 1 << 16)
    except BaseException:
        _send(channels.status, {"failed": traceback.format_exc()})
        os._exit(1)
    try:
        exit_code = program.run(code, streams)
    finally:
        os._exit(exit_code)


def _connect_streams(channels: Channels) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (channels.out, 1), (channels.err, 2)):
        os.dup2(source, target)


def _forget_the_house(work_dir: str) -> None:
    """Leave the program an environment and an import path in which nothing tells of us."""
    os.environ.update(HOME=work_dir, TMPDIR=work_dir)
    os.environ.pop("LD_LIBRARY_PATH", None)  # the zygote needed it
    for name in [name for name in sys.modules if name.partition(".")[0] == "mathlete"]:
        del sys.modules[name]
    importable = isolation.importable_directories()
    sys.path[:] = [path for path in sys.path if any(path.startswith(directory) for directory in importable)]
    if "numpy.random" in sys.modules:  # `random` reseeds itself after a fork, numpy does not
        sys.modules["numpy.random"].seed()
