"""What tests of the command line share: how a command ended, and a file of problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

THREE = "id,problem,answer\na,How many?,42\nb,How much?,7\nc,How long?,42\n"


@dataclass(frozen=True, slots=True)
class Called:
    """How a command ended."""

    code: int
    out: str
    err: str


Mathlete = Callable[..., Called]
