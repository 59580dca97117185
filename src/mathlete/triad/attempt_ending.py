"""What an attempt of any pillar amounts to once it is over: its answer, or why it has none, and how sure it was.

Pure: knows turns. Does not know how they came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mathlete.core.attempt import CUT_OFF, Attempt, Failure, Turn
from mathlete.core.confidence import confidence_features
from mathlete.core.problem import AnswerKind
from mathlete.core.selection import Evidence
from mathlete.triad.pillar import Done, PillarAttempt
from mathlete.verify.extraction import extract_answer
from mathlete.verify.integers import Extraction

NOT_LOOKED_FOR = Extraction(None, "", "missing")
"""The answer of an attempt that was "stopped" because the vote was settled without it: it gets none."""


def answer_in(turns: Sequence[Turn], kind: AnswerKind, *, complete: bool) -> Extraction:
    """The answer in what was written behind the last program's output, or in that output.

    Args:
        turns: of the attempt, in order.
        kind: of answer that is wanted.
        complete: whether the text came to its own end.
    """
    ran = [i for i, turn in enumerate(turns) if turn.result is not None]
    after = "".join(turn.text for turn in turns[ran[-1] + 1 if ran else 0 :])
    last = turns[ran[-1]].result if ran else None
    stdout = last.stdout if last is not None and last.status == "ok" else None
    return extract_answer(after, stdout, kind, complete=complete)


def features_of(turns: Sequence[Turn]) -> dict[str, float]:
    """Of the tokens of all turns that stand."""
    return confidence_features(
        [value for turn in turns for value in turn.logprobs],
        [value for turn in turns for value in turn.entropies],
        [value for turn in turns for value in turn.top_means],
        [value for turn in turns for value in turn.top5_bits],
    )


def ending(
    attempt: PillarAttempt,
    pillar: str,
    turns: Sequence[Turn],
    found: Extraction,
    failure: Failure,
    now_s: float,
    features: Mapping[str, float],
) -> Done:
    """The attempt, over. `failure` says who cut it off, or stands when no answer was `found`."""
    return Done(
        Attempt(
            id=attempt.attempt_id,
            problem_id=attempt.problem.id,
            index=attempt.index,
            pillar=pillar,
            seed=attempt.seed,
            temperature=attempt.temperature,
            answer=found.answer,
            answer_source=found.source,
            turns=tuple(turns),
            num_tokens=sum(turn.num_tokens for turn in turns),
            elapsed_s=now_s - attempt.started_s,
            features=features,
            failure=_reason(turns, found, failure),
            num_discarded=sum(turn.num_discarded for turn in turns),
        )
    )


def check_ending(
    attempt: PillarAttempt,
    pillar: str,
    turns: Sequence[Turn],
    evidence: Sequence[Evidence],
    failure: Failure,
    now_s: float,
) -> Done:
    """A check, over: it has no answer. `failure` stands when no evidence has a verdict."""
    has_verdict = any(item.verdict != "UNKNOWN" for item in evidence)
    over = ending(attempt, pillar, turns, NOT_LOOKED_FOR, failure, now_s, features_of(turns)).attempt
    return Done(replace(over, failure=None if has_verdict else failure, evidence=tuple(evidence)))


def _reason(turns: Sequence[Turn], found: Extraction, failure: Failure) -> Failure | None:
    if failure in CUT_OFF:
        return failure
    if found.value is not None:
        return None
    if found.problem == "out_of_range":
        return "out_of_range"
    results = [turn.result for turn in turns if turn.result is not None]
    return "tool_error" if failure == "no_answer" and results and results[-1].status != "ok" else failure
