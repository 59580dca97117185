"""The fast path on the CPU: fused kernels for int8 layers and attention; bf16 layers go through torch."""

from __future__ import annotations

from torch import Tensor

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.native.kernels import MAX_GROUP, NativeKernels
from mathlete.ryanstream.model.ops import ForwardBatch, LayerCache
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rotary import RotaryTables
from mathlete.ryanstream.model.weights import Int8Weight, LinearWeight


def native_supports(config: ModelConfig) -> bool:
    """Whether the kernels can run this model's shapes."""
    return (
        config.head_dim % 32 == 0
        and config.num_heads // config.num_kv_heads <= MAX_GROUP
        and config.hidden_size % 16 == 0
        and config.intermediate_size % 16 == 0
        and config.vocab_size % 16 == 0
    )


class NativeOps:
    """`Ops` on the native kernels."""

    def __init__(self, config: ModelConfig, rotary: RotaryTables, kernels: NativeKernels) -> None:
        """Keep the shapes, the tables, the kernels, and the twin for layers that are not int8."""
        self._config = config
        self._rotary = rotary
        self._kernels = kernels
        self._dense = TorchOps(config, rotary)

    def norm_linear(self, x: Tensor, norm: Tensor, weight: LinearWeight) -> Tensor:
        """See `Ops.norm_linear`."""
        if not isinstance(weight, Int8Weight):
            return self._dense.norm_linear(x, norm, weight)
        rows = self._kernels.rmsnorm_quantize(x, norm, self._config.rms_norm_eps)
        return self._kernels.gemm_int8(rows, weight.packed, weight.scales, weight.bias)

    def linear_add(self, x: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.linear_add`."""
        if not isinstance(weight, Int8Weight):
            return self._dense.linear_add(x, weight, residual)
        rows = self._kernels.quantize(x)
        return self._kernels.gemm_int8(rows, weight.packed, weight.scales, weight.bias, add_to=residual)

    def swiglu_linear_add(self, gate_up: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.swiglu_linear_add`."""
        if not isinstance(weight, Int8Weight):
            return self._dense.swiglu_linear_add(gate_up, weight, residual)
        rows = self._kernels.swiglu_quantize(gate_up)
        return self._kernels.gemm_int8(rows, weight.packed, weight.scales, weight.bias, add_to=residual)

    def attention(self, qkv: Tensor, batch: ForwardBatch, cache: LayerCache) -> Tensor:
        """See `Ops.attention`."""
        heads, kv_heads = self._config.num_heads, self._config.num_kv_heads
        self._kernels.rope_store(
            qkv, heads, kv_heads, batch.positions, batch.slots,
            self._rotary.cosines, self._rotary.sines, cache.keys, cache.values,
        )  # fmt: skip
        return self._kernels.paged_attention(
            qkv, heads, kv_heads, cache.keys, cache.values, batch.tables, batch.row_seq, batch.lengths
        )
