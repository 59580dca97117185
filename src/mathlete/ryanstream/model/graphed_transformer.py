"""A transformer whose passes are replayed as CUDA graphs: launching 300 kernels one by one takes longer than they do.

A graph is a pass of fixed shape over fixed memory. So batches are padded to one of a few widths, and copied into the
memory that the graph of that width reads. Padding rows store no key or value (slot -1) and belong to nobody; every
row computes what it would have without them, but for what torch's products do with another number of rows.

Layers are in the graph, the output head is not: it is a few launches while the layers still run, and so a batch may
want the logits and hidden states of any of its rows. Graphs are captured when a shape first comes, and thrown away
when the weights or the cache are others than before, because a graph holds addresses and not tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.core.errors import EngineError
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.ops import ForwardBatch, Ops
from mathlete.ryanstream.model.transfer import pack, unpack
from mathlete.ryanstream.model.transformer import ForwardOutput, Transformer
from mathlete.ryanstream.model.weights import ModelWeights

WIDTHS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_NARROWEST_PATHS = 8


class PassShape(NamedTuple):
    """What a graph is for: number of rows, blocks in a table, and slots in a path (0: no row is a tree's node)."""

    width: int
    max_blocks: int
    path_width: int


class _CapturedPass(NamedTuple):
    """A graph; the bytes it reads and what they are; the residual stream float32 [width, hidden] it leaves."""

    graph: torch.cuda.CUDAGraph
    packed: Tensor
    batch: ForwardBatch
    residual: Tensor


def pass_shape(batch: ForwardBatch, max_blocks: int) -> PassShape | None:
    """The shape of the graph for a batch; None when it has more rows than the widest, or longer tables."""
    num_rows, (num_sequences, longest) = len(batch.token_ids), batch.tables.shape
    width = next((width for width in WIDTHS if width >= max(num_rows, num_sequences)), None)
    if width is None or num_rows == 0 or longest > max_blocks:
        return None
    if batch.paths is None:
        return PassShape(width, max_blocks, 0)
    return PassShape(width, max_blocks, max(_NARROWEST_PATHS, 1 << (batch.paths.shape[1] - 1).bit_length()))


def padded(batch: ForwardBatch, shape: PassShape) -> ForwardBatch:
    """The batch in this shape, without `hidden_rows`; its first rows are the batch's, in their order.

    A padding row sees the first token of the first sequence and stores nothing. Padding in `logit_rows` is row 0.
    """
    width, paths = shape.width, batch.paths
    if shape.path_width and paths is None:
        raise ValueError("a batch without paths has no shape with paths")
    return ForwardBatch(
        token_ids=_filled(batch.token_ids, (width,), 0),
        positions=_filled(batch.positions, (width,), 0),
        slots=_filled(batch.slots, (width,), -1),
        row_seq=_filled(batch.row_seq, (width,), 0),
        lengths=_filled(batch.lengths, (width,), 1),
        tables=_filled(batch.tables, (width, shape.max_blocks), 0),
        logit_rows=_filled(batch.logit_rows, (width,), 0),
        paths=None if paths is None else _filled(paths, (width, shape.path_width), -1),
    )


def _filled(part: Tensor, size: tuple[int, ...], value: int) -> Tensor:
    """A tensor of this size with `part` in its first corner and `value` elsewhere."""
    whole = part.new_full(size, value)
    whole[tuple(slice(length) for length in part.shape)] = part
    return whole


class GraphedTransformer(Transformer):
    """A `Transformer` on CUDA. Its operations must be such that a graph can hold them: `TritonOps`."""

    def __init__(self, config: ModelConfig, weights: ModelWeights, ops: Ops, max_blocks: int) -> None:
        """As `Transformer`; a batch with tables of more than `max_blocks` is computed without a graph."""
        super().__init__(config, weights, ops)
        self._max_blocks = max_blocks
        self._graphs: dict[PassShape, _CapturedPass] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._captured_for: tuple[ModelWeights, Sequence[LayerCache]] | None = None

    @property
    def num_graphs(self) -> int:
        """Graphs held now."""
        return len(self._graphs)

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, cache: Sequence[LayerCache]) -> ForwardOutput:
        """See `Transformer.forward`; by a graph if the batch lies on the CPU and is not too wide.

        Raises:
            EngineError: when CUDA cannot capture a pass.
        """
        shape = pass_shape(batch, self._max_blocks) if batch.token_ids.is_cpu else None
        if shape is None:
            return super().forward(batch, cache)
        self._forget_others(cache)
        parts = _parts(padded(batch, shape))
        captured = self._graphs.get(shape)
        if captured is None:
            captured = self._graphs[shape] = self._capture(parts, cache)
        else:
            captured.packed.copy_(pack(parts, pinned=True), non_blocking=True)
        captured.graph.replay()
        on_device = replace(
            captured.batch,
            logit_rows=captured.batch.logit_rows[: len(batch.logit_rows)],
            hidden_rows=None if batch.hidden_rows is None else batch.hidden_rows.to(captured.packed.device),
        )
        return self.outputs(captured.residual, on_device)

    def _forget_others(self, cache: Sequence[LayerCache]) -> None:
        """Drop the graphs of other weights or of another cache."""
        before = self._captured_for
        if before is None or before[0] is not self.weights or before[1] is not cache:
            self._graphs.clear()
            self._pool = torch.cuda.graph_pool_handle()
            self._captured_for = self.weights, cache

    def _capture(self, parts: Sequence[Tensor], cache: Sequence[LayerCache]) -> _CapturedPass:
        """The pass of these parts as a graph. It runs once before: kernels are compiled, libraries set up."""
        device = self.weights.embedding.device
        packed = pack(parts).to(device)
        batch = _batch_of(unpack(packed, parts))
        self.layers(self.embed(batch.token_ids), batch, cache)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                residual = self.layers(self.embed(batch.token_ids), batch, cache)
        except RuntimeError as error:
            raise EngineError(
                f"CUDA could not capture a pass of {len(batch.token_ids)} rows as a graph ({error}); switch "
                "EngineConfig.cuda_graphs off to do without"
            ) from error
        return _CapturedPass(graph, packed, batch, residual)


_FIELDS = [field.name for field in fields(ForwardBatch) if field.name != "hidden_rows"]


def _parts(batch: ForwardBatch) -> list[Tensor]:
    """A padded batch's tensors in the order of its fields; `paths`, the last, may be missing."""
    parts = [getattr(batch, name) for name in _FIELDS]
    return [part for part in parts if part is not None]


def _batch_of(parts: Sequence[Tensor]) -> ForwardBatch:
    """The batch that `_parts` took apart."""
    return ForwardBatch(**dict(zip(_FIELDS, parts, strict=False)))
