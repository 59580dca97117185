r"""Golds, proved: each is written as a model would write it, and must be found and be equal to itself.

Knows the verifier that will judge the answers. A gold that fails here could never be matched: every attempt at its
problem would be marked wrong, whatever it said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mathlete.core.problem import AnswerKind
from mathlete.lab.mapped_rows import gold_text
from mathlete.verify.extraction import extract_answer, extract_boxed
from mathlete.verify.integers import answers_equal


@dataclass(frozen=True, slots=True)
class ProvedGold:
    """What came of one gold.

    Attributes:
        gold: canonical integer text; None when there is none, or it failed.
        reason: why it failed, for a person; None when it did not, or there was none.
    """

    gold: str | None
    reason: str | None = None


def prove_gold(value: Any, kind: AnswerKind) -> ProvedGold:
    r"""Put a gold through what an answer goes through.

    Args:
        value: the cell or key: text, a number, or nothing (None, NaN, blank). A text may be a solution that ends with
            "#### 18", as GSM8K has them, or has its answer in a \boxed{...}.
        kind: the admissible interval.
    """
    if is_blank(value):
        return ProvedGold(None)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ProvedGold(None, f"the answer must be text or a number, not {value!r:.60}")
    written = str(gold_text(value))
    if not written.strip():
        return ProvedGold(None, f"the answer, {str(value)[:60]!r}, is empty behind its mark")
    answer = _read_from_box(written, kind)
    if answer.gold is None:
        return ProvedGold(
            None,
            f"the answer, {written[:60]!r}, is not an integer in {kind.low}..{kind.high} ({answer.reason}); correct "
            "it, leave it empty, or delete the row",
        )
    again = _read_from_box(answer.gold, kind)
    if again.gold is None or not answers_equal(again.gold, answer.gold):
        return ProvedGold(None, f"the answer, {written[:60]!r}, is read as {answer.gold}, and that as {again.gold}")
    return answer


def is_blank(value: object) -> bool:
    """Whether a cell holds no value; NaN stands for none too."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def _read_from_box(text: str, kind: AnswerKind) -> ProvedGold:
    boxed = f"\\boxed{{{text}}}"
    extraction = extract_answer(boxed, None, kind)
    if extraction.source != "boxed" or extract_boxed(boxed) != text:
        return ProvedGold(None, "in a box it is not found; are its braces balanced?")
    return ProvedGold(extraction.answer, extraction.problem)
