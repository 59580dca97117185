"""From a `ConstraintSpec` to a constraint for one text."""

from __future__ import annotations

from functools import lru_cache

from mathlete.core.problem import AnswerKind
from mathlete.proof_sampler.answer_format import AnswerFormat
from mathlete.proof_sampler.bracket_states import START
from mathlete.proof_sampler.bracket_tracker import BracketTracker
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.token_constraint import ConstraintOrigin, TextConstraint
from mathlete.proof_sampler.token_masks import TokenMasks
from mathlete.proof_sampler.vocabulary import Vocabulary


def build_constraint(
    spec: ConstraintSpec, vocabulary: Vocabulary, answer_kind: AnswerKind, text_so_far: str = ""
) -> TextConstraint | None:
    """A constraint for the rest of an assistant's turn; None when nothing would be narrowed.

    Texts under the same rules share their masks, so all but the first of them find most masks ready.

    Args:
        spec: what is demanded.
        vocabulary: the model's, made once.
        answer_kind: what a boxed answer may be.
        text_so_far: the assistant's own turn as far as it stands, tool output included, and a "<think>" that the
            chat template has put there; never the problem: its brackets are not the model's to close. What is
            wrong in it is forgiven.
    """
    narrows_answer = spec.answer_format and AnswerFormat.of(answer_kind) is not None
    if not (spec.brackets or narrows_answer or spec.ends_after_answer):
        return None
    origin = ConstraintOrigin(spec, answer_kind, text_so_far)
    return TextConstraint(_masks(spec, vocabulary, answer_kind), text_so_far, origin)


_SLOWEST = (b"", b"\\begin{", b"\\boxed{")
"""Where masks first list tokens by their spelling: 20 to 60 ms each for 150,000, done before any text is written."""


@lru_cache(maxsize=8)
def _masks(spec: ConstraintSpec, vocabulary: Vocabulary, answer_kind: AnswerKind) -> TokenMasks:
    answer = AnswerFormat.of(answer_kind) if spec.answer_format else None
    tracker = BracketTracker(spec.max_depth, answer, not spec.brackets, spec.ends_after_answer)
    masks = TokenMasks(vocabulary, tracker)
    for opening in _SLOWEST:
        masks.mask(tracker.feed((START,), opening))
    return masks
