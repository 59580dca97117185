"""The Qwen2 transformer over a paged KV cache. Knows tensors; knows nothing of requests or text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.ops import ForwardBatch, LayerCache, Ops
from mathlete.ryanstream.model.weights import ModelWeights


class Transformer:
    """Forward passes of one model."""

    def __init__(self, config: ModelConfig, weights: ModelWeights, ops: Ops) -> None:
        """Keep the weights (memory-mapped or not) and the operations to run them with."""
        self.config = config
        self._weights = weights
        self._ops = ops

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, cache: Sequence[LayerCache]) -> Tensor:
        """Compute all rows, writing their keys and values into `cache`.

        Returns:
            Next-token logits float32 [R, V] of `batch.logit_rows`.
        """
        ops, weights = self._ops, self._weights
        x = weights.embedding[batch.token_ids].float()  # [M, hidden]
        for layer, layer_cache in zip(weights.layers, cache, strict=True):
            qkv = ops.norm_linear(x, layer.input_norm, layer.qkv)  # [M, (H + 2 KV) D]
            x = ops.linear_add(ops.attention(qkv, batch, layer_cache), layer.out, x)
            gate_up = ops.norm_linear(x, layer.post_norm, layer.gate_up)  # [M, 2 intermediate]
            x = ops.swiglu_linear_add(gate_up, layer.down, x)
        return ops.norm_linear(x[batch.logit_rows], weights.norm, weights.head)
