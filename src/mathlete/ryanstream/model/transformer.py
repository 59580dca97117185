"""The Qwen and Llama transformers over a paged KV cache. Knows tensors; knows nothing of requests or text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.ops import ForwardBatch, Ops
from mathlete.ryanstream.model.ops_torch import rms_norm
from mathlete.ryanstream.model.weights import ModelWeights


class ForwardOutput(NamedTuple):
    """Next-token logits float32 [R, V] of `logit_rows`; hidden states float32 [W, hidden] of `hidden_rows`, or None.

    A hidden state is what the output head reads: the residual stream after the last layer and the final norm.
    """

    logits: Tensor
    hidden: Tensor | None


class Transformer:
    """Forward passes of one model."""

    def __init__(self, config: ModelConfig, weights: ModelWeights, ops: Ops) -> None:
        """Keep the weights (memory-mapped or not) and the operations to run them with."""
        self.config = config
        self.weights = weights  # may be changed between two passes
        self._ops = ops

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, cache: Sequence[LayerCache]) -> ForwardOutput:
        """Compute all rows, writing their keys and values into `cache`; the batch may lie on the CPU."""
        batch = batch.to(self.weights.embedding.device)
        return self.outputs(self.layers(self.embed(batch.token_ids), batch, cache), batch)

    @torch.inference_mode()
    def outputs(self, x: Tensor, batch: ForwardBatch) -> ForwardOutput:
        """What the batch wants to know of the residual stream x float32 [M, hidden] after all layers."""
        hidden = None
        if batch.hidden_rows is not None:
            hidden = rms_norm(x[batch.hidden_rows], self.weights.norm, self.config.rms_norm_eps)
        return ForwardOutput(self.logits(x[batch.logit_rows]), hidden)

    @torch.inference_mode()
    def embed(self, token_ids: Tensor) -> Tensor:
        """The residual stream float32 [M, hidden] before the first layer, of token_ids int64 [M]."""
        return self._ops.embed(token_ids, self.weights.embedding)

    @torch.inference_mode()
    def layers(
        self, x: Tensor, batch: ForwardBatch, cache: Sequence[LayerCache], start: int = 0, stop: int | None = None
    ) -> Tensor:
        """The residual stream x float32 [M, hidden] after layers [start, stop), which write into `cache`.

        `x` may be overwritten.
        """
        ops = self._ops
        for layer, layer_cache in zip(self.weights.layers[start:stop], cache[start:stop], strict=True):
            qkv = ops.norm_linear(x, layer.input_norm, layer.qkv)  # [M, (H + 2 KV) D]
            x = ops.linear_add(ops.attention(qkv, batch, layer_cache, layer.head_norms), layer.out, x)
            gate_up = ops.norm_linear(x, layer.post_norm, layer.gate_up)  # [M, 2 intermediate]
            x = ops.swiglu_linear_add(gate_up, layer.down, x)
        return x

    @torch.inference_mode()
    def logits(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        """What the output head says, float32 [R, V], of residuals x float32 [R, hidden]; `norm` instead of its own."""
        return self._ops.logits(x, self.weights.norm if norm is None else norm, self.weights.head)

    @torch.inference_mode()
    def plain_logits(self, hidden: Tensor) -> Tensor:
        """What the output head says, float32 [R, V], of hidden states [R, hidden], which are normalised already."""
        return self._ops.linear_add(hidden, self.weights.head, hidden.new_zeros((len(hidden), self.config.vocab_size)))
