"""The slow twin: every operation in plain torch, for parity tests and for machines without the kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.ops import ForwardBatch, LayerCache
from mathlete.ryanstream.model.rotary import RotaryTables
from mathlete.ryanstream.model.weights import (
    DenseWeight,
    Int8Weight,
    LinearWeight,
    PlainInt8Weight,
    quantize_rows,
    unpack_int8,
)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm (Zhang & Sennrich 2019): x float32 [M, K], weight [K]."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def linear(x: Tensor, weight: LinearWeight) -> Tensor:
    """X float32 [M, K] times weight [N, K], plus bias, in float32 [M, N]."""
    if isinstance(weight, DenseWeight):
        product = F.linear(x.to(weight.weight.dtype), weight.weight).float()
    else:
        product = _linear_int8(x, weight)
    return product if weight.bias is None else product + weight.bias


def _linear_int8(x: Tensor, weight: Int8Weight | PlainInt8Weight) -> Tensor:
    codes, scale = quantize_rows(x)
    plain = weight.codes if isinstance(weight, PlainInt8Weight) else unpack_int8(weight.packed, weight.scales.shape[0])
    exact = torch._int_mm(codes, plain.T)
    return exact.float() * scale[:, None] * weight.scales


class TorchOps:
    """`Ops` in plain torch."""

    def __init__(self, config: ModelConfig, rotary: RotaryTables) -> None:
        """Keep the shapes and the rotary tables."""
        self._config = config
        self._rotary = rotary

    def norm_linear(self, x: Tensor, norm: Tensor, weight: LinearWeight) -> Tensor:
        """See `Ops.norm_linear`."""
        return linear(rms_norm(x, norm, self._config.rms_norm_eps), weight)

    def linear_add(self, x: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.linear_add`."""
        return residual + linear(x, weight)

    def swiglu_linear_add(self, gate_up: Tensor, weight: LinearWeight, residual: Tensor) -> Tensor:
        """See `Ops.swiglu_linear_add`."""
        gate, up = gate_up.chunk(2, dim=-1)
        return residual + linear(F.silu(gate) * up, weight)

    def attention(self, qkv: Tensor, batch: ForwardBatch, cache: LayerCache) -> Tensor:
        """See `Ops.attention`."""
        config = self._config
        heads, kv_heads, head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        by_head = qkv.view(-1, heads + 2 * kv_heads, head_dim)
        query, key, value = torch.split(by_head, [heads, kv_heads, kv_heads], dim=1)
        query, key = self._rotate(query, batch.positions), self._rotate(key, batch.positions)
        block_size = cache.values.shape[2]
        block, offset = batch.slots // block_size, batch.slots % block_size
        cache.keys[block, :, :, offset] = key.to(cache.keys.dtype)
        cache.values[block, :, offset] = value.to(cache.values.dtype)
        out = torch.empty((qkv.shape[0], heads * head_dim), dtype=torch.float32)
        for seq in range(batch.tables.shape[0]):
            rows = torch.nonzero(batch.row_seq == seq).flatten()
            if rows.numel():
                out[rows] = self._attend(query[rows], batch.lengths[rows], batch.tables[seq], cache)
        return out

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        cosine, sine = self._rotary.cosines[positions][:, None], self._rotary.sines[positions][:, None]
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    def _attend(self, query: Tensor, lengths: Tensor, table: Tensor, cache: LayerCache) -> Tensor:
        """One sequence: query [R, H, D] over its blocks; each row sees its own length."""
        longest = int(lengths.max())
        blocks = table[: -(-longest // cache.values.shape[2])].long()
        kv_heads, head_dim = cache.values.shape[1], cache.values.shape[3]
        keys = cache.keys[blocks].permute(1, 0, 3, 2).reshape(kv_heads, -1, head_dim)[:, :longest].float()
        values = cache.values[blocks].permute(1, 0, 2, 3).reshape(kv_heads, -1, head_dim)[:, :longest].float()
        visible = torch.arange(longest)[None, :] < lengths[:, None]
        out = F.scaled_dot_product_attention(
            query.transpose(0, 1)[None], keys[None], values[None], attn_mask=visible[None, None], enable_gqa=True
        )
        return out[0].transpose(0, 1).reshape(query.shape[0], -1)
