"""The rows of a step that draw a token: one for a request's newest token and one for each node of its draft.

Plain data, and the one place that says in which order they come: entries in the plan's order, in each the root first.
"""

from __future__ import annotations

from typing import NamedTuple

from mathlete.core.generation import TokenConstraint
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.scheduler import PlannedRequest
from mathlete.ryanstream.speculative.draft_states import DrawnGuess


class DrawRow(NamedTuple):
    """One token to draw.

    Attributes:
        request: whose.
        place: of the token in the request's output; it has its own noise.
        constraint: which tokens may be drawn, or None.
        forced_id: the token that must come, or None.
        guess: for this very token, if it was made by drawing, or None.
    """

    request: EngineRequest
    place: int
    constraint: TokenConstraint | None
    forced_id: int | None
    guess: DrawnGuess | None = None


def draw_rows(entry: PlannedRequest) -> list[DrawRow]:
    """The rows of an entry that draws."""
    request, draft = entry.request, entry.draft
    place = len(request.output_ids)
    root = DrawRow(request, place, request.constraint, request.forced_id)
    if draft is None:
        return [root]
    tree = draft.tree
    nodes = [
        DrawRow(request, place + depth, state.constraint, state.forced_id)
        for depth, state in zip(tree.depths(), draft.states, strict=True)
    ]
    rows = [root, *nodes]
    judged = [row._replace(guess=guess) for row, guess in zip(rows, draft.drawn, strict=False)]
    return [*judged, *rows[len(judged) :]]
