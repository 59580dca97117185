"""A root of its own for one program: a tree in which nothing is but what it may read, and its working directory.

Knows mounts; does not know why a path is on the list. Landlock shuts the content of all other files, but not that
they are there, how large they are and where links lead; and where there is no Landlock, this shuts their content too.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable

from mathlete.sandbox import kernel

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _AT_FDCWD = 442, (1 << 64) - 100
_MOUNT_ATTR_RDONLY_NOSUID = (3).to_bytes(8, sys.byteorder) + bytes(24)  # struct mount_attr
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC = 2, 4, 8, 0x1000, 0x4000
_MNT_DETACH = 2
_CLONE_NEWNS = 0x00020000


def enter_new_root(visible: Iterable[str], work_dir: str) -> bool:
    """Make a new root and leave the old one for good. Needs the right to mount, in a mount namespace of one's own.

    Args:
        visible: absolute paths of files and folders that are to be there, as they are mounted now; absent ones are
            left out.
        work_dir: is there too, and is the working directory afterwards. Its parent becomes the new root's place.

    Returns:
        False on a processor for which the number of the call is not known.

    Raises:
        OSError: when a mount is refused; the process is then of no more use.
    """
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        return False
    # The supervisor, whose namespace this was, still needs /proc.
    kernel.unshare(_CLONE_NEWNS)
    root = os.path.dirname(work_dir)
    work_fd = os.open(work_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # `root` is about to hide it
    kernel.mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=1m,nr_inodes=4096,mode=0755")
    for path in sorted(set(visible)):
        _show(path, root)
    os.makedirs(root + work_dir)
    kernel.mount(f"/proc/self/fd/{work_fd}", root + work_dir, None, _MS_BIND)
    os.close(work_fd)
    os.chdir(root)
    kernel.syscall(number, b".", b".")  # pivot_root(2): the old root now lies over the new one, until it is let go
    kernel.unmount(".", _MNT_DETACH)
    kernel.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", 0, _MOUNT_ATTR_RDONLY_NOSUID, 32)
    os.chdir(work_dir)
    return True


def _show(path: str, root: str) -> None:
    """Have `path` in the new root, with all that is mounted below it."""
    if not os.path.exists(path):
        return
    target = root + path
    if os.path.lexists(target):  # it lies in a folder that is shown already
        return
    if os.path.isdir(path):
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    kernel.mount(path, target, None, _MS_BIND | _MS_REC)
