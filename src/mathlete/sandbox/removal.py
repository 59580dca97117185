"""Removing directories that hostile programs filled. Knows no programs and no limits."""

from __future__ import annotations

import os
import queue
import stat
import threading
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


class Sweeper:
    """Removes directories in a thread of its own, so that no other program waits for a slow disk."""

    def __init__(self) -> None:
        """Start the thread."""
        self._paths: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="sweeper", daemon=True)
        self._thread.start()

    def remove(self, path: str) -> None:
        """Remove a directory: at once if it is empty, else as soon as those before it are gone."""
        try:
            os.rmdir(path)
        except OSError:
            self._paths.put(path)

    def close(self) -> None:
        """Wait until everything is removed. Call once."""
        self._paths.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (path := self._paths.get()) is not None:
            remove_tree(path)


def _entries(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(entries)
