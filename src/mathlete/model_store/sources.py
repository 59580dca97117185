"""What a source of model files offers. Knows no particular source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mathlete.model_store.progress import Report
from mathlete.model_store.registry import ModelSpec


class SourceUnavailable(Exception):
    """This source cannot deliver the model; another may. The message says why."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that has arrived and is not yet verified.

    Attributes:
        path: where it lies, below the folder the source was given.
        origin: where it came from, in words for `info`.
    """

    path: Path
    origin: str


class Source(Protocol):
    """Somewhere a known model file can be had."""

    name: str

    def num_bytes_kept(self, folder: Path) -> int:
        """Bytes in `folder` that an earlier, interrupted `fetch` left and the next need not fetch again."""
        ...

    def fetch(self, spec: ModelSpec, folder: Path, report: Report) -> Fetched:
        """Bring the file into `folder` (which exists), going on from what is there.

        Raises:
            SourceUnavailable: it cannot be had here.
            StorageError: the disk is full or not writable; what was fetched is kept.
        """
        ...
