"""What a request under constraints tells a process that masks its tokens: plain data there, a constraint again here.

Knows how a constraint was made (`ConstraintOrigin`), so that it can be made once more elsewhere; knows no engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from mathlete.core.errors import EngineError
from mathlete.core.generation import TokenConstraint
from mathlete.core.problem import AnswerKind
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.token_constraint import TextConstraint
from mathlete.proof_sampler.vocabulary import Vocabulary

ARGUMENT = "mathlete_constraint"
"""The name in vLLM's `SamplingParams.extra_args`."""


class ConstraintRequest(NamedTuple):
    """What one request asks for, what `build_constraint` is told, and the ids that the constraint has read since."""

    spec: ConstraintSpec
    answer_kind: AnswerKind
    text_so_far: str
    accepted_ids: tuple[int, ...] = ()

    def build(self, vocabulary: Vocabulary) -> TextConstraint | None:
        """The constraint; None when nothing would be narrowed.

        Raises:
            EngineError: when it refuses one of `accepted_ids`.
        """
        made = build_constraint(self.spec, vocabulary, self.answer_kind, self.text_so_far)
        if made is not None and not made.accept(self.accepted_ids):
            raise EngineError(
                f"a constraint refuses token {made.validate(self.accepted_ids)} of what it is told stands"
            )
        return made


def constraint_args(
    spec: ConstraintSpec, answer_kind: AnswerKind, text_so_far: str = "", accepted_ids: Sequence[int] = ()
) -> dict[str, Any]:
    """The `extra_args` of a request that is to be written under constraints; plain data, as vLLM demands.

    `text_so_far` is as in `build_constraint`: a "<think>" that the chat template puts in belongs to it. `accepted_ids`
    are output that stands behind it, where a request goes on with what it wrote before.
    """
    told = {"spec": asdict(spec), "answer_kind": asdict(answer_kind), "text_so_far": text_so_far}
    return {ARGUMENT: {**told, "accepted_ids": list(accepted_ids)}}


def constraint_request(extra_args: Mapping[str, Any] | None) -> ConstraintRequest | None:
    """What a request asks for; None when it asks for nothing.

    Raises:
        ValueError: when its argument is not what `constraint_args` gives.
    """
    given = (extra_args or {}).get(ARGUMENT)
    if given is None:
        return None
    try:
        return ConstraintRequest(
            ConstraintSpec(**given["spec"]),
            AnswerKind(**given["answer_kind"]),
            str(given["text_so_far"]),
            tuple(int(token_id) for token_id in given.get("accepted_ids", ())),
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(
            f"extra_args[{ARGUMENT!r}] must be what constraint_args() gives ({type(error).__name__}: {error})"
        ) from error


def args_of_constraint(constraint: TokenConstraint, accepted_ids: Sequence[int] = ()) -> dict[str, Any]:
    """The `extra_args` for a constraint that stands in a request; `accepted_ids` are the output since.

    Raises:
        EngineError: it is not one of the ProofSampler's, or has read tokens before its request began.
    """
    origin = constraint.origin if isinstance(constraint, TextConstraint) else None
    if origin is None or not isinstance(constraint, TextConstraint):
        raise EngineError(
            f"a constraint of type {type(constraint).__name__} cannot be told to vLLM's process: only those that "
            "proof_sampler.building.build_constraint makes can"
        )
    if constraint.num_accepted != len(accepted_ids):
        raise EngineError(
            f"a constraint that has read {constraint.num_accepted} tokens cannot be told to vLLM's process behind "
            f"{len(accepted_ids)} tokens of output: give one that has read none"
        )
    return constraint_args(origin.spec, origin.answer_kind, origin.text_so_far, accepted_ids)
