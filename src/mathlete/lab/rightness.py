"""Whether what a run or a recording says is right. The one place where it is judged; all figures and pages ask here.

Knows who has the last word: whoever recorded the attempts, where they were judged (`ProblemRecord.correct`), else the
label, compared as an integer or letter by letter. Does not know other notations: those were judged when the attempts
were read (`answer_judging.py`). Pure.
"""

from __future__ import annotations

from mathlete.core.attempt import Attempt
from mathlete.core.record import ProblemRecord
from mathlete.lab.recorded import RecordedProblem
from mathlete.verify.integers import answers_equal


def is_right(record: ProblemRecord, answer: str) -> bool:
    """Whether an answer to a problem is right: as whoever judged the attempts that gave it said, else by the label.

    False for every answer while neither is known.
    """
    if record.correct is not None:
        gave_it = _who_gave(record, answer)
        if gave_it:
            return not record.correct.isdisjoint(gave_it)
    return record.gold is not None and _is_label(answer, record.gold)


def attempt_is_right(record: ProblemRecord, attempt: Attempt) -> bool | None:
    """Whether an attempt's answer is right; no answer is wrong, and None says that there is no telling."""
    if record.correct is not None:
        return attempt.id in record.correct
    if record.gold is None:
        return None
    return attempt.answer is not None and is_right(record, attempt.answer)


def choice_is_right(record: ProblemRecord) -> bool | None:
    """Whether the answer handed in is right, a fallback's too; none yet is wrong, and None says there is no telling."""
    if record.gold is None:
        return None
    return record.selection is not None and is_right(record, record.selection.answer)


def recorded_as_right(item: RecordedProblem, answer: str) -> bool:
    """The same of a recorded problem: as the recording says where an attempt gave the answer, else by the label."""
    told = [right for attempt, right in zip(item.attempts, item.correct, strict=True) if attempt.answer == answer]
    return any(told) if told else _is_label(answer, item.gold)


def _is_label(answer: str, gold: str) -> bool:
    return answer.strip() == gold.strip() or answers_equal(answer, gold)


def _who_gave(record: ProblemRecord, answer: str) -> set[str]:
    """Ids of the attempts with this answer. A record without its attempts still has those that the choice names."""
    clusters = record.selection.clusters if record.selection is not None else ()
    named = {name for cluster in clusters if cluster.answer == answer for name in cluster.attempt_ids}
    return named | {attempt.id for attempt in record.attempts if attempt.answer == answer}
