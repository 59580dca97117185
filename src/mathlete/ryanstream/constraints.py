"""The engine's side of token constraints: the masks of a step, and what a constraint says of a token.

Constraints are other people's code. Whatever goes wrong in one ends its own request, with what went wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mathlete.core.errors import EngineError
from mathlete.core.generation import TokenConstraint
from mathlete.ryanstream.request import EngineRequest, RequestEnd
from mathlete.ryanstream.sampling import ConstrainedRows


class ConstraintMasks:
    """One row of words for each constrained request of a step; its memory is kept from step to step."""

    def __init__(self, vocab_size: int) -> None:
        """For masks of `vocab_size` tokens."""
        self._num_words = -(-vocab_size // 32)
        self._words = torch.zeros((0, self._num_words), dtype=torch.int32)
        self._views: list[memoryview] = []

    def fill(self, requests: Sequence[EngineRequest]) -> ConstrainedRows | None:
        """Ask the constraint of each request that has one and is free to draw; None when there is none.

        Where a constraint raises, its request's `constraint_failure` says so and nothing is allowed.
        """
        rows = [i for i, r in enumerate(requests) if r.constraint is not None and r.forced_id is None]
        if not rows:
            return None
        self._make_room(len(rows))
        self._words[: len(rows)].zero_()
        for view, row in zip(self._views, rows, strict=False):
            request = requests[row]
            assert request.constraint is not None
            try:
                request.constraint.fill_mask(view)
            except Exception as error:
                view[:] = memoryview(bytes(view.nbytes)).cast("I")
                request.constraint_failure = _what_went_wrong(error)
        return ConstrainedRows(torch.tensor(rows), self._words[: len(rows)])

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
        return constraint_error(request, _what_went_wrong(error))
    if accepted:
        return RequestEnd("stop") if terminated else None
    source = "which closes the block of thinking by force" if request.forced_id is not None else "which it had allowed"
    return constraint_error(request, f"it refused token {token_id}, {source}")


def forked_constraint(request: EngineRequest) -> TokenConstraint | None:
    """The request's constraint for a second request with the same tokens; None when it has none.

    Raises:
        EngineError: when the constraint offers no `copy()`: two requests would change one state.
    """
    if request.constraint is None:
        return None
    copied = getattr(request.constraint, "copy", None)
    if copied is None:
        kind = type(request.constraint).__name__
        raise EngineError(f"request {request.request_id!r} cannot be forked: its constraint ({kind}) has no copy()")
    constraint: TokenConstraint = copied()
    return constraint


def constraint_error(request: EngineRequest, what: str) -> RequestEnd:
    """The end of a request whose constraint failed."""
    place = len(request.output_ids)
    return RequestEnd("error", message=f"the request's constraint failed at output token {place}: {what}")


def _what_went_wrong(error: Exception) -> str:
    return f"it raised {type(error).__name__}: {error}"
