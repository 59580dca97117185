"""What a check's verdict rests on, and which checks verify. Pure.

A checker's name is its pillar, and behind a colon the manner in which its program came to the verdict
(`verify.checks.manner`): one that worked the answer out itself is another attempt, not a test of this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mathlete.core.attempt import Attempt
from mathlete.core.selection import Evidence

Basis = Literal["program", "resolution", "model", "proof"]

GENSELECT = "genselect_check"  # the pillar whose attempts pick one of the solutions
LEAN = "lean_check"  # the pillar whose attempts prove a formal statement
_BY_PILLAR: dict[str, Basis] = {LEAN: "proof", GENSELECT: "model"}
_BY_MANNER: dict[str, Basis | None] = {"resolved": "resolution", "stated": None}


def basis_of(checker: str) -> Basis | None:
    """What the verdicts of a checker rest on.

    Returns:
        "proof" (a proof that was checked), "program" (conditions of the statement, tested), "resolution" (the answer
        worked out anew), "model" (a model's choice), or None for a program that only states an answer.
    """
    pillar, _, manner = checker.partition(":")
    return _BY_PILLAR.get(pillar) or _BY_MANNER.get(manner, "program")


def verifies(evidence: Evidence) -> bool:
    """Whether it is verification, and not one more opinion: a proof, or a test of the statement's conditions."""
    return basis_of(evidence.checker) in ("program", "proof")


def verification_of(attempts: Sequence[Attempt]) -> dict[str, list[Evidence]]:
    """For each answer the evidence that verifies, UNKNOWN included, in the order of the pool."""
    found: dict[str, list[Evidence]] = {}
    for evidence in (item for attempt in attempts for item in attempt.evidence):
        if evidence.answer is not None and verifies(evidence):
            found.setdefault(evidence.answer, []).append(evidence)
    return found
