"""Who decides how much is guessed. `FixedDepth` always guesses as much as it is told; `adaptive_depth.py` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.draft_tree import MAX_DRAFT_NODES, DraftTree


class DraftLimits(NamedTuple):
    """How much may be guessed for a request in this step; nothing when `max_nodes` is 0.

    Attributes:
        max_nodes: see `DraftSlot`.
        max_depth: see `DraftSlot`.
        min_probability: see `DraftSlot`.
    """

    max_nodes: int
    max_depth: int
    min_probability: float = 0.0


class DraftVerdict(NamedTuple):
    """What became of a draft: the nodes that the model drew too, from the root down."""

    request: EngineRequest
    tree: DraftTree
    accepted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One step in which every request got its next tokens and nothing else was computed.

    Attributes:
        seconds: from planning to the drawn tokens, without the proposer's time.
        propose_s: the proposer's time.
        num_rows: tokens computed, drafts included.
        num_requests: requests that took part.
        verdicts: of the drafts.
    """

    seconds: float
    propose_s: float
    num_rows: int
    num_requests: int
    verdicts: tuple[DraftVerdict, ...]


class DepthControl(Protocol):
    """Weighs what a guess is worth against what it costs to look at it."""

    def limits(self, requests: Sequence[EngineRequest], step_cost_s: float) -> list[DraftLimits]:
        """Before anything is guessed.

        Args:
            requests: all that get a token in this step.
            step_cost_s: see `Proposer.step_cost_s`.
        """
        ...

    def prune(self, requests: Sequence[EngineRequest], trees: Sequence[DraftTree]) -> list[DraftTree]:
        """What of the guesses to compute; the same order, as `limits` was asked."""
        ...

    def note(self, step: MeasuredStep) -> None:
        """Learn from a step."""
        ...

    def forget(self, request: EngineRequest) -> None:
        """The request has ended."""
        ...


class FixedDepth:
    """The same for every request, whatever it costs: for tests and for measuring proposers."""

    def __init__(self, max_depth: int, max_nodes: int | None = None) -> None:
        """A tree of at most `max_depth` levels and `max_nodes` nodes (a chain's when None).

        Raises:
            ValueError: for a limit out of range.
        """
        nodes = max_depth if max_nodes is None else max_nodes
        if not 1 <= max_depth <= nodes <= MAX_DRAFT_NODES:
            raise ValueError(f"need 1 <= max_depth <= max_nodes <= {MAX_DRAFT_NODES}, not {max_depth} and {nodes}")
        self._limits = DraftLimits(nodes, max_depth)

    def limits(self, requests: Sequence[EngineRequest], step_cost_s: float) -> list[DraftLimits]:
        """See `DepthControl.limits`."""
        return [self._limits] * len(requests)

    def prune(self, requests: Sequence[EngineRequest], trees: Sequence[DraftTree]) -> list[DraftTree]:
        """See `DepthControl.prune`."""
        return list(trees)

    def note(self, step: MeasuredStep) -> None:
        """See `DepthControl.note`."""

    def forget(self, request: EngineRequest) -> None:
        """See `DepthControl.forget`."""
