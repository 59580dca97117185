"""Removing a directory that a hostile program filled. Knows no programs and no limits."""

from __future__ import annotations

import os
import stat
from itertools import count


def remove_tree(path: str) -> None:
    """Remove a directory with all in it, however deep it is and whatever its modes are; links are not followed.

    Blocks the attacks on `os.walk` and `shutil.rmtree`: both call themselves for every level, so that a few
    thousand directories inside one another end the caller, and neither enters one that may not be read. Here a
    directory's own directories are moved to the top before it is removed, so no path is ever longer than two names.

    Nobody else may work in it meanwhile. What cannot be removed (a file that only root may) is left.
    """
    fresh = count()
    waiting = [path]
    while waiting:
        directory = waiting.pop()
        try:
            for entry in _entries(directory):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, stat.S_IRWXU)  # also to move it: its ".." changes
                moved = f"{path}.{next(fresh)}"
                os.rename(entry.path, moved)
                waiting.append(moved)
            os.rmdir(directory)
        except OSError:  # it stays; the others need not
            continue


def _entries(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(entries)
