"""Which runs a person means: by name, by folder, by store, or one of the runs of a store.

Knows the ways of writing that down. Does not know what is in a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mathlete.core.errors import InputError
from mathlete.lab.run_folder import STORE_NAME, RunFolder, runs_in
from mathlete.lab.run_store import RunStore, list_runs

SEPARATOR = "::"
"""Between a store of many runs and the name of one of them, as in `all.sqlite::20261126-040139-3c6437`."""
_NUM_LISTED = 5
_SQLITE_MARK = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run and where it is.

    Attributes:
        path: of its store.
        id: its name.
        run_id: its name in a store of many runs; None when it has a folder, and so a store, of its own.
    """

    path: Path
    id: str
    run_id: str | None = None

    def read(self) -> RunStore:
        """Open it for reading; see `RunStore.read`."""
        return RunStore.read(self.path, self.run_id)


def find_run(text: str, runs_dir: Path) -> FoundRun:
    """The one run that is meant.

    Args:
        text: a run's id in `runs_dir` or the beginning of one, "latest", a run's folder, a store that holds one run, or
            a store and one of its runs as `STORE::RUN`.
        runs_dir: where runs are kept.

    Raises:
        InputError: there is no such run, or more than one is meant; the message lists some.
        StorageError: a store cannot be opened.
    """
    store, separator, run_id = text.rpartition(SEPARATOR)
    if separator and Path(store).is_file():
        found = [run for run in _runs_of_store(Path(store)) if run.id == run_id]
        if not found:
            RunStore.read(Path(store), run_id).close()  # which says what is there
        return found[0]
    if not Path(text).is_file() or Path(text).name == STORE_NAME:
        folder = RunFolder.open(text, runs_dir)
        return _only_run(folder.store_path)
    return _only_run(Path(text))


def find_runs(text: str, runs_dir: Path) -> tuple[FoundRun, ...]:
    """All runs that are meant: those of a folder of runs, those of a store, or one as for `find_run`.

    The stores of a folder of runs are not opened for it: one that is damaged does not hide the others.

    Raises:
        InputError: there is no such run.
        StorageError: a store cannot be opened.
    """
    path = Path(text)
    if path.is_dir() and not (path / STORE_NAME).is_file():
        folders = sorted(runs_in(path), key=lambda folder: folder.id)
        if not folders:
            raise InputError(f"there are no runs in {path}")
        return tuple(FoundRun(folder.store_path, folder.id) for folder in folders)
    if path.is_file() and path.name != STORE_NAME:
        return _runs_of_store(path)
    return (find_run(text, runs_dir),)


def check_replaceable(path: Path) -> None:
    """Raise `InputError` when what is at `path` is a store, which no report and no export may take the place of."""
    try:
        with path.open("rb") as file:
            is_store = file.read(len(_SQLITE_MARK)) == _SQLITE_MARK
    except OSError:  # nothing there, or nothing that can be read: whoever writes says so
        return
    if is_store:
        raise InputError(f"{path} is a run store, and would be lost; give another name for what is to be written")


def _runs_of_store(path: Path) -> tuple[FoundRun, ...]:
    runs = list_runs(path)
    is_its_own = path.name == STORE_NAME and len(runs) == 1
    return tuple(FoundRun(path, run.id, None if is_its_own else run.id) for run in runs)


def _only_run(path: Path) -> FoundRun:
    runs = _runs_of_store(path)
    if len(runs) > 1:
        named = ", ".join(f"{path}{SEPARATOR}{run.id}" for run in runs[:_NUM_LISTED])
        raise InputError(
            f"{path} holds {len(runs)} runs; name one of them: {named}{', ...' * (len(runs) > _NUM_LISTED)}"
        )
    if not runs:
        raise InputError(f"there are no runs in {path}")
    return runs[0]
