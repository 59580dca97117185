"""A smaller model guesses (Leviathan et al. 2023): its own weights and its own KV cache, one draft a request.

It catches up with a request by itself, a long prompt in parts, so that it holds nobody up; until it has caught up the
request has no draft. What it holds of a request, and what happens when there is no room: `draft_cache.py`. How drafts
grow: `tree_growth.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mathlete.ryanstream.block_tensors import move_slots
from mathlete.ryanstream.kv_cache import SlotMove
from mathlete.ryanstream.model.layer_cache import allocate_cache
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.precision import AutoPrecisionManager
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.sampling import SampleKernel
from mathlete.ryanstream.speculative.cached_drafting import (
    CATCH_UP_TOKENS,
    CachedDrafting,
    KnownTokens,
    WantedDraft,
)
from mathlete.ryanstream.speculative.draft_forward import DraftRow, draft_batch, known_rows, node_row
from mathlete.ryanstream.speculative.draft_tree import EMPTY, DraftTree
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.tree_growth import FrontierNode, GrowingDraft, GrowthRule


class DraftModelProposer:
    """See the module."""

    def __init__(
        self,
        model: Transformer,
        num_blocks: int,
        kv_dtype: torch.dtype = torch.bfloat16,
        sampler: SampleKernel | None = None,
        precisions: AutoPrecisionManager | None = None,
        rule: GrowthRule | None = None,
        vocab_size: int | None = None,
        catch_up_tokens: int = CATCH_UP_TOKENS,
    ) -> None:
        """Allocate the draft's cache.

        Args:
            model: the smaller model; its tokens are the target's.
            num_blocks: of its cache.
            kv_dtype: of its cache.
            sampler: what draws, None for torch.
            precisions: chooses the model's weights for each pass; None leaves them as they are.
            rule: how drafts grow.
            vocab_size: of the target; the smaller model's own when None.
            catch_up_tokens: known tokens computed in one call at most.
        """
        self._model = model
        self._device = model.weights.embedding.device
        self._cache = allocate_cache(model.config, num_blocks, kv_dtype, self._device)
        self._precisions = precisions
        num_tokens = min(model.config.vocab_size, vocab_size or model.config.vocab_size)
        self._drafting = CachedDrafting(num_blocks, rule or GrowthRule(), num_tokens, sampler, catch_up_tokens)

    @property
    def wants_hidden(self) -> bool:
        """See `Proposer.wants_hidden`."""
        return False

    @property
    def step_cost_s(self) -> float:
        """See `Proposer.step_cost_s`."""
        return self._drafting.level_cost_s

    def note_hidden(self, request: EngineRequest, position: int, hidden: Tensor) -> None:
        """See `Proposer.note_hidden`: not used."""

    def forget(self, request: EngineRequest) -> None:
        """See `Proposer.forget`: its whole blocks can still be found by siblings."""
        self._drafting.twins.forget(request)

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless the draft's blocks and requests agree."""
        self._drafting.twins.check_integrity()

    @property
    def num_free_blocks(self) -> int:
        """Blocks of the draft's cache that no request holds."""
        return self._drafting.twins.pool.num_free

    def propose(self, slots: Sequence[DraftSlot]) -> list[DraftTree]:
        """See `Proposer.propose`."""
        wanted = [WantedDraft(slot, slot.request.token_slice(0, slot.request.num_tokens)) for slot in slots]
        trees = self._drafting.draft(wanted, self)
        return [trees.get(slot.request, EMPTY) for slot in slots]

    def known(self, parts: Sequence[KnownTokens], moves: Sequence[SlotMove]) -> Tensor:
        """See `DraftPasses.known`."""
        move_slots(self._cache, moves)
        rows: list[DraftRow] = []
        for seq, part in enumerate(parts):
            rows += known_rows(part.new_ids, part.start, part.twin.block_ids, seq, part.caught_up)
        return self._run(rows, parts)

    def nodes(
        self, parts: Sequence[KnownTokens], drafts: Sequence[GrowingDraft], nodes: Sequence[FrontierNode]
    ) -> Tensor:
        """See `DraftPasses.nodes`."""
        rows: list[DraftRow] = []
        for at in nodes:
            twin = parts[at.draft].twin
            rows.append(node_row(drafts[at.draft], at.node, twin.block_ids, len(twin.ids), at.draft))
        return self._run(rows, parts)

    def _run(self, rows: Sequence[DraftRow], parts: Sequence[KnownTokens]) -> Tensor:
        if self._precisions is not None:
            self._model.weights = self._precisions.weights(len(rows))
        batch = draft_batch(rows, [part.twin.block_ids for part in parts])
        return self._model.forward(batch, self._cache).logits
