"""The runner of rank 0: whatever it does to its part of the model and of the KV cache, the other ranks do to theirs.

Planning, sampling and everything else of the engine run on rank 0 only and do not know of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mathlete.ryanstream.kv_cache import SlotMove
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.ops import ForwardBatch, Ops
from mathlete.ryanstream.model.transformer import ForwardOutput, Transformer
from mathlete.ryanstream.model.weights import ModelWeights
from mathlete.ryanstream.parallel.messages import CopyBlocks, ExportBlocks, Exported, ImportBlocks, MoveSlots, Step
from mathlete.ryanstream.parallel.workers import Workers
from mathlete.ryanstream.runner import ModelRunner, SampledToken
from mathlete.ryanstream.scheduler import StepPlan


class LeadingTransformer(Transformer):
    """Rank 0's transformer: each of its passes is one of all ranks."""

    def __init__(self, config: ModelConfig, weights: ModelWeights, ops: Ops, workers: Workers) -> None:
        """Rank 0's shape, weights and operations, and the processes that have the others'."""
        super().__init__(config, weights, ops)
        self.workers = workers

    def forward(self, batch: ForwardBatch, cache: Sequence[LayerCache]) -> ForwardOutput:
        """See `Transformer.forward`. Raises `EngineError` when a worker is lost."""
        with self.workers.work([Step.pack(batch)] * len(self.workers.pids)):
            return super().forward(batch, cache)


class ParallelRunner(ModelRunner):
    """A `ModelRunner` over all ranks. Every method raises `EngineError` when a worker is lost."""

    @property
    def _workers(self) -> Workers:
        assert isinstance(self._model, LeadingTransformer), "rank 0 alone has a ParallelRunner"
        return self._model.workers

    def execute(self, plan: StepPlan) -> list[tuple[SampledToken, ...]]:
        """See `ModelRunner.execute`."""
        if plan.copies:
            self._tell_all(CopyBlocks(plan.copies))
        return super().execute(plan)

    def move_slots(self, moves: Sequence[SlotMove]) -> None:
        """See `ModelRunner.move_slots`."""
        if moves:
            self._tell_all(MoveSlots(tuple(moves)))
        super().move_slots(moves)

    def export_blocks(self, block_ids: Sequence[int]) -> dict[str, Tensor]:
        """See `ModelRunner.export_blocks`: of all ranks, as "rank1/3.keys"."""
        self._tell_all(ExportBlocks(tuple(block_ids)))
        answers = self._workers.answers(Exported)
        tensors = [super().export_blocks(block_ids), *(a.tensors for a in answers if isinstance(a, Exported))]
        return {f"rank{rank}/{name}": tensor for rank, part in enumerate(tensors) for name, tensor in part.items()}

    def import_blocks(self, block_ids: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        """See `ModelRunner.import_blocks`. All parts are looked at before any rank writes its own."""
        parts = [_part_of(tensors, rank) for rank in range(len(self._workers.pids) + 1)]
        shapes = [{name: (tensor.shape, tensor.dtype) for name, tensor in part.items()} for part in parts]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError("the blocks were written by another number of ranks")
        super().import_blocks(block_ids, parts[0])
        with self._workers.work([ImportBlocks(tuple(block_ids), part) for part in parts[1:]]):
            pass

    def _tell_all(self, message: object) -> None:
        with self._workers.work([message] * len(self._workers.pids)):
            pass


def _part_of(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    prefix = f"rank{rank}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
