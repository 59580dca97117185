"""The published rule for the depth of drafts (SPEC A2), the baseline for `adaptive_depth.py`. Knows nothing of costs.

Acceptance is the share of a draft's nodes that the model drew too. Above 0.8 a request's depth grows by 1, up to 8;
below 0.3 three times in a row it shrinks by 1, down to 2. It never stops guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.ryanstream.request import EngineRequest, Status
from mathlete.ryanstream.speculative.depth_control import DraftLimits, MeasuredStep
from mathlete.ryanstream.speculative.draft_tree import DraftTree

_GROWS_ABOVE, _SHRINKS_BELOW, _TIMES = 0.8, 0.3, 3
_LEAST, _MOST = 2, 8


@dataclass(slots=True)
class _Record:
    depth: int
    num_poor: int = 0  # drafts in a row


class PublishedDepth:
    """Implements `DepthControl`. Drafts are chains."""

    def __init__(self, first_depth: int = 4) -> None:
        """Begin each request at `first_depth`, from 2 to 8. Raises `ValueError` for another."""
        if not _LEAST <= first_depth <= _MOST:
            raise ValueError(f"first_depth must be from {_LEAST} to {_MOST}, not {first_depth}")
        self._first_depth = first_depth
        self._records: dict[EngineRequest, _Record] = {}

    def limits(self, requests: Sequence[EngineRequest], step_cost_s: float) -> list[DraftLimits]:
        """See `DepthControl.limits`."""
        return [DraftLimits(depth, depth) for depth in (self._record(request).depth for request in requests)]

    def prune(self, requests: Sequence[EngineRequest], trees: Sequence[DraftTree]) -> list[DraftTree]:
        """See `DepthControl.prune`."""
        return list(trees)

    def note(self, step: MeasuredStep) -> None:
        """See `DepthControl.note`."""
        for verdict in step.verdicts:
            if verdict.request.status is Status.FINISHED or not verdict.tree.num_nodes:
                continue
            record = self._record(verdict.request)
            acceptance = len(verdict.accepted) / verdict.tree.num_nodes
            record.num_poor = record.num_poor + 1 if acceptance < _SHRINKS_BELOW else 0
            if acceptance > _GROWS_ABOVE:
                record.depth = min(record.depth + 1, _MOST)
            elif record.num_poor == _TIMES:
                record.depth, record.num_poor = max(record.depth - 1, _LEAST), 0

    def forget(self, request: EngineRequest) -> None:
        """See `DepthControl.forget`."""
        self._records.pop(request, None)

    def _record(self, request: EngineRequest) -> _Record:
        return self._records.setdefault(request, _Record(self._first_depth))
