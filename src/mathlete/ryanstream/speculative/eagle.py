"""An EAGLE head guesses (Li et al. 2024, EAGLE and EAGLE-2): one small layer that continues the model's hidden states.

It is told of the model's hidden states after each step and computes its rows from them; behind the last one it goes on
with what it has made itself. Those rows are computed again once the true states are there. Its own KV cache has one
layer, and place 0 of a request's twin is position `origin`: the model finds prefixes in its cache and then computes no
hidden states for them. Where the head has such a prefix too, it goes on from there; else it begins where states do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mathlete.ryanstream.block_tensors import move_slots
from mathlete.ryanstream.kv_cache import SlotMove
from mathlete.ryanstream.model.layer_cache import allocate_cache
from mathlete.ryanstream.model.ops import Ops
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.sampling import SampleKernel
from mathlete.ryanstream.speculative.cached_drafting import (
    CATCH_UP_TOKENS,
    CachedDrafting,
    KnownTokens,
    WantedDraft,
)
from mathlete.ryanstream.speculative.draft_forward import DraftRow, draft_batch, known_rows, node_row
from mathlete.ryanstream.speculative.draft_tree import EMPTY, ROOT, DraftTree
from mathlete.ryanstream.speculative.eagle_head import EagleHead, eagle_forward
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.tree_growth import FrontierNode, GrowingDraft, GrowthRule

_MOST_STATES = 4096  # kept of a request while nobody asks for drafts: older ones are let go


@dataclass(slots=True, eq=False)
class _States:
    """Hidden states of a request that may still be needed: `rows[i]` [hidden] at position `end - len(rows) + i`.

    `origin` is the position of place 0 of its twin.
    """

    rows: deque[Tensor] = field(default_factory=lambda: deque(maxlen=_MOST_STATES))
    end: int = 0
    origin: int = 0

    @property
    def first(self) -> int:
        """The position of the first."""
        return self.end - len(self.rows)

    def put(self, position: int, hidden: Tensor) -> None:
        """States from `position` on; what was known there and behind is void."""
        if not self.first <= position <= self.end:
            self.rows.clear()
        while self.rows and self.end > position:
            self.rows.pop()
            self.end -= 1
        self.rows.extend(hidden.unbind(0))
        self.end = position + len(hidden)

    def at(self, start: int, end: int) -> list[Tensor]:
        """Those of positions [start, end)."""
        return [self.rows[position - self.first] for position in range(start, end)]

    def forget_before(self, position: int) -> None:
        """The states before are not needed any more."""
        while self.rows and self.first < position:
            self.rows.popleft()


class EagleProposer:
    """See the module."""

    def __init__(
        self,
        head: EagleHead,
        model: Transformer,
        ops: Ops,
        num_blocks: int,
        kv_dtype: torch.dtype = torch.bfloat16,
        sampler: SampleKernel | None = None,
        rule: GrowthRule | None = None,
        catch_up_tokens: int = CATCH_UP_TOKENS,
    ) -> None:
        """Allocate the head's cache.

        Args:
            head: its weights.
            model: the target, whose embedding and output head it uses.
            ops: operations for the head's shape.
            num_blocks: of its cache.
            kv_dtype: of its cache.
            sampler: what draws, None for torch.
            rule: how drafts grow.
            catch_up_tokens: known tokens computed in one call at most.
        """
        self._head, self._model, self._ops = head, model, ops
        self._device = model.weights.embedding.device
        self._cache = allocate_cache(head.config, num_blocks, kv_dtype, self._device)
        self._drafting = CachedDrafting(
            num_blocks, rule or GrowthRule(), model.config.vocab_size, sampler, catch_up_tokens, keeps_drafts=False
        )
        self._states: dict[EngineRequest, _States] = {}
        self._made: dict[FrontierNode, Tensor] = {}  # the state that the head made at a node, in this call

    @property
    def wants_hidden(self) -> bool:
        """See `Proposer.wants_hidden`."""
        return True

    @property
    def step_cost_s(self) -> float:
        """See `Proposer.step_cost_s`."""
        return self._drafting.level_cost_s

    def note_hidden(self, request: EngineRequest, position: int, hidden: Tensor) -> None:
        """See `Proposer.note_hidden`."""
        self._states.setdefault(request, _States()).put(position, hidden)

    def forget(self, request: EngineRequest) -> None:
        """See `Proposer.forget`: its whole blocks can still be found by siblings."""
        self._states.pop(request, None)
        self._drafting.twins.forget(request)

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless the head's blocks and requests agree."""
        self._drafting.twins.check_integrity()

    @property
    def num_free_blocks(self) -> int:
        """Blocks of the head's cache that no request holds."""
        return self._drafting.twins.pool.num_free

    def propose(self, slots: Sequence[DraftSlot]) -> list[DraftTree]:
        """See `Proposer.propose`."""
        wanted = [draft for slot in slots if (draft := self._wanted(slot)) is not None]
        trees = self._drafting.draft(wanted, self)
        self._made.clear()
        return [trees.get(slot.request, EMPTY) for slot in slots]

    def known(self, parts: Sequence[KnownTokens], moves: Sequence[SlotMove]) -> Tensor:
        """See `DraftPasses.known`."""
        move_slots(self._cache, moves)
        rows: list[DraftRow] = []
        hidden: list[Tensor] = []
        for seq, part in enumerate(parts):
            states = self._states[part.slot.request]
            rows += known_rows(
                part.new_ids, part.start, part.twin.block_ids, seq, part.caught_up, first_position=states.origin
            )
            hidden += states.at(states.origin + part.start, states.origin + part.end)
            states.forget_before(states.origin + part.end - 1)  # the last is kept: it may be asked for again
        made, logits = self._run(rows, torch.stack(hidden), parts)
        self._made = {FrontierNode(draft, ROOT): state for draft, state in enumerate(made)}
        return logits

    def nodes(
        self, parts: Sequence[KnownTokens], drafts: Sequence[GrowingDraft], nodes: Sequence[FrontierNode]
    ) -> Tensor:
        """See `DraftPasses.nodes`."""
        rows: list[DraftRow] = []
        for at in nodes:
            part = parts[at.draft]
            origin = self._states[part.slot.request].origin
            rows.append(node_row(drafts[at.draft], at.node, part.twin.block_ids, len(part.twin.ids), at.draft, origin))
        above = [self._made[FrontierNode(at.draft, drafts[at.draft].parents[at.node])] for at in nodes]
        made, logits = self._run(rows, torch.stack(above), parts)
        self._made.update(zip(nodes, made, strict=True))
        return logits

    def _wanted(self, slot: DraftSlot) -> WantedDraft | None:
        """The tokens after each state, from the twin's origin on; None without the newest state."""
        request = slot.request
        states = self._states.get(request)
        num_known = request.num_tokens
        if states is None or states.end != num_known - 1 or not states.rows:
            return None
        if states.first < states.origin:  # it went back to before the twin's first place
            self._drafting.twins.forget(request)
        if not self._drafting.twins.holds(request):
            states.origin = 0
        token_ids = request.token_slice(states.origin + 1, num_known)
        if states.origin + self._drafting.twins.num_held(request, token_ids) < states.first:
            self._drafting.twins.forget(request)
            states.origin = states.first
            token_ids = request.token_slice(states.origin + 1, num_known)
        return WantedDraft(slot, token_ids, max(0, states.first - states.origin))

    def _run(self, rows: Sequence[DraftRow], hidden: Tensor, parts: Sequence[KnownTokens]) -> tuple[Tensor, Tensor]:
        """States float32 [R, hidden] and logits float32 [R, V] of the rows that ask for them; hidden [M, hidden]."""
        batch = draft_batch(rows, [part.twin.block_ids for part in parts]).to(self._device)
        embedded = self._model.embed(batch.token_ids)
        made = eagle_forward(self._head, self._ops, hidden, embedded, batch, self._cache[0])[batch.logit_rows]
        return made, self._model.plain_logits(made)
