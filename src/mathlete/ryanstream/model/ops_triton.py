"""The fast path on CUDA: fused Triton kernels around torch's own products; NF4 weights are written out for these.

Importing it imports Triton, so only `placement.py` does, and only where there is CUDA. A row's result does not
depend on the batch as far as the kernels go; torch's products pick their algorithm by the number of rows, so it may
change in the last bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.triton.nf4_matmul import nf4_matmul
from mathlete.ryanstream.model.triton.paged_attention import paged_attention
from mathlete.ryanstream.model.triton.rms_norm import normalize_heads, rms_norm
from mathlete.ryanstream.model.triton.rotary import rotate_and_store
from mathlete.ryanstream.model.triton.swiglu import swiglu
from mathlete.ryanstream.model.weights import DenseWeight, HeadNorms, LinearWeight, Nf4Weight


class TritonOps(TorchOps):
    """`Ops` on the Triton kernels, for dense and NF4 weights; its rotary tables lie on the device of the weights."""

    def norm_linear(self, x: Tensor, norm: Tensor, weight: LinearWeight) -> Tensor:
        """See `Ops.norm_linear`."""
        return _product(rms_norm(x, norm, self._config.rms_norm_eps, _input_dtype(weight)), weight)

    def linear_add(self, x: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.linear_add`."""
        return residual.add_(_product(x.to(_input_dtype(weight)), weight))

    def swiglu_linear_add(self, gate_up: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.swiglu_linear_add`."""
        return residual.add_(_product(swiglu(gate_up, _input_dtype(weight)), weight))

    def attention(
        self, qkv: Tensor, batch: ForwardBatch, cache: LayerCache, head_norms: HeadNorms | None = None
    ) -> Tensor:
        """See `Ops.attention`."""
        heads, kv_heads = self._config.num_heads, self._config.num_kv_heads
        if head_norms is not None:
            normalize_heads(qkv, 0, heads, head_norms.query, self._config.rms_norm_eps)
            normalize_heads(qkv, heads, kv_heads, head_norms.key, self._config.rms_norm_eps)
        rotate_and_store(qkv, heads, batch, cache, self._rotary)
        return paged_attention(qkv, heads, batch, cache)


def _input_dtype(weight: LinearWeight) -> torch.dtype:
    return weight.weight.dtype if isinstance(weight, DenseWeight) else torch.bfloat16


def _product(x: Tensor, weight: LinearWeight) -> Tensor:
    """X [M, K] in the weight's input type, times the weight, plus its bias: float32 [M, N]."""
    if isinstance(weight, Nf4Weight):
        product = nf4_matmul(x, weight.packed, weight.absmax)
    elif isinstance(weight, DenseWeight):
        product = F.linear(x, weight.weight).float()
    else:
        raise TypeError(f"the Triton path has no product with {type(weight).__name__}; `placement` converts weights")
    return product if weight.bias is None else product + weight.bias
