"""When an answer is accepted, and not only offered as the best there is. Pure.

The rule (SPEC part D): at least two independent attempts agree on it, at least one check supports it, and none refutes
it. A check is one that verifies (`cic/evidence.py`); a model's choice or a second calculation is none. The rule says
nothing of how likely the answer is right; that is the selection's confidence.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.cic.evidence import verification_of
from mathlete.core.attempt import Attempt

NUM_INDEPENDENT = 2


def is_accepted(answer: str, attempts: Sequence[Attempt]) -> bool:
    """Whether independent attempts agree on `answer`, a check supports it and none refutes it."""
    if num_independent(answer, attempts) < NUM_INDEPENDENT:
        return False
    verdicts = {item.verdict for item in verification_of(attempts).get(answer, ())}
    return bool(verdicts & {"SUPPORTED", "PROVED"}) and "REFUTED" not in verdicts


def num_independent(answer: str, attempts: Sequence[Attempt]) -> int:
    """How many attempts came to `answer` independently of each other.

    Two attempts are independent when neither knew anything of the other: both are of round 1 (later ones were shown
    what was found before), neither continues the other nor both a third (`parent_id`: a line of attempts counts once),
    and neither is a check. Sharing the model, the prompt and its errors is not dependence in this sense: such
    attempts are only as good as the model, which is why agreement alone accepts nothing.
    """
    return len(
        {
            attempt.parent_id or attempt.id
            for attempt in attempts
            if attempt.answer == answer and attempt.round == 1 and not attempt.is_check
        }
    )
