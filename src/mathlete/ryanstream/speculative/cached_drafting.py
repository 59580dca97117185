"""Drafts of a model that has its own KV cache: who is computed how far, level by level, and what a level costs.

Knows twins, budgets and seconds; the passes themselves are the proposer's (`draft_model.py`, `eagle.py`).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from mathlete.ryanstream.kv_cache import BLOCK_SIZE, SlotMove
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.sampling import SampleKernel
from mathlete.ryanstream.speculative.draft_cache import DraftCache, Twin
from mathlete.ryanstream.speculative.draft_forward import tokens_after
from mathlete.ryanstream.speculative.draft_tree import MAX_DRAFT_NODES, ROOT, DraftTree
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.tree_growth import FrontierNode, GrowingDraft, GrowthRule, NextToken, grow

CATCH_UP_TOKENS = 256  # known tokens computed in one call at most, unless told otherwise
_NUM_MEASURED = 32  # levels whose median is the cost of the next


class WantedDraft(NamedTuple):
    """What a request wants.

    Attributes:
        slot: how much.
        token_ids: what its twin has to hold before anything can be guessed.
        least_held: without so many of them in the cache already it cannot be computed, and has no draft.
    """

    slot: DraftSlot
    token_ids: list[int]
    least_held: int = 0


@dataclass(slots=True)
class KnownTokens:
    """What a call computes of a twin's known tokens: those at places [start, end)."""

    slot: DraftSlot
    twin: Twin
    token_ids: list[int]
    start: int
    end: int

    @property
    def caught_up(self) -> bool:
        """Whether nothing is left to compute after it: the request gets a draft."""
        return self.end == len(self.token_ids)

    @property
    def new_ids(self) -> list[int]:
        """The tokens that are computed."""
        return self.token_ids[self.start : self.end]


class DraftPasses(Protocol):
    """How a proposer computes."""

    def known(self, parts: Sequence[KnownTokens], moves: Sequence[SlotMove]) -> Tensor:
        """Do the moves, compute the parts; logits float32 [R, V] after each part that has caught up, in order."""
        ...

    def nodes(
        self, parts: Sequence[KnownTokens], drafts: Sequence[GrowingDraft], nodes: Sequence[FrontierNode]
    ) -> Tensor:
        """Compute nodes, whose parents are computed: logits float32 [len(nodes), V]; drafts[i] is that of parts[i]."""
        ...


class CachedDrafting:
    """Grows the drafts of all requests together over twins.

    Attributes:
        twins: what the cache holds of each request.
        rule: how drafts grow.
    """

    def __init__(
        self,
        num_blocks: int,
        rule: GrowthRule,
        vocab_size: int,
        sampler: SampleKernel | None,
        catch_up_tokens: int = CATCH_UP_TOKENS,
        keeps_drafts: bool = True,
    ) -> None:
        """All blocks start empty.

        Args:
            num_blocks: of the cache.
            rule: how drafts grow.
            vocab_size: only tokens below are proposed.
            sampler: what draws, None for torch.
            catch_up_tokens: known tokens computed in one call at most.
            keeps_drafts: whether the keys and values of a node are those of its token, should it be accepted.
        """
        self.twins = DraftCache(num_blocks)
        self.rule = rule
        self._vocab_size = vocab_size
        self._sampler = sampler
        self._catch_up_tokens = catch_up_tokens
        self._keeps_drafts = keeps_drafts
        self._level_s: deque[float] = deque(maxlen=_NUM_MEASURED)

    @property
    def level_cost_s(self) -> float:
        """The median of the last levels, those that caught up with a prompt left out; 0 before the first."""
        return statistics.median(self._level_s) if self._level_s else 0.0

    def draft(self, wanted: Sequence[WantedDraft], passes: DraftPasses) -> dict[EngineRequest, DraftTree]:
        """The drafts of the requests that have caught up."""
        moves: list[SlotMove] = []
        parts = self._parts(wanted, moves)
        ready = [part for part in parts if part.caught_up]
        drafts = [GrowingDraft(p.slot, self.rule, self._vocab_size, self._max_grown(p.slot)) for p in ready]
        computed: list[set[int]] = [set() for _ in ready]

        def run_level(nodes: Sequence[FrontierNode]) -> list[NextToken]:
            if nodes[0].node == ROOT:
                logits = self._known(passes, parts, moves)
            else:
                logits = passes.nodes(ready, drafts, nodes)
                for at in nodes:
                    computed[at.draft].add(at.node)
            return tokens_after(drafts, nodes, logits, self._sampler)

        if parts and not ready:
            self._known(passes, parts, moves)
        seconds = grow(drafts, run_level)
        few = all(part.end - part.start <= BLOCK_SIZE for part in parts)
        self._level_s.extend(seconds if few else seconds[1:])
        for part, draft, nodes in zip(ready, drafts, computed, strict=True) if self._keeps_drafts else ():
            part.twin.note_draft(draft.token_ids, draft.parents, nodes)
        return {part.slot.request: draft.tree() for part, draft in zip(ready, drafts, strict=True)}

    def _known(self, passes: DraftPasses, parts: Sequence[KnownTokens], moves: Sequence[SlotMove]) -> Tensor:
        logits = passes.known(parts, moves)
        for part in parts:
            self.twins.note_computed(part.twin, part.new_ids)
        return logits

    def _max_grown(self, slot: DraftSlot) -> int:
        """A tree may try as many nodes as its levels hold: the blocks for them are the draft's own."""
        if self.rule.width == 1:
            return slot.max_nodes
        return min(MAX_DRAFT_NODES, max(slot.max_nodes, self.rule.width * slot.max_depth))

    def _parts(self, wanted: Sequence[WantedDraft], moves: list[SlotMove]) -> list[KnownTokens]:
        """Who is computed, and how much: first those that need little; `moves` gets what comes before."""
        parts: list[KnownTokens] = []
        starting: list[list[int]] = []
        for slot, token_ids, least_held in wanted:
            moves += self.twins.align(slot.request, token_ids)
            if self.twins.is_held(slot.request, token_ids, starting):
                continue
            twin = self.twins.follow(slot.request, token_ids, self._max_grown(slot))
            if twin is None:
                continue
            if len(twin.ids) < least_held:
                self.twins.empty(twin)
                continue
            if len(token_ids) - len(twin.ids) > BLOCK_SIZE:
                starting.append(token_ids)
            parts.append(KnownTokens(slot, twin, token_ids, len(twin.ids), len(token_ids)))
        left = self._catch_up_tokens
        for part in sorted(parts, key=lambda part: part.end - part.start):
            part.end = min(part.end, part.start + left)
            left -= part.end - part.start
        return [part for part in parts if part.end > part.start]
