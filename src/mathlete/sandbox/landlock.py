"""Which files a program may open, by Landlock. Knows paths and rights, not why a path is on the list.

Landlock (Linux 5.13) also shuts TCP from version 4 of its interface, and signals and abstract sockets to
processes outside from version 6. It does not cover stat, chdir or changes of mode and owner.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterable

from mathlete.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every processor
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NEVER = _EXECUTE | _MAKE_CHAR | _MAKE_SOCK | _MAKE_BLOCK | _IOCTL_DEV
# Number of file rights that each version of the interface knows; a later version adds none.
_NUM_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP = 0b11
_SCOPES = 0b11


def version() -> int:
    """Version of the kernel's Landlock interface; 0 when it has none or it is switched off."""
    try:
        return kernel.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("rights", ctypes.c_uint64), ("fd", ctypes.c_int32)]


def restrict(readable: Iterable[str], writable: Iterable[str], devices: Iterable[str]) -> bool:
    """Take from this process every right on files but these, for good. Needs `PR_SET_NO_NEW_PRIVS`.

    Args:
        readable: files and directories that may be read, with all beneath; absent ones are left out.
        writable: directories beneath which anything may be made, written and removed.
        devices: files that may be read and written.

    Returns:
        False when the kernel has no Landlock.
    """
    abi = version()
    if abi == 0:
        return False
    rights = (1 << _NUM_FILE_RIGHTS[min(abi, 5)]) - 1
    ruleset = _Ruleset(rights, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset_fd = kernel.syscall(_CREATE_RULESET, ctypes.pointer(ruleset), size, 0)
    try:
        for paths, allowed in ((readable, _READ), (writable, ~_NEVER), (devices, _READ_FILE | _WRITE_FILE)):
            for path in paths:
                _allow(ruleset_fd, path, allowed & rights)
        kernel.syscall(_RESTRICT_SELF, ruleset_fd, 0)
    finally:
        os.close(ruleset_fd)
    return True


def _allow(ruleset_fd: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # what cannot be reached needs no rule
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        kernel.syscall(_ADD_RULE, ruleset_fd, _RULE_PATH_BENEATH, ctypes.pointer(_PathRule(rights, fd)), 0)
    finally:
        os.close(fd)
