"""Where a run keeps its files: one folder per run, found again by its name.

Knows names of files and folders and how to replace a file safely. Does not know what is in the files.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from mathlete.core.errors import InputError, StorageError

LATEST = "latest"

STORE_NAME = "run.sqlite"
_RESERVE_NAME = "reserve"
_RESERVE_BYTES = 64 << 10  # holds a submission of a thousand problems in both forms
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NUM_LISTED = 5


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run. Made with `create` or found with `open`.

    Attributes:
        path: the folder, `<runs_dir>/<id>`.
    """

    path: Path

    @property
    def id(self) -> str:
        """The run's name, that of its folder."""
        return self.path.name

    @property
    def store_path(self) -> Path:
        """The run store (SQLite)."""
        return self.path / STORE_NAME

    @property
    def submission_csv(self) -> Path:
        """The answers as CSV."""
        return self.path / "submission.csv"

    @property
    def submission_parquet(self) -> Path:
        """The answers as Parquet."""
        return self.path / "submission.parquet"

    @property
    def attempts_jsonl(self) -> Path:
        """Every finished attempt, in the interchange format."""
        return self.path / "attempts.jsonl"

    @property
    def report_html(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    @classmethod
    def create(cls, runs_dir: Path, run_id: str | None = None) -> RunFolder:
        """A new folder for a run; its name begins with the time in UTC when none is given.

        A small reserve of disk space is set aside in it, so that the answers can still be written when the
        disk has become full meanwhile (see `release_reserve`).

        Raises:
            InputError: the name cannot be used, or is taken.
            StorageError: the folder cannot be made.
        """
        name = run_id if run_id is not None else f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        if name == LATEST or not _RUN_ID.fullmatch(name):
            raise InputError(f"{name!r} cannot name a run: use letters, digits, '.', '_' and '-', and not {LATEST!r}")
        folder = cls(runs_dir / name)
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            folder.path.mkdir()
        except FileExistsError as error:
            if folder.path.is_dir():
                raise InputError(
                    f"there is a run {name} in {runs_dir} already; resume it or choose another name"
                ) from error
            raise InputError(f"cannot keep runs in {runs_dir}: a file of that name is in the way") from error
        except OSError as error:
            raise StorageError(f"cannot make the folder {folder.path}: {error.strerror}") from error
        folder._reserve()
        return folder

    @classmethod
    def open(cls, run_or_path: str | Path, runs_dir: Path) -> RunFolder:
        """The folder of an existing run, for `--resume`.

        Args:
            run_or_path: a run's id in `runs_dir`, the beginning of one when only one begins so, "latest" for
                the one last written to, or a path to a run's folder or its store.
            runs_dir: where runs are kept.

        Raises:
            InputError: no such run, or more than one. The message lists the newest runs.
        """
        text = str(run_or_path)
        runs = runs_in(runs_dir)
        named = [run for run in runs if run.id == text]
        if text == LATEST:
            named = runs[:1]
        if named:
            return named[0]
        path = Path(run_or_path)
        given = cls(path.parent if path.name == STORE_NAME else path)
        if given.store_path.is_file():
            return given
        if path.exists():
            raise InputError(f"{path} is not a run: there is no {STORE_NAME} in it. {_newest(runs, runs_dir)}")
        begun = [run for run in runs if text and run.id.startswith(text)]
        if len(begun) == 1:
            return begun[0]
        if begun:
            raise InputError(
                f"{len(begun)} runs begin with {text!r}; write more of the name. {_newest(begun, runs_dir)}"
            )
        raise InputError(f"there is no run {text!r}. {_newest(runs, runs_dir)}")

    def release_reserve(self) -> None:
        """Give back the space set aside by `create`, just before the answers are written. Safe to call twice.

        Raises:
            StorageError: the folder cannot be written to.
        """
        try:
            (self.path / _RESERVE_NAME).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write in {self.path}: {error.strerror}") from error

    def _reserve(self) -> None:
        try:
            with (self.path / _RESERVE_NAME).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
        except OSError as error:
            shutil.rmtree(self.path, ignore_errors=True)
            raise StorageError(
                f"cannot write in {self.path}: {error.strerror}; nothing has been started; "
                "free some space on that disk or choose another folder"
            ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader, or a crash, sees either all of it or what was there before.

    Raises:
        StorageError: it could not be written; what was at `path` is untouched.
    """
    with replacing_file(path) as file:
        file.write(content)


@contextmanager
def replacing_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of `path` at the end, and only if all went well.

    Raises:
        StorageError: it could not be written; what was at `path` is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")  # one name, so that a killed process leaves one file at most
    try:
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def runs_in(runs_dir: Path) -> list[RunFolder]:
    """The runs in a folder of runs, the one last written to first."""
    if not runs_dir.is_dir():
        return []
    runs = [RunFolder(path) for path in runs_dir.iterdir() if (path / STORE_NAME).is_file()]
    return sorted(runs, key=lambda run: (_last_written_s(run), run.id), reverse=True)


def _last_written_s(run: RunFolder) -> float:
    log = run.path / f"{STORE_NAME}-wal"  # newer than the store while a run is going on, or after a crash
    return max(path.stat().st_mtime for path in (run.store_path, log) if path.exists())


def _newest(runs: list[RunFolder], runs_dir: Path) -> str:
    if not runs:
        return f"There are no runs in {runs_dir}."
    more = f" and {len(runs) - _NUM_LISTED} more" if len(runs) > _NUM_LISTED else ""
    return f"Newest in {runs_dir}: {', '.join(run.id for run in runs[:_NUM_LISTED])}{more}."
