"""The slow twin: every operation in plain torch, for parity tests and for machines without the kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import KeysValues, LayerCache, read_blocks, store_tokens
from mathlete.ryanstream.model.nf4 import dequantize_nf4, unpack_nf4
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.quantization import quantize_rows
from mathlete.ryanstream.model.rotary import RotaryTables
from mathlete.ryanstream.model.weights import (
    DenseWeight,
    HeadNorms,
    LinearWeight,
    Nf4Weight,
    PackedWeight,
    PlainInt8Weight,
    unpacked,
)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm (Zhang & Sennrich 2019): x float32 [M, K], weight [K]."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def linear(x: Tensor, weight: LinearWeight) -> Tensor:
    """X float32 [M, K] times weight [N, K], plus bias, in float32 [M, N]."""
    if isinstance(weight, PackedWeight):  # a checkpoint is unpacked when it is loaded for torch; this is for tests
        weight = unpacked(weight)
    if isinstance(weight, DenseWeight):
        product = F.linear(x.to(weight.weight.dtype), weight.weight).float()
    elif isinstance(weight, Nf4Weight):
        product = F.linear(x.bfloat16(), dequantize_nf4(unpack_nf4(weight.packed), weight.absmax).bfloat16()).float()
    else:
        product = _linear_int8(x, weight)
    return product if weight.bias is None else product + weight.bias


def _linear_int8(x: Tensor, weight: PlainInt8Weight) -> Tensor:
    codes, scale = quantize_rows(x)
    exact = torch._int_mm(codes, weight.codes.T)
    return exact.float() * scale[:, None] * weight.scales


class TorchOps:
    """`Ops` in plain torch."""

    def __init__(self, config: ModelConfig, rotary: RotaryTables) -> None:
        """Keep the shapes and the rotary tables."""
        self._config = config
        self._rotary = rotary

    def embed(self, token_ids: Tensor, table: Tensor) -> Tensor:
        """See `Ops.embed`."""
        return table[token_ids].float()

    def logits(self, x: Tensor, norm: Tensor, head: LinearWeight) -> Tensor:
        """See `Ops.logits`."""
        return self.norm_linear(x, norm, head)

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

    def attention(
        self, qkv: Tensor, batch: ForwardBatch, cache: LayerCache, head_norms: HeadNorms | None = None
    ) -> Tensor:
        """See `Ops.attention`."""
        config = self._config
        heads, kv_heads, head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        by_head = qkv.view(-1, heads + 2 * kv_heads, head_dim)
        query, key, value = torch.split(by_head, [heads, kv_heads, kv_heads], dim=1)
        if head_norms is not None:
            query = rms_norm(query, head_norms.query, config.rms_norm_eps)
            key = rms_norm(key, head_norms.key, config.rms_norm_eps)
        query, key = self._rotate(query, batch.positions), self._rotate(key, batch.positions)
        store_tokens(cache, batch.slots, key, value)
        out = torch.empty((qkv.shape[0], heads * head_dim), dtype=torch.float32, device=qkv.device)
        in_tree = torch.zeros_like(batch.row_seq, dtype=torch.bool) if batch.paths is None else batch.paths[:, 0] >= 0
        for seq in range(batch.tables.shape[0]):
            rows = torch.nonzero((batch.row_seq == seq) & ~in_tree).flatten()
            if rows.numel():
                longest = int(batch.lengths[rows].max())
                seen = _along_table(cache, batch.tables[seq], longest)
                out[rows] = self._attend(query[rows], batch.lengths[rows], seen)
        for row in torch.nonzero(in_tree).flatten().tolist():
            assert batch.paths is not None
            path = batch.paths[row][batch.paths[row] >= 0]
            before = _along_table(cache, batch.tables[int(batch.row_seq[row])], int(batch.lengths[row]) - len(path))
            along = _at_slots(cache, path)
            seen = KeysValues(torch.cat([before.keys, along.keys], 1), torch.cat([before.values, along.values], 1))
            here = slice(row, row + 1)
            out[here] = self._attend(query[here], batch.lengths[here], seen)
        return out

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        cosine, sine = self._rotary.cosines[positions][:, None], self._rotary.sines[positions][:, None]
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    def _attend(self, query: Tensor, lengths: Tensor, seen: KeysValues) -> Tensor:
        """One sequence: query [R, H, D] over its keys and values [KV, T, D]; each row sees its own length.

        The heads that share keys are rows of one product: `scaled_dot_product_attention` takes a slow path for a
        single query with grouped heads.
        """
        (keys, values), num_rows, head_dim = seen, query.shape[0], query.shape[2]
        longest = keys.shape[1]
        grouped = query.view(num_rows, keys.shape[0], -1, head_dim).transpose(0, 1)  # [KV, R, G, D]
        scores = torch.matmul(grouped.flatten(1, 2), keys.mT).view(*grouped.shape[:3], longest)  # [KV, R, G, T]
        hidden = torch.arange(longest, device=lengths.device) >= lengths[:, None, None]  # [R, 1, T]
        weights = torch.softmax((scores * head_dim**-0.5).masked_fill(hidden, -torch.inf), dim=-1)
        out = torch.matmul(weights.flatten(1, 2), values).view(grouped.shape)
        return out.transpose(0, 1).reshape(num_rows, -1)


def _along_table(cache: LayerCache, table: Tensor, num_places: int) -> KeysValues:
    """The first places of a sequence with the blocks `table`."""
    blocks = table[: -(-num_places // BLOCK_SIZE)].long()
    keys, values = read_blocks(cache, blocks)
    return KeysValues(keys[:, :num_places], values[:, :num_places])


def _at_slots(cache: LayerCache, slots: Tensor) -> KeysValues:
    """What lies at slots int64 [n] (block * 16 + offset)."""
    keys, values = read_blocks(cache, slots // BLOCK_SIZE)  # [KV, n * 16, D]
    at = torch.arange(len(slots), device=slots.device) * BLOCK_SIZE + slots % BLOCK_SIZE
    return KeysValues(keys[:, at], values[:, at])
