"""Calls into libc that Python does not offer. Knows their raw signatures, not what they are used for."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _word(value: int) -> ctypes.c_ulong:
    return ctypes.c_ulong(value)


def syscall(number: int, *args: int | bytes | ctypes._Pointer[ctypes.Structure] | None) -> int:
    """A system call by number; raises `OSError` when it fails. Integers are passed as machine words."""
    words = [_word(arg) if isinstance(arg, int) else arg for arg in args]
    return _checked(_LIBC.syscall(ctypes.c_long(number), *words), f"system call {number}")


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    """Change a property of this process. Raises `OSError` when it fails."""
    return _checked(_LIBC.prctl(option, _word(arg2), _word(arg3), _word(0), _word(0)), f"prctl {option}")


class _FilterProgram(ctypes.Structure):
    _fields_ = [("num_instructions", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def set_seccomp_filter(instructions: bytes) -> None:
    """Install a BPF program (8 bytes an instruction) for this thread and its descendants, for good."""
    program = _FilterProgram(len(instructions) // 8, instructions)
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(program))  # mode 2: filter


def set_gated_seccomp_filter(seccomp_call: int, instructions: bytes) -> int:
    """The same with a listener that is asked about calls of verdict "user notification"; returns its descriptor."""
    program = _FilterProgram(len(instructions) // 8, instructions)
    return syscall(seccomp_call, 1, 8, ctypes.pointer(program))  # SET_MODE_FILTER, FLAG_NEW_LISTENER


def unshare(flags: int) -> None:
    """Leave the parent's namespaces named by `flags`. Raises `OSError` when it is not permitted."""
    _checked(_LIBC.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Attach a file system, or change one that is attached. Raises `OSError` when it fails."""
    source_b, kind_b, options_b = (None if s is None else os.fsencode(s) for s in (source, kind, options))
    _checked(_LIBC.mount(source_b, os.fsencode(target), kind_b, _word(flags), options_b), f"mount on {target}")


def unmount(target: str, flags: int) -> None:
    """Detach a file system. Raises `OSError` when it fails."""
    _checked(_LIBC.umount2(os.fsencode(target), flags), f"umount of {target}")


def clear_capabilities() -> None:
    """Give up every capability: bounding, ambient, inheritable, permitted and effective."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # past the last capability, or not ours to drop: then there is none to gain either
            break
    prctl(PR_CAP_AMBIENT, 4)  # 4: clear all
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    empty = (ctypes.c_uint32 * 6)()
    _checked(_LIBC.capset(ctypes.byref(header), ctypes.byref(empty)), "capset")
