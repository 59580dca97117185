"""The fences around one program, laid by the process itself before it runs a line of foreign code.

Knows namespaces, mounts, limits, capabilities and their order; does not know programs or results.

Glossary: a *layer* is one fence with a name. Layers overlap on purpose, since no machine offers all of them:
    userns    its own user namespace, so that nothing outside belongs to it
    pidns     its own process namespace: it sees and signals nobody outside, and its end ends all it started
    netns     its own network namespace with no way out
    ipcns     its own System V IPC and POSIX message queues
    mntns     its own mount table, in which "readonly" and "tmpfs" become possible
    readonly  everything mounted is read-only
    tmpfs     the working directory is a small memory file system that vanishes with the program
    newroot   nothing is there but what it may read (see `sandbox.new_root`)
    rlimit    ceilings on memory, file size, open files; of a program that stands alone, on processor time
    nnp       no new privileges: no set-uid programs
    landlock  only the interpreter's own files can be read, only the working directory written
    nocaps    no capabilities
    seccomp   no network, no processes, no signals to others (see `sandbox.seccomp`)
    gate      the supervisor decides on each signal and fork (see `sandbox.gate`); sessions need it for snapshots

These are the namespaces that bubblewrap would enter, furnished from within a warm interpreter, which it cannot fork.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from mathlete.sandbox import kernel, landlock, new_root, seccomp

LAYERS = (
    "userns",
    "pidns",
    "netns",
    "ipcns",
    "mntns",
    "readonly",
    "tmpfs",
    "newroot",
    "rlimit",
    "nnp",
    "landlock",
    "nocaps",
    "seccomp",
    "gate",
)

MAX_THREADS = 256
_MAX_OPEN_FILES = 128
MAX_FILES = 4096
_MAX_PENDING_SIGNALS = 1024
_STACK_BYTES = 64 << 20  # recursion through C code (functools.lru_cache) overflows the usual 8 MiB early
_FILES_PER_DIRECTORY_CAP = 4  # the whole working directory may hold this many files of the largest size

_NAMESPACES = {
    "userns": 0x10000000,
    "pidns": 0x20000000,
    "netns": 0x40000000,
    "ipcns": 0x08000000,
    "mntns": 0x00020000,
}
# What to do without where namespaces are granted and then may not be furnished, most sparing first.
_RETREATS = (frozenset({"newroot"}), frozenset({"mntns"}), frozenset(_NAMESPACES))
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, (1 << 64) - 100, 0x8000
_MOUNT_ATTR_RDONLY_NOSUID = (3).to_bytes(8, sys.byteorder) + bytes(24)  # struct mount_attr
_INNER_ID = 65534  # "nobody" inside, the user outside

_SYSTEM_FILES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/dev/urandom",
    "/dev/random",
)
_DEVICES = ("/dev/null", "/dev/zero")


@dataclass(frozen=True, slots=True)
class Fence:
    """What one program may have.

    Attributes:
        work_dir: its working directory: exists, empty, ours.
        memory_bytes: address space, the interpreter's own included.
        file_bytes: size of any one file; four times as much in the working directory together.
        without: layers that are not even tried.
    """

    work_dir: str
    memory_bytes: int
    file_bytes: int
    without: frozenset[str] = frozenset()

    @property
    def directory_bytes(self) -> int:
        """Bytes that the whole working directory may hold; without the "tmpfs" layer the supervisor looks at times."""
        return _FILES_PER_DIRECTORY_CAP * self.file_bytes


@cache
def importable_directories() -> tuple[str, ...]:
    """Directories from which this interpreter imports: standard library, site-packages, shared libraries."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    libraries = {os.path.join(prefix, name) for prefix in prefixes for name in ("lib", "lib64")}
    libraries |= {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(sorted(libraries))


def next_retreat(without: frozenset[str]) -> frozenset[str] | None:
    """What to leave out where a program could not be started without `without`; None when nothing is left to try.

    Some machines grant namespaces and then deny what must be done in them: AppArmor (Ubuntu since 23.10) the map
    of user ids, the profile of a container every mount. A process that got so far cannot go back; a fresh one can
    do without.
    """
    return next((without | retreat for retreat in _RETREATS if not retreat <= without), None)


def enter_namespaces(fence: Fence) -> list[str]:
    """Leave the parent's namespaces as far as the machine permits; for the process that forks the program.

    The next fork is the first process of the new process namespace. All or nothing: where some namespace is
    refused, none is entered.

    Returns:
        The layers that are now in force.

    Raises:
        OSError: when a namespace was entered and could not be furnished (see `next_retreat`).
    """
    user_id, group_id = os.geteuid(), os.getegid()
    layers: list[str] = []
    for left_out in (fence.without, fence.without | {"userns"}):  # root may do without a user namespace
        wanted = [name for name in _NAMESPACES if name not in left_out]
        try:
            kernel.unshare(sum(_NAMESPACES[name] for name in wanted))
        except OSError:  # not permitted here: `isolation` of the result tells
            continue
        layers = wanted
        break
    if "userns" in layers:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{_INNER_ID} {user_id} 1")
        _write("/proc/self/gid_map", f"{_INNER_ID} {group_id} 1")
    if "mntns" in layers:
        layers += _furnish_mounts(fence)
    return layers


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _furnish_mounts(fence: Fence) -> list[str]:
    layers = []
    kernel.mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    if "readonly" not in fence.without:
        try:
            kernel.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, _MOUNT_ATTR_RDONLY_NOSUID, 32)
            layers.append("readonly")
        except OSError:  # before Linux 5.12; Landlock still guards
            pass
    if "tmpfs" not in fence.without:
        options = f"size={fence.directory_bytes},nr_inodes={MAX_FILES},mode=0700"
        kernel.mount("tmpfs", fence.work_dir, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
        layers.append("tmpfs")
    return layers


class Confined(NamedTuple):
    """Layers in force, in the order of `LAYERS`, and the listener of the "gate" layer, which is the supervisor's."""

    layers: tuple[str, ...]
    listener: int | None


def confine(fence: Fence, entered: list[str]) -> Confined:
    """Lay the remaining fences around this process, for good; for the program's own process.

    Args:
        fence: what it may have.
        entered: what `enter_namespaces` returned in the parent.
    """
    layers = [*entered, "rlimit", "nnp", "nocaps"]
    os.chdir(fence.work_dir)
    readable = (*importable_directories(), *_SYSTEM_FILES)
    if "tmpfs" in entered and "newroot" not in fence.without:
        if new_root.enter_new_root((*readable, *_DEVICES), fence.work_dir):
            layers.append("newroot")
    _set_limits(fence, own_user="userns" in entered)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if "landlock" not in fence.without and landlock.restrict(readable, (fence.work_dir,), _DEVICES):
        layers.append("landlock")
    kernel.clear_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # no core file through a pipe handler, no look from a sibling
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    laid = None if "seccomp" in fence.without else seccomp.install(os.getpid(), gated="gate" not in fence.without)
    listener = None
    if laid is not None:
        layers.append("seccomp")
        listener = laid.listener
    if listener is not None:
        layers.append("gate")
    return Confined(tuple(name for name in LAYERS if name in layers), listener)


def _set_limits(fence: Fence, *, own_user: bool) -> None:
    ceilings = {
        resource.RLIMIT_AS: fence.memory_bytes,
        resource.RLIMIT_FSIZE: fence.file_bytes,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: _MAX_PENDING_SIGNALS,  # of a store that all processes of a user share
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    if own_user and _kernel_version() >= (5, 14):  # before, all processes of the user outside would count
        ceilings[resource.RLIMIT_NPROC] = MAX_THREADS
    for kind, ceiling in ceilings.items():
        hard = resource.getrlimit(kind)[1]
        value = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
        resource.setrlimit(kind, (value, value))
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = _STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, hard))


def limit_processor_time(wall_s: float) -> None:
    """Bound what this process may compute by what all its processors can do in `wall_s` seconds, and one more.

    For a program that stands alone: the limit is for good, and a session's process, which runs one program after
    another, would need a higher one each time. The supervisor's clock comes first for both.
    """
    ceiling = math.ceil(wall_s * len(os.sched_getaffinity(0))) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    value = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (value, value))


def _kernel_version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(ch for ch in minor if ch.isdigit()) or 0)
