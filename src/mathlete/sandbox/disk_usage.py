"""How much lies in a directory that somebody may be filling right now. Knows sizes, not limits' reasons."""

from __future__ import annotations

import errno
import os

MAX_DEPTH = 64  # of folders inside one another; each makes every path below it slower to look at


def exceeds(path: str, max_bytes: int, max_files: int) -> bool:
    """Whether what lies in a directory takes more room on its disk, or more entries, than it may.

    For where no file system keeps a ceiling. Looks at `max_files` entries at most, so that it takes milliseconds, and
    takes folders deeper than `MAX_DEPTH` or a path too long for the system as too much. What was deleted while it was
    open is not seen.
    """
    num_bytes = num_files = 0
    waiting = [(path, 0)]
    while waiting:
        folder, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return True
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    num_files += 1
                    num_bytes += _room_of(entry)
                    if num_files > max_files or num_bytes > max_bytes:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
        except OSError as error:  # it is gone by now, or may not be read
            if error.errno == errno.ENAMETOOLONG:
                return True
    return False


def _room_of(entry: os.DirEntry[str]) -> int:
    try:
        return 512 * entry.stat(follow_symlinks=False).st_blocks  # a sparse file takes what was written
    except FileNotFoundError:
        return 0
