"""Which selectors were trained on a recording: replayed on it, they are judged by what they have seen.

Knows the record of training that a learned rule carries with its weights. Does not know how it was trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mathlete.cic.registry import make_selector
from mathlete.cic.triad_selector import TriadSelector

_ALL = "all attempts"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Trained:
    """That a selector was trained on a recording.

    Attributes:
        selector: its name.
        held_out: its accuracy on this recording's problems by weights that saw none of them, by the number of attempts
            drawn (None: all), where the record of training has it.
    """

    selector: str
    held_out: dict[int | None, float] = field(default_factory=dict)


def trained_on(path: Path, selectors: Iterable[str]) -> dict[str, Trained]:
    """Of some selectors those that were trained on a file: one of the same name, or with the same bytes.

    A file of the same name counts even when its bytes differ, since a part of what was trained on is as much in sample.
    A folder, or a renamed part of a file, is not recognised.
    """
    found = {}
    digest: str | None = None
    for name in selectors:
        selector = make_selector(name)
        if not isinstance(selector, TriadSelector) or not path.is_file():
            continue
        digest = digest or _sha256(path)
        for source in selector.model.training.get("files", ()):
            if source["name"] == path.name or source["sha256"] == digest:
                figures = selector.model.held_out.get("files", {}).get(source["name"], {})
                found[name] = Trained(name, _by_size(figures))
    return found


def _by_size(figures: dict[str, dict[str, float] | None]) -> dict[int | None, float]:
    """Accuracies of a record of training, whose sizes are written as "8 attempts"."""
    return {
        None if size == _ALL else int(size.split()[0]): told["accuracy"]
        for size, told in figures.items()
        if told is not None
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
