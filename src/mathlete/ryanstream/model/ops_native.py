"""The fast path on the CPU: fused kernels for packed weights and for attention."""

from __future__ import annotations

from torch import Tensor

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.native.kernels import MAX_GROUP, NativeKernels, QuantizedRows
from mathlete.ryanstream.model.nf4 import NF4_BLOCK
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.quantization import INT4_GROUP
from mathlete.ryanstream.model.rotary import RotaryTables
from mathlete.ryanstream.model.weights import HeadNorms, Kind, LinearWeight, PackedWeight

# Activations that share a scale: a whole row, or as many as the weights of a group.
_GROUP: dict[Kind, int | None] = {"int8": None, "int4": INT4_GROUP, "nf4": NF4_BLOCK}


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
        """Keep the shapes, the tables, the kernels, and the twin for layers that are not packed."""
        self._config = config
        self._rotary = rotary
        self._kernels = kernels
        self._dense = TorchOps(config, rotary)

    def embed(self, token_ids: Tensor, table: Tensor) -> Tensor:
        """See `Ops.embed`."""
        return self._dense.embed(token_ids, table)

    def logits(self, x: Tensor, norm: Tensor, head: LinearWeight) -> Tensor:
        """See `Ops.logits`."""
        return self.norm_linear(x, norm, head)

    def norm_linear(self, x: Tensor, norm: Tensor, weight: LinearWeight) -> Tensor:
        """See `Ops.norm_linear`."""
        eps = self._config.rms_norm_eps
        if not isinstance(weight, PackedWeight):
            return self._dense.norm_linear(x, norm, weight)
        if weight.kind == "bf16":
            return self._product(self._kernels.rmsnorm_bf16(x, norm, eps), weight)
        return self._product(self._kernels.rmsnorm_quantize(x, norm, eps, _GROUP[weight.kind]), weight)

    def linear_add(self, x: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.linear_add`."""
        if not isinstance(weight, PackedWeight):
            return self._dense.linear_add(x, weight, residual)
        if weight.kind == "bf16":
            return self._product(self._kernels.to_bf16(x), weight, residual)
        return self._product(self._kernels.quantize(x, _GROUP[weight.kind]), weight, residual)

    def swiglu_linear_add(self, gate_up: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.swiglu_linear_add`."""
        if not isinstance(weight, PackedWeight):
            return self._dense.swiglu_linear_add(gate_up, weight, residual)
        if weight.kind == "bf16":
            return self._product(self._kernels.swiglu_bf16(gate_up), weight, residual)
        return self._product(self._kernels.swiglu_quantize(gate_up, _GROUP[weight.kind]), weight, residual)

    def _product(self, rows: QuantizedRows | Tensor, weight: PackedWeight, add_to: Tensor | None = None) -> Tensor:
        kernels = self._kernels
        if isinstance(rows, Tensor):
            return kernels.gemm_bf16(rows, weight.packed, weight.bias, weight.num_out, add_to)
        if weight.kind == "int8":
            assert weight.scales is not None
            return kernels.gemm_int8(rows, weight.packed, weight.scales, weight.bias, add_to)
        gemm = kernels.gemm_int4 if weight.kind == "int4" else kernels.gemm_nf4
        return gemm(rows, weight.packed, weight.bias, weight.num_out, add_to)

    def attention(
        self, qkv: Tensor, batch: ForwardBatch, cache: LayerCache, head_norms: HeadNorms | None = None
    ) -> Tensor:
        """See `Ops.attention`."""
        heads, kv_heads = self._config.num_heads, self._config.num_kv_heads
        self._kernels.rope_store(
            qkv, heads, kv_heads, batch.positions, batch.slots,
            self._rotary.cosines, self._rotary.sines, cache,
            None if head_norms is None else (head_norms.query, head_norms.key), self._config.rms_norm_eps,
        )  # fmt: skip
        return self._kernels.paged_attention(
            qkv, heads, kv_heads, cache, batch.tables, batch.row_seq, batch.lengths, batch.paths
        )
