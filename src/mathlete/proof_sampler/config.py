"""What may be demanded of a text while it is written. Configuration only; `building.py` makes constraints of it.

Equations are not among it: `equations.py` says why they mask nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConstraintSpec:
    r"""Which hard constraints a text is written under.

    Attributes:
        brackets: what can never be right in LaTeX or Markdown is not written, and the text does not end inside
            something that is open (`bracket_tracker.py`).
        answer_format: inside `\boxed{...}` stands only what the problem's answer kind allows (`answer_format.py`).
        ends_after_answer: once `\boxed{...}` has been closed in the text itself (not in a fence, nor in thinking), the
            text ends with the line, where nothing is open. Off: what it does to accuracy has not been measured.
        max_depth: brackets, groups and environments open at once, at most; more is not written.
    """

    brackets: bool = True
    answer_format: bool = True
    ends_after_answer: bool = False
    max_depth: int = 32

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if not 4 <= self.max_depth <= 256:
            raise ValueError(f"ConstraintSpec.max_depth must be in [4, 256], not {self.max_depth}")
