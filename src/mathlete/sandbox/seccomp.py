"""The system calls that a program may not make, as a BPF filter. Knows call numbers, not what runs.

The filter is a second fence behind the namespaces, and the first one where namespaces are not to be had:
no network, no further processes (threads are allowed), no signals to others and nothing set of theirs (limits,
priority, processors), no change to the owner, mode or attributes of a file and no watch on a folder (Landlock does
not cover those), none of the kernel's larger attack surfaces, and no call that is newer than this table.
`socketpair` stays, since asyncio needs it, but for streams only: a socket for datagrams takes an address with each.

With a *gate* (`sandbox.gate`) signals and forks are not decided here but asked of the supervisor; where the kernel
offers none, signals go to the process itself only and forks are denied.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import NamedTuple

from mathlete.sandbox import kernel

# One call a word: name:number on x86_64:number on aarch64, "-" where the machine has no such call.
_NETWORK = """
socket:41:198 connect:42:203 bind:49:200 listen:50:201 accept:43:202 accept4:288:242
"""
_PROCESSES = """
fork:57:- vfork:58:- execve:59:221 execveat:322:281 ptrace:101:117 process_vm_readv:310:270
process_vm_writev:311:271 process_madvise:440:440 process_mrelease:448:448 kcmp:312:272 pidfd_open:434:434
pidfd_getfd:438:438 pidfd_send_signal:424:424 tkill:200:130
"""
_FILE_SYSTEM = """
mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 move_mount:429:429 open_tree:428:428 fsopen:430:430
fsconfig:431:431 fsmount:432:432 fspick:433:433 mount_setattr:442:442 unshare:272:97 setns:308:268
open_by_handle_at:304:265 name_to_handle_at:303:264 quotactl:179:60 quotactl_fd:443:443 swapon:167:224
swapoff:168:225 fanotify_init:300:262 fanotify_mark:301:263 mknod:133:- mknodat:259:33 inotify_init:253:-
inotify_init1:294:26 inotify_add_watch:254:27 sync:162:81 syncfs:306:267 uselib:134:- statmount:457:457
listmount:458:458 open_tree_attr:467:467
"""
_FILE_ATTRIBUTES = """
chmod:90:- fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 chown:92:- fchown:93:55 lchown:94:- fchownat:260:54
utime:132:- utimes:235:- futimesat:261:- utimensat:280:88 setxattr:188:5 lsetxattr:189:6 fsetxattr:190:7
setxattrat:463:463 removexattr:197:14 lremovexattr:198:15 fremovexattr:199:16 removexattrat:466:466 truncate:76:45
file_setattr:469:469
"""
_KERNEL = """
kexec_load:246:104 kexec_file_load:320:294 init_module:175:105 finit_module:313:273 delete_module:176:106
reboot:169:142 syslog:103:116 acct:163:89 settimeofday:164:170 clock_settime:227:112 clock_adjtime:305:266
adjtimex:159:171 sethostname:170:161 setdomainname:171:162 iopl:172:- ioperm:173:- modify_ldt:154:-
personality:135:92 vhangup:153:58 keyctl:250:219 add_key:248:217 request_key:249:218 bpf:321:280
perf_event_open:298:241 userfaultfd:323:282 io_uring_setup:425:425 io_uring_enter:426:426 io_uring_register:427:427
io_setup:206:0 migrate_pages:256:238 move_pages:279:239 lookup_dcookie:212:18
"""
_UNCOUNTED_MEMORY = """
memfd_create:319:279 memfd_secret:447:447 shmget:29:194 shmat:30:196 shmctl:31:195 semget:64:190 semop:65:193
semctl:66:191 semtimedop:220:192 msgget:68:186 msgsnd:69:189 msgrcv:70:188 msgctl:71:187 mq_open:240:180
mq_unlink:241:181
"""


class _Machine(NamedTuple):
    """What differs between processors."""

    audit_arch: int
    column: int
    kill: int
    tgkill: int
    rt_sigqueueinfo: int
    rt_tgsigqueueinfo: int
    clone: int
    fcntl: int
    prctl: int
    ioctl: int
    socketpair: int
    setpriority: int
    ioprio_set: int
    seccomp: int
    of_one_process: tuple[int, ...]


# of_one_process: prlimit64, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr
_MACHINES = {
    "x86_64": _Machine(0xC000003E, 1, 62, 234, 129, 297, 56, 72, 157, 16, 53, 141, 251, 317, (302, 142, 144, 203, 314)),
    "aarch64": _Machine(
        0xC00000B7, 2, 129, 131, 138, 240, 220, 25, 167, 29, 199, 140, 30, 277, (261, 118, 119, 122, 274)
    ),
}
_CLONE3 = 435
_NEWEST = 469  # of the calls in Linux 6.18, up to which the table was read through
_X32_BIT = 0x40000000  # a second numbering of the same calls on x86_64
_CLONE_THREAD = 0x00010000
# F_SETOWN, F_SETSIG, F_SETOWN_EX: a signal to anyone, by way of a file; F_SETPIPE_SZ: from a store all share.
_DENIED_FCNTL = (8, 10, 15, 1031)
# FIOSETOWN, SIOCSPGRP: the same by way of a socket; TIOCSTI, TIOCLINUX, TIOCSCTTY: into a terminal.
_DENIED_IOCTL = (0x8901, 0x8902, 0x5412, 0x541C, 0x540E)
_DENIED_PRCTL = (kernel.PR_SET_PDEATHSIG, kernel.PR_SET_DUMPABLE)
_AF_UNIX, _SOCKET_KIND, _SOCK_STREAM, _SOCK_SEQPACKET = 1, 0xF, 1, 5
_PRIO_PROCESS, _IOPRIO_WHO_PROCESS = 0, 1

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ASK = 0x7FC00000
_ERRNO = 0x00050000
_DENY = _ERRNO | errno.EPERM
_ABSENT = _ERRNO | errno.ENOSYS

_NUMBER_AT, _ARCH_AT, _ARGS_AT = 0, 4, 16  # in struct seccomp_data, little-endian


def _load(offset: int) -> bytes:
    return struct.pack("<HBBI", 0x20, 0, 0, offset)  # BPF_LD | BPF_W | BPF_ABS


def _ret(value: int) -> bytes:
    return struct.pack("<HBBI", 0x06, 0, 0, value)  # BPF_RET | BPF_K


def _where(jump: int, value: int, block: bytes) -> bytes:
    """Run `block` only where the test (0x15 equal, 0x35 not below, 0x45 any bit) on the loaded word holds."""
    return struct.pack("<HBBI", jump, 0, len(block) // 8, value) + block


def _when(value: int, block: bytes) -> bytes:
    return _where(0x15, value, block)


def _argument(index: int, *allowed: int) -> bytes:
    """Allow the call when the low word of an argument is one of `allowed`, else deny it."""
    tests = b"".join(_when(value, _ret(_ALLOW)) for value in allowed)
    return _load(_ARGS_AT + 8 * index) + tests + _ret(_DENY)


def _argument_not(index: int, *denied: int) -> bytes:
    tests = b"".join(_when(value, _ret(_DENY)) for value in denied)
    return _load(_ARGS_AT + 8 * index) + tests + _ret(_ALLOW)


def _streams_only() -> bytes:
    """Allow `socketpair` for connected streams: a datagram socket would reach any socket that has a path."""
    kind = _load(_ARGS_AT + 8) + struct.pack("<HBBI", 0x54, 0, 0, _SOCKET_KIND)  # BPF_ALU | BPF_AND
    kinds = b"".join(_when(value, _ret(_ALLOW)) for value in (_SOCK_STREAM, _SOCK_SEQPACKET))
    return _load(_ARGS_AT) + _when(_AF_UNIX, kind + kinds + _ret(_DENY)) + _ret(_DENY)


def _of_itself(itself: tuple[int, ...], process_kind: int) -> bytes:
    """Allow a call (kind, whom, ...) about this very process, not one about a group or a user."""
    return _load(_ARGS_AT) + _when(process_kind, _argument(1, *itself)) + _ret(_DENY)


def _denied_numbers(machine: _Machine) -> list[int]:
    groups = (_NETWORK, _PROCESSES, _FILE_SYSTEM, _FILE_ATTRIBUTES, _KERNEL, _UNCOUNTED_MEMORY)
    columns = (word.split(":")[machine.column] for group in groups for word in group.split())
    return [int(number) for number in columns if number != "-"]


def build_filter(machine_name: str, own_pid: int, *, gated: bool = False) -> bytes | None:
    """The filter as BPF instructions, or None for a processor that is not in the table.

    Args:
        machine_name: as `platform.machine()` gives it.
        own_pid: the only process (besides group 0) that may be sent a signal or have its limits set.
        gated: the process may be followed by a copy of itself, which has another id, and so may name itself by 0 only;
            signals and forks are asked of the supervisor.
    """
    machine = _MACHINES.get(machine_name)
    if machine is None:
        return None
    fork = _ret(_ASK if gated else _DENY)
    thread_only = _load(_ARGS_AT) + _where(0x45, _CLONE_THREAD, _ret(_ALLOW)) + fork
    to_itself = _ret(_ASK) if gated else _argument(0, own_pid)
    to_its_group = _ret(_ASK) if gated else _argument(0, own_pid, 0)
    itself = (0,) if gated else (own_pid, 0)
    own_convention = struct.pack("<HBBI", 0x15, 1, 0, machine.audit_arch)  # skips the kill
    # A call by another convention (32-bit on a 64-bit kernel) would have other numbers.
    parts = [_load(_ARCH_AT), own_convention, _ret(_KILL), _load(_NUMBER_AT)]
    if machine_name == "x86_64":
        parts.append(_where(0x35, _X32_BIT, _ret(_DENY)))
    parts.append(_where(0x35, _NEWEST + 1, _ret(_ABSENT)))
    parts += [_when(number, _ret(_DENY)) for number in _denied_numbers(machine)]
    parts += [
        _when(_CLONE3, _ret(_ABSENT)),  # its flags lie behind a pointer; libc falls back to clone
        _when(machine.clone, thread_only),
        _when(machine.kill, to_its_group),
        _when(machine.tgkill, to_itself),
        _when(machine.rt_sigqueueinfo, to_itself),
        _when(machine.rt_tgsigqueueinfo, to_itself),
        _when(machine.fcntl, _argument_not(1, *_DENIED_FCNTL)),
        _when(machine.ioctl, _argument_not(1, *_DENIED_IOCTL)),
        _when(machine.prctl, _argument_not(0, *_DENIED_PRCTL)),
        _when(machine.socketpair, _streams_only()),
        _when(machine.setpriority, _of_itself(itself, _PRIO_PROCESS)),
        _when(machine.ioprio_set, _of_itself(itself, _IOPRIO_WHO_PROCESS)),
        *(_when(number, _argument(0, *itself)) for number in machine.of_one_process),
        _ret(_ALLOW),
    ]
    return b"".join(parts)


class Laid(NamedTuple):
    """A filter in force: `listener` is the descriptor of its gate (see `sandbox.gate`), None where there is none."""

    listener: int | None


def install(own_pid: int, *, gated: bool = True) -> Laid | None:
    """Put this thread and its descendants behind the filter, for good; with a gate where wanted and to be had.

    Needs `PR_SET_NO_NEW_PRIVS`. Returns None where the kernel has no seccomp or the processor is unknown.
    """
    machine = _MACHINES.get(platform.machine())
    asking = build_filter(platform.machine(), own_pid, gated=True)
    deciding = build_filter(platform.machine(), own_pid)
    if machine is None or asking is None or deciding is None:
        return None
    if gated:
        try:
            return Laid(kernel.set_gated_seccomp_filter(machine.seccomp, asking))
        except OSError:  # an old kernel, or whoever runs this container has a gate already; the twin decides by itself
            pass
    try:
        kernel.set_seccomp_filter(deciding)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            return None
        raise
    return Laid(None)


def clone_call() -> int:
    """Number of the system call that makes processes, on this machine; 0 for a processor that is not in the table."""
    machine = _MACHINES.get(platform.machine())
    return machine.clone if machine else 0
