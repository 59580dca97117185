"""What an end means, and which system calls the filter lets through: pure, on any machine."""

from __future__ import annotations

import errno
import signal
import struct
from typing import Any

import pytest

from mathlete.core.code import CodeLimits, RunStatus
from mathlete.sandbox.gate import Gate
from mathlete.sandbox.outcome import Ending, Verdict, judge
from mathlete.sandbox.seccomp import build_filter

LIMITS = CodeLimits(wall_s=10, memory_bytes=1 << 30)
ALLOW, KILL, ERRNO, ASK = 0x7FFF0000, 0x80000000, 0x00050000, 0x7FC00000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OWN_PID = 77


def report(exit_code: int, *, rss: int = 1 << 20, reason: str | None = None, keeps: bool = False) -> dict[str, Any]:
    return {"exit_code": exit_code, "elapsed_s": 1.5, "max_rss_bytes": rss, "reason": reason, "keeps": keeps}


@pytest.mark.parametrize(
    ("verdict", "facts", "stderr", "status"),
    [
        (None, report(0), b"", "ok"),
        (None, report(0), b"a warning\n", "ok"),
        (None, report(1), b"ValueError: x\n", "error"),
        (None, report(1), b"Traceback\nMemoryError\n", "memory"),
        (None, report(1), b"numpy._core._exceptions._ArrayMemoryError: Unable to allocate", "memory"),
        (None, report(1), b"NotAMemoryError: x\n", "error"),
        (None, report(-signal.SIGSEGV), b"", "error"),
        (None, report(-signal.SIGKILL), b"", "killed"),
        (None, report(-signal.SIGKILL, rss=1 << 30), b"", "memory"),
        (None, report(-signal.SIGKILL, reason="timeout"), b"", "timeout"),
        (None, report(-signal.SIGKILL, reason="memory"), b"", "memory"),
        (None, report(-signal.SIGKILL, reason="threads"), b"", "killed"),
        (None, {}, b"", "killed"),
        (None, {"failed": "OSError"}, b"", "killed"),
        ("timeout", report(-signal.SIGKILL), b"", "timeout"),
        ("timeout", {}, b"", "timeout"),
        ("output_limit", report(0), b"", "output_limit"),
    ],
)
def test_status(verdict: Verdict | None, facts: dict[str, Any], stderr: bytes, status: RunStatus) -> None:
    result = judge(Ending(verdict, facts, b"out", stderr, ("rlimit",), 9.0), LIMITS)
    assert (result.status, result.stdout, result.isolation) == (status, "out", ("rlimit",))
    assert result.stderr or status != "killed"
    assert result.elapsed_s == facts.get("elapsed_s", 9.0)


def test_note_stands_on_its_own_line() -> None:
    result = judge(Ending(None, report(-signal.SIGSEGV), b"", b"half a line", (), 0.0), LIMITS)
    assert result.stderr == "half a line\nended by SIGSEGV\n"


def decide(machine: str, number: int, *args: int, arch: int | None = None, gated: bool = False) -> int:
    """Run the filter as the kernel would (classic BPF, the six instructions that it uses)."""
    program = build_filter(machine, OWN_PID, gated=gated)
    assert program is not None
    data = struct.pack("<IIQ6Q", number, arch or ARCH[machine], 0, *(*args, *[0] * (6 - len(args))))
    at, word = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (word,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            word &= value
        else:
            holds = {0x15: word == value, 0x35: word >= value, 0x45: bool(word & value)}[code]
            at += if_true if holds else if_false


# number on x86_64, number on aarch64
@pytest.mark.parametrize(
    ("numbers", "args", "decision"),
    [
        ((0, 63), (), ALLOW),  # read
        ((9, 222), (), ALLOW),  # mmap
        ((53, 199), (1, 1 | 0x80000, 0), ALLOW),  # socketpair of streams, close-on-exec
        ((53, 199), (1, 5, 0), ALLOW),  # of packets
        ((53, 199), (1, 2, 0), ERRNO | errno.EPERM),  # of datagrams
        ((53, 199), (1, 3, 0), ERRNO | errno.EPERM),  # which raw ones become
        ((53, 199), (30, 1, 0), ERRNO | errno.EPERM),  # of another family
        ((16, 29), (3, 0x5401, 0), ALLOW),  # ioctl TCGETS
        ((16, 29), (3, 0x8901, 0), ERRNO | errno.EPERM),  # ioctl FIOSETOWN
        ((141, 140), (0, 0, 5), ALLOW),  # setpriority of itself
        ((141, 140), (0, 1, 5), ERRNO | errno.EPERM),  # of another
        ((141, 140), (2, 0, 5), ERRNO | errno.EPERM),  # of all of its user
        ((251, 30), (1, OWN_PID, 5), ALLOW),  # ioprio_set
        ((251, 30), (3, 0, 5), ERRNO | errno.EPERM),
        ((302, 261), (0, 7, 0), ALLOW),  # prlimit64
        ((302, 261), (1, 7, 0), ERRNO | errno.EPERM),
        ((203, 122), (OWN_PID, 8), ALLOW),  # sched_setaffinity
        ((203, 122), (OWN_PID + 1, 8), ERRNO | errno.EPERM),
        ((254, 27), (3,), ERRNO | errno.EPERM),  # inotify_add_watch
        ((469, 469), (), ERRNO | errno.EPERM),  # file_setattr
        ((470, 470), (), ERRNO | errno.ENOSYS),  # not in the table yet
        ((231, 94), (), ALLOW),  # exit_group
        ((41, 198), (2, 1, 0), ERRNO | errno.EPERM),  # socket
        ((42, 203), (), ERRNO | errno.EPERM),  # connect
        ((101, 117), (), ERRNO | errno.EPERM),  # ptrace
        ((321, 280), (), ERRNO | errno.EPERM),  # bpf
        ((56, 220), (0x3D0F00,), ALLOW),  # clone of a thread
        ((56, 220), (17,), ERRNO | errno.EPERM),  # clone of a process
        ((435, 435), (), ERRNO | errno.ENOSYS),  # clone3
        ((62, 129), (OWN_PID, 9), ALLOW),  # kill
        ((62, 129), (0, 9), ALLOW),
        ((62, 129), (1, 9), ERRNO | errno.EPERM),
        ((62, 129), (2**64 - 1, 9), ERRNO | errno.EPERM),
        ((234, 131), (OWN_PID, 5, 9), ALLOW),  # tgkill
        ((234, 131), (5, OWN_PID, 9), ERRNO | errno.EPERM),
        ((72, 25), (1, 8, 5), ERRNO | errno.EPERM),  # fcntl F_SETOWN
        ((72, 25), (1, 3, 0), ALLOW),  # fcntl F_GETFL
        ((157, 167), (1, 0), ERRNO | errno.EPERM),  # prctl PR_SET_PDEATHSIG
        ((157, 167), (4, 1), ERRNO | errno.EPERM),  # prctl PR_SET_DUMPABLE
        ((157, 167), (15, 0), ALLOW),  # prctl PR_SET_NAME
    ],
)
def test_filter(numbers: tuple[int, int], args: tuple[int, ...], decision: int) -> None:
    for machine, number in zip(ARCH, numbers, strict=True):
        assert decide(machine, number, *args) == decision


# number on x86_64, number on aarch64
@pytest.mark.parametrize(
    ("numbers", "args", "decision"),
    [
        ((56, 220), (0x3D0F00,), ALLOW),  # clone of a thread
        ((56, 220), (17,), ASK),  # clone of a process
        ((435, 435), (), ERRNO | errno.ENOSYS),  # clone3
        ((62, 129), (OWN_PID, 9), ASK),  # kill
        ((62, 129), (1, 9), ASK),
        ((234, 131), (OWN_PID, 5, 9), ASK),  # tgkill
        ((200, 130), (OWN_PID, 9), ERRNO | errno.EPERM),  # tkill
        ((302, 261), (0, 0), ALLOW),  # prlimit64
        ((302, 261), (OWN_PID, 0), ERRNO | errno.EPERM),
        ((101, 117), (), ERRNO | errno.EPERM),  # ptrace
        ((0, 63), (), ALLOW),  # read
    ],
)
def test_filter_with_a_gate(numbers: tuple[int, int], args: tuple[int, ...], decision: int) -> None:
    for machine, number in zip(ARCH, numbers, strict=True):
        assert decide(machine, number, *args, gated=True) == decision


def test_gate_lets_one_process_be_signalled_and_one_thread_fork_once() -> None:
    gate = Gate(-1, clone_call=56)
    gate.may_signal, gate.may_fork = 7, 7
    assert gate.allows(thread=9, call=62, arguments=[7, 9])
    assert not any(gate.allows(thread=7, call=62, arguments=[who, 9]) for who in (0, 1, 8, 2**32 - 1, 2**64 - 1))
    fork, in_new_namespace, sibling, shared_memory = 0x01200011, 0x11200011, 0x01208011, 0x01200111
    assert not gate.allows(thread=8, call=56, arguments=[fork])
    assert not any(gate.allows(7, 56, [flags]) for flags in (in_new_namespace, sibling, shared_memory, 0x01200000))
    assert gate.allows(thread=7, call=56, arguments=[fork])
    assert not gate.allows(thread=7, call=56, arguments=[fork])


def test_other_calling_conventions_are_shut() -> None:
    assert decide("x86_64", 0x40000000 | 41) == ERRNO | errno.EPERM  # x32
    assert decide("x86_64", 102, arch=0x40000003) == KILL  # 32-bit socketcall
    assert build_filter("riscv64", OWN_PID) is None
