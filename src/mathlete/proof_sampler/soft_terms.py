r"""SPEC A1's soft terms: points for and against a piece of a solution, by its words and numbers alone. Pure.

They are the published defaults, not truths: whether they tell right steps from wrong ones is a matter of measuring
(`SoftWeights` with zeros turns single ones off). Nothing here is ever forbidden. Programs and their output (fenced
blocks) are not looked at, and what counts, counts once a piece: saying "therefore" ten times gains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from mathlete.core.problem import Problem

_FENCED = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(
    r"(?<![\w.])[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![\w,])|(?<![\w.])[0-9]{1,40}(?:\.[0-9]{1,40})?(?!\w)"
)
_CONCLUSIONS = re.compile(r"\b(therefore|thus|hence|consequently|it follows that|we conclude)\b", re.IGNORECASE)
_REASONS = re.compile(
    r"\b(since|because|suppose|assume|let|by induction|by contradiction|without loss of generality|given that)\b",
    re.IGNORECASE,
)
_QED = re.compile(r"\bQ\.E\.D\.|\bQED\b|∎|\\(?:qed|blacksquare|Box)(?![A-Za-z])")
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_MIN_SENTENCE_CHARS = 24
"""Shorter ones ("So $x = 2$.") may well stand twice."""


@dataclass(frozen=True, slots=True)
class SoftWeights:
    """What each thing is worth. The defaults are SPEC A1's.

    Attributes:
        far_number: for each number far beyond those of the problem.
        far_factor: how many times as large as the problem's largest number (or 100) that is; not published.
        non_integer: for each number with decimals, where the answer is an integer.
        conclusion: for each word like "therefore".
        reason: for each word like "since".
        qed: for a sign that a proof is complete.
        repetition: for each sentence that has been written before.
    """

    far_number: float = -2.0
    far_factor: int = 1000
    non_integer: float = -1.0
    conclusion: float = 0.5
    reason: float = 0.3
    qed: float = 1.0
    repetition: float = -2.0

    def __post_init__(self) -> None:
        """Raise `ValueError` when `far_factor` is below 1."""
        if self.far_factor < 1:
            raise ValueError(f"SoftWeights.far_factor must be >= 1, not {self.far_factor}")


PUBLISHED = SoftWeights()


class SoftTerms(NamedTuple):
    """The points of a piece, by what they are for; each as `SoftWeights` names it."""

    far_number: float
    non_integer: float
    conclusion: float
    reason: float
    qed: float
    repetition: float

    @property
    def total(self) -> float:
        """Their sum."""
        return sum(self)


def soft_terms(piece: str, before: str, problem: Problem, weights: SoftWeights = PUBLISHED) -> SoftTerms:
    """The points of a piece of a solution (a step, say). Takes time in proportion to the texts.

    Args:
        piece: what is judged.
        before: the solution up to there.
        problem: what is being solved.
        weights: what each thing is worth.
    """
    prose = _FENCED.sub("\n", piece)
    numbers = set(_numbers(prose))
    given = max((abs(number) for number in _numbers(problem.statement)), default=Decimal(0))
    far = weights.far_factor * max(given, Decimal(100))
    broken = [n for n in numbers if n % 1] if problem.answer_kind.type == "integer" else []
    return SoftTerms(
        far_number=weights.far_number * sum(number > far for number in numbers),
        non_integer=weights.non_integer * len(broken),
        conclusion=weights.conclusion * _num_different(_CONCLUSIONS, prose),
        reason=weights.reason * _num_different(_REASONS, prose),
        qed=weights.qed * bool(_QED.search(prose)),
        repetition=weights.repetition * _num_repeated(prose, _FENCED.sub("\n", before)),
    )


def _numbers(text: str) -> Iterator[Decimal]:
    """The numbers of a text, as they are written: no sign, no arithmetic."""
    return (Decimal(match.group().replace(",", "")) for match in _NUMBER.finditer(text.replace("{,}", ",")))


def _num_different(words: re.Pattern[str], text: str) -> int:
    return len({match.lower() for match in words.findall(text)})


def _num_repeated(piece: str, before: str) -> int:
    """Sentences of a piece that stand before it, or earlier in it."""
    seen = set(_sentences(before))
    num_repeated = 0
    for sentence in _sentences(piece):
        num_repeated += sentence in seen
        seen.add(sentence)
    return num_repeated


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE_END.split(text):
        words = " ".join(sentence.split())
        if len(words) >= _MIN_SENTENCE_CHARS:
            yield words
