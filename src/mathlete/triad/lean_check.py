"""What a proof in Lean 4 is asked of the model for, how it is asked, and what its text holds. Pure.

A problem may come with a formal statement, with a place for its answer or without. With one, the harness puts a
candidate in, and a proof is evidence for that candidate. Without, the proof is of the statement as it stands, which
says nothing on any candidate. Which proofs Lean takes is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.cic.evidence import LEAN
from mathlete.core.generation import Message
from mathlete.core.problem import Problem
from mathlete.triad.chat import filled, plain_text, shortened
from mathlete.triad.code_blocks import closed_blocks
from mathlete.verify.lean.statement import Statement, names_answer, statement_about

PILLAR = LEAN

_LANGUAGES = frozenset({"lean", "lean4"})
_FENCE = "```lean\n"


@dataclass(frozen=True, slots=True)
class LeanCheckConfig:
    """Limits of one try at a proof.

    Attributes:
        max_turns: proofs that are written: one, and corrections of it with Lean's messages shown.
        max_tokens: sampled tokens over all turns.
        max_message_chars: of Lean's messages that are shown; longer ones lose their middle.
    """

    max_turns: int = 3
    max_tokens: int = 1024
    max_message_chars: int = 1_500

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("max_turns", "max_tokens", "max_message_chars"):
            if getattr(self, name) < 1:
                raise ValueError(f"LeanCheckConfig.{name} must be >= 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class ProofGoal:
    """What is to be proved.

    Attributes:
        problem: whose formal statement it is.
        answer: the candidate that it speaks of, or None when it speaks of none.
        statement: with the candidate put in.
    """

    problem: Problem
    answer: str | None
    statement: Statement

    @property
    def claim(self) -> str:
        """In words, for a person."""
        about = "" if self.answer is None else f" for the answer {self.answer}"
        return f"Lean proof of {self.statement.name}{about}"

    @property
    def start(self) -> str:
        """How the assistant's turn begins: the theorem again, up to where its proof is to be written."""
        return f"{_FENCE}theorem {self.statement.name} {self.statement.signature} := by\n"

    def messages(self) -> tuple[Message, ...]:
        """The problem in words and in Lean."""
        user = filled(
            f"{PILLAR}_user.txt", statement=self.problem.statement.strip(), formal_statement=self.statement.text
        )
        return Message("system", filled(f"{PILLAR}_system.txt")), Message("user", user)

    def correction(self, proof: str, told: str, config: LeanCheckConfig) -> tuple[Message, ...]:
        """The chat goes on: the proof that failed, and what was said of it. Earlier failures are not shown again."""
        return (
            *self.messages(),
            Message("assistant", f"{_FENCE}{plain_text(proof).strip()}\n```"),
            Message("user", filled(f"{PILLAR}_again_user.txt", messages=lean_text(told, config))),
        )


def asked_about(pillar: str, problem: Problem, leading: Sequence[str]) -> tuple[str, ...] | None:
    """Which of the leading answers a check is launched about; None when it has nothing to work on.

    A proof needs a formal statement and is of one answer, the first; of none where the statement names none.
    """
    if pillar != PILLAR:
        return tuple(leading)
    if problem.formal_statement is None:
        return None
    return tuple(leading[:1]) if names_answer(problem.formal_statement) else ()


def proof_goal(problem: Problem, about: Sequence[str]) -> ProofGoal:
    """What is to be proved of a problem, for the first of the answers.

    Raises:
        ValueError: it has no formal statement, or one that needs an answer and there is none that is an integer.
        InputError: its formal statement is none.
    """
    text = problem.formal_statement
    if text is None:
        raise ValueError(f"{problem.id}: {PILLAR} needs a formal statement")
    answer = (about[0] if about else None) if names_answer(text) else None
    if answer is None and names_answer(text):
        raise ValueError(f"{problem.id}: {PILLAR} needs an answer to put into the statement")
    return ProofGoal(problem, answer, statement_about(text, answer))


def proof_in(text: str, *, complete: bool) -> str | None:
    """The last Lean block, which may be left open in a text that came to its own end; None when there is none."""
    blocks = [block for block in closed_blocks(text) if block.language in _LANGUAGES]
    _, fence, unclosed = text[blocks[-1].end if blocks else 0 :].rpartition(_FENCE)
    proofs = [block.code for block in blocks] + ([unclosed] if fence and complete else [])
    return next((proof for proof in reversed(proofs) if proof.strip()), None)


def lean_text(told: str, config: LeanCheckConfig) -> str:
    """What Lean said, fit for being shown to the model: parts of it are the model's own words."""
    return shortened(plain_text(told), config.max_message_chars).replace("```", "` ` `")
