"""What attempts of a second round are shown of the first: the leading answers, each with a piece of one attempt.

Pure. Knows what attempts wrote; does not know votes, nor whether a second round pays. What attempts wrote is hostile
text here: whoever reads it must find neither control tokens of a chat in it nor a way out of its quotation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mathlete.core.attempt import Attempt
from mathlete.core.generation import Message
from mathlete.core.problem import Problem
from mathlete.triad.chat import filled, plain_text, shortened
from mathlete.triad.solution_attempt import PillarSpec

MAX_ANSWERS = 4
MAX_EXCERPT_CHARS = 800

_CLOSED_THINKING = "</think>"


def second_round_messages(
    spec: PillarSpec, problem: Problem, answers: Sequence[str], pool: Sequence[Attempt]
) -> tuple[Message, ...]:
    """The chat that opens an attempt of a second round.

    Answers stand in the order of their values, and nothing is said of how many attempts gave each: an attempt that knew
    would lean to the leader, or away from it.

    Args:
        spec: the pillar, whose prompts are used.
        problem: the problem.
        answers: what others found, leaders first; the first four are shown.
        pool: finished attempts, where those that gave the answers are looked for.
    """
    shown = sorted(answers[:MAX_ANSWERS], key=int)
    found = "\n\n".join(_shown(answer, representative(answer, pool)) for answer in shown)
    system = filled(f"{spec.prompts or spec.name}_system.txt")
    user = filled(
        f"{spec.round2_prompt or spec.name}_round2_user.txt",
        statement=problem.statement.strip(),
        found=found,
        answers=", ".join(answers),
    )
    return Message("system", system), Message("user", user)


def representative(answer: str, pool: Sequence[Attempt]) -> Attempt | None:
    """The attempt that stands for an answer: of those of the earliest round the one that was surest of its words.

    That is the lowest mean entropy; the first where nobody tells. None when no attempt gave the answer.
    """
    giving = [attempt for attempt in pool if attempt.answer == answer and not attempt.is_check]
    return min(giving, key=lambda a: (a.round, a.features.get("mean_entropy", math.inf)), default=None)


def excerpt(attempt: Attempt) -> str:
    """What an attempt wrote and its programs printed, its two ends, without its thinking where that is closed."""
    text = "".join(turn.text + (turn.tool_text or "") for turn in attempt.turns)
    said = text.rpartition(_CLOSED_THINKING)[2].strip()
    text = plain_text(said or text.replace(_CLOSED_THINKING, ""))
    return shortened(re.sub(r"\n\s*\n+", "\n", text).strip(), MAX_EXCERPT_CHARS)


def _shown(answer: str, attempt: Attempt | None) -> str:
    if attempt is None:
        return f"An attempt found {answer}."
    quoted = "\n".join(f"> {line}" for line in excerpt(attempt).splitlines())
    return f"An attempt found {answer}. It wrote:\n{quoted}"
