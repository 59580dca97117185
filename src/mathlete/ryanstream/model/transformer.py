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
        """Compute all rows, writing their keys and values into `cache`."""
        ops, weights = self._ops, self.weights
        x = ops.embed(batch.token_ids, weights.embedding)  # [M, hidden]
        for layer, layer_cache in zip(weights.layers, cache, strict=True):
            qkv = ops.norm_linear(x, layer.input_norm, layer.qkv)  # [M, (H + 2 KV) D]
            x = ops.linear_add(ops.attention(qkv, batch, layer_cache, layer.head_norms), layer.out, x)
            gate_up = ops.norm_linear(x, layer.post_norm, layer.gate_up)  # [M, 2 intermediate]
            x = ops.swiglu_linear_add(gate_up, layer.down, x)
        hidden = None
        if batch.hidden_rows is not None:
            hidden = rms_norm(x[batch.hidden_rows], weights.norm, self.config.rms_norm_eps)
        return ForwardOutput(ops.logits(x[batch.logit_rows], weights.norm, weights.head), hidden)
