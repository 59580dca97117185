"""The target guesses with its own first layers, its final norm and its head (Zhang et al. 2024, Draft & Verify).

It computes on the target's own KV cache: the keys and values that its layers write at the places of a draft are those
that the verification writes there again. A trained exit (`exit_adapter.py`) may take the place of the final norm. Which
layer to leave at: `exit_choice.py`.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

from torch import Tensor

from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.precision import AutoPrecisionManager
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.sampling import SampleKernel
from mathlete.ryanstream.speculative.draft_forward import DraftRow, draft_batch, known_rows, node_row, tokens_after
from mathlete.ryanstream.speculative.draft_tree import ROOT, DraftTree
from mathlete.ryanstream.speculative.exit_adapter import ExitAdapter
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.tree_growth import FrontierNode, GrowingDraft, GrowthRule, NextToken, grow

_NUM_MEASURED = 32  # levels whose median is the cost of the next


class EarlyExitProposer:
    """See the module. Holds nothing of any request."""

    def __init__(
        self,
        model: Transformer,
        cache: Sequence[LayerCache],
        exit_layer: int,
        sampler: SampleKernel | None = None,
        precisions: AutoPrecisionManager | None = None,
        rule: GrowthRule | None = None,
        adapter: ExitAdapter | None = None,
    ) -> None:
        """Guess with part of the target.

        Args:
            model: the target.
            cache: the target's keys and values.
            exit_layer: how many layers guess, at least 1 and fewer than there are.
            sampler: what draws, None for torch.
            precisions: the target's, which chooses the weights of each pass; None leaves them as they are.
            rule: how drafts grow.
            adapter: a trained exit for this layer, or None.

        Raises:
            ValueError: when `exit_layer` is out of range, or not the adapter's.
        """
        if not 1 <= exit_layer < model.config.num_layers:
            raise ValueError(f"exit_layer must be in [1, {model.config.num_layers - 1}], not {exit_layer}")
        if adapter is not None and adapter.exit_layer != exit_layer:
            raise ValueError(f"the exit was trained for layer {adapter.exit_layer}, not {exit_layer}")
        self._model, self._cache, self._exit_layer = model, cache, exit_layer
        self._sampler, self._precisions, self._adapter = sampler, precisions, adapter
        self._rule = rule or GrowthRule()
        self._level_s: deque[float] = deque(maxlen=_NUM_MEASURED)

    @property
    def exit_layer(self) -> int:
        """How many layers guess."""
        return self._exit_layer

    @property
    def wants_hidden(self) -> bool:
        """See `Proposer.wants_hidden`."""
        return False

    @property
    def step_cost_s(self) -> float:
        """See `Proposer.step_cost_s`: the median of the last levels."""
        return statistics.median(self._level_s) if self._level_s else 0.0

    def note_hidden(self, request: EngineRequest, position: int, hidden: Tensor) -> None:
        """See `Proposer.note_hidden`: not used."""

    def forget(self, request: EngineRequest) -> None:
        """See `Proposer.forget`: there is nothing to free."""

    def propose(self, slots: Sequence[DraftSlot]) -> list[DraftTree]:
        """See `Proposer.propose`."""
        drafts = [GrowingDraft(slot, self._rule, self._model.config.vocab_size) for slot in slots]
        tables = [slot.request.block_ids for slot in slots]

        def run_level(nodes: Sequence[FrontierNode]) -> list[NextToken]:
            rows = [row for at in nodes for row in _rows(drafts[at.draft], at.node, at.draft)]
            return tokens_after(drafts, nodes, self._logits(rows, tables), self._sampler)

        self._level_s.extend(grow(drafts, run_level))
        return [draft.tree() for draft in drafts]

    def _logits(self, rows: Sequence[DraftRow], tables: Sequence[Sequence[int]]) -> Tensor:
        """What the exit says after each row, float32 [R, V]."""
        model = self._model
        if self._precisions is not None:
            model.weights = self._precisions.weights(len(rows))
        batch = draft_batch(rows, tables).to(model.weights.embedding.device)
        x = model.layers(model.embed(batch.token_ids), batch, self._cache, stop=self._exit_layer)
        if self._adapter is None:
            return model.logits(x)
        return model.logits(self._adapter.apply(x), self._adapter.norm)


def _rows(draft: GrowingDraft, node: int, seq: int) -> list[DraftRow]:
    request = draft.request
    known = request.num_tokens
    if node == ROOT:
        return known_rows(request.token_slice(known - 1, known), known - 1, request.block_ids, seq, samples=True)
    return [node_row(draft, node, request.block_ids, known, seq)]
