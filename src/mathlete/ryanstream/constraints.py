"""The engine's side of token constraints: the masks of a step, and what a constraint says of a token.

Constraints are other people's code. Whatever goes wrong in one ends its own request, with what went wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mathlete.core.errors import EngineError
from mathlete.core.generation import TokenConstraint
from mathlete.ryanstream.draw_rows import DrawRow
from mathlete.ryanstream.request import EngineRequest, RequestEnd, what_went_wrong
from mathlete.ryanstream.sampling import ConstrainedRows


class ConstraintMasks:
    """One row of words for each constrained request of a step; its memory is kept from step to step."""

    def __init__(self, vocab_size: int) -> None:
        """For masks of `vocab_size` tokens."""
        self._num_words = -(-vocab_size // 32)
        self._words = torch.zeros((0, self._num_words), dtype=torch.int32)
        self._views: list[memoryview] = []

    def fill(self, rows: Sequence[DrawRow]) -> ConstrainedRows | None:
        """Ask the constraint of each row that has one and is free to draw; None when there is none.

        Where a constraint raises, nothing is allowed, and where it was asked about the request's own text, not about
        guesses, `constraint_failure` says why.
        """
        constrained = [i for i, row in enumerate(rows) if row.constraint is not None and row.forced_id is None]
        if not constrained:
            return None
        self._make_room(len(constrained))
        self._words[: len(constrained)].zero_()
        for view, i in zip(self._views, constrained, strict=False):
            constraint, request = rows[i].constraint, rows[i].request
            assert constraint is not None
            try:
                constraint.fill_mask(view)
            except Exception as error:
                view[:] = memoryview(bytes(view.nbytes)).cast("I")
                if rows[i].place == len(request.output_ids):
                    request.constraint_failure = what_went_wrong(error)
        return ConstrainedRows(torch.tensor(constrained), self._words[: len(constrained)])

    def _make_room(self, num_rows: int) -> None:
        if num_rows > len(self._views):
            self._words = torch.zeros((num_rows, self._num_words), dtype=torch.int32)
            self._views = [memoryview(row.numpy()).cast("B").cast("I") for row in self._words]


def told_constraint(request: EngineRequest, token_id: int) -> RequestEnd | None:
    """Tell the request's constraint, if it has one, of its next token; the end that follows from it, or None.

    "stop" when nothing but the end of text may follow; "error" when the constraint raises, or refuses a token
    that its own mask had allowed or that closes a block of thinking by force.
    """
    constraint = request.constraint
    if constraint is None:
        return None
    try:
        accepted = constraint.accept((token_id,))
        terminated = accepted and constraint.terminated
    except Exception as error:
        return constraint_error(request, what_went_wrong(error))
    if accepted:
        return RequestEnd("stop") if terminated else None
    source = "which closes the block of thinking by force" if request.forced_id is not None else "which it had allowed"
    return constraint_error(request, f"it refused token {token_id}, {source}")


def forked_constraint(request: EngineRequest) -> TokenConstraint | None:
    """The request's constraint for a second request with the same tokens; None when it has none.

    Raises:
        EngineError: when its constraint cannot be copied: two requests would change one state.
    """
    if request.constraint is None:
        return None
    try:
        return request.constraint.copy()
    except Exception as error:
        kind, reason = type(request.constraint).__name__, what_went_wrong(error)
        raise EngineError(
            f"request {request.request_id!r} cannot be forked: its constraint ({kind}): {reason}"
        ) from error


def constraint_error(request: EngineRequest, what: str) -> RequestEnd:
    """The end of a request whose constraint failed."""
    place = len(request.output_ids)
    return RequestEnd("error", message=f"the request's constraint failed at output token {place}: {what}")
