"""What tests of the command line share: how a command ended, and a file of problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mathlete.core.record import RunRecord, fold_run
from mathlete.lab.run_store import RunStore

THREE = "id,problem,answer\na,How many?,42\nb,How much?,7\nc,How long?,42\n"


@dataclass(frozen=True, slots=True)
class Called:
    """How a command ended."""

    code: int
    out: str
    err: str


Mathlete = Callable[..., Called]


def stored(folder: Path) -> RunRecord:
    """A run, read from its store while it is running or afterwards."""
    with RunStore.read(folder / "run.sqlite") as store:
        return fold_run(store.events())
