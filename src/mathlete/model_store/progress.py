"""How long-running work on a file tells its caller how far it is. Knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one step of the work is.

    Attributes:
        what: the step, in words for a person; a new text means a new step.
        num_bytes: bytes done in this step.
        total_bytes: bytes this step has in all.
    """

    what: str
    num_bytes: int
    total_bytes: int


Report = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """A `Report` for callers who do not want to know."""
