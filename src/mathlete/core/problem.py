"""What is to be solved. A `Problem` carries no gold answer, so a solver cannot peek."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

AnswerType = Literal["integer", "expression", "proof"]


@dataclass(frozen=True, slots=True)
class AnswerKind:
    """What a final answer may be.

    Attributes:
        type: "integer", "expression" or "proof".
        low: smallest admissible integer, inclusive.
        high: largest admissible integer, inclusive.
    """

    type: AnswerType = "integer"
    low: int = 0
    high: int = 99_999

    def __post_init__(self) -> None:
        """Raise `ValueError` when the interval is empty."""
        if self.low > self.high:
            raise ValueError(f"AnswerKind.low ({self.low}) must not exceed high ({self.high})")

    def admits(self, value: int) -> bool:
        """Whether `value` lies in the closed interval [low, high]."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem as the solver sees it.

    Attributes:
        id: unique within a run.
        statement: the text, LaTeX allowed. Hostile input like any other text.
        answer_kind: what the answer may be.
        formal_statement: a Lean 4 statement, when there is one.
        source: where it comes from, for the report.
    """

    id: str
    statement: str
    answer_kind: AnswerKind = field(default_factory=AnswerKind)
    formal_statement: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for an empty id or statement."""
        if not self.id.strip():
            raise ValueError("Problem.id must not be empty")
        if not self.statement.strip():
            raise ValueError(f"Problem.statement of {self.id!r} must not be empty")
