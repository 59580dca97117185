"""What a proposer of drafts is. Implementations: one a file beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.draft_tree import DraftTree


@dataclass(frozen=True, slots=True)
class DraftSlot:
    """A request that wants a draft.

    Attributes:
        request: its newest known token is not computed yet, all before it are. It holds blocks for `max_nodes` tokens
            beyond those it knows.
        max_nodes: nodes at most, >= 1.
        max_depth: of the tree at most, >= 1.
        min_probability: what follows a node is not worth the proposer's time where the product of the confidences down
            to the node is smaller. A proposer without a cost a level need not look at it.
    """

    request: EngineRequest
    max_nodes: int
    max_depth: int
    min_probability: float = 0.0


class Proposer(Protocol):
    """Guesses the next tokens of requests.

    It reads what it needs from the request (`token_slice`, `num_tokens`) when it is asked, and catches up by itself.
    A request whose `num_rewinds` has changed went back: what was read beyond the common start is void.
    """

    def propose(self, slots: Sequence[DraftSlot]) -> list[DraftTree]:
        """A tree for each slot, `EMPTY` where there is nothing to guess."""
        ...

    def note_hidden(self, request: EngineRequest, position: int, hidden: Tensor) -> None:
        """Called after a step where `wants_hidden`: the model's hidden states float32 [n, hidden] at positions
        `position`, `position + 1`, ... of the request, all known to be right now."""  # noqa: D205, D209
        ...

    @property
    def wants_hidden(self) -> bool:
        """Whether `note_hidden` is to be called."""
        ...

    @property
    def step_cost_s(self) -> float:
        """Seconds that one more level of depth costs in `propose`, as last measured; 0 when it is free."""
        ...

    def forget(self, request: EngineRequest) -> None:
        """The request has ended: keep of it what helps others, free the rest."""
        ...
