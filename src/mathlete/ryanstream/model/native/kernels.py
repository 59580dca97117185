"""Calls the native kernels: tensors in, tensors out. `library.py` builds and loads them.

Knows pointers, types and shapes; knows nothing about layers or requests.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from mathlete.ryanstream.machine import available_cores
from mathlete.ryanstream.model.layer_cache import LayerCache
from mathlete.ryanstream.model.quantization import INT4_GROUP, PANEL, nf4_level_bytes
from mathlete.ryanstream.speculative.accept_rule import DrawnRows

MAX_GROUP = 8
NUM_LIKELIEST = 20  # tokens of the highest probability that `sample` tells of


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Activations in int8, a scale for each group of a row (G groups; one, when the group is the row).

    Attributes:
        codes: int8 [M, K].
        scales: float32 [M, G].
        sums: int32 [M, G], the sum of each group's codes.
    """

    codes: Tensor
    scales: Tensor
    sums: Tensor


def _pointer(tensor: Tensor, dtype: torch.dtype) -> ctypes.c_void_p:
    if tensor.dtype != dtype or not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise TypeError(f"kernel wants a contiguous {dtype} CPU tensor, not {tensor.dtype} {tuple(tensor.shape)}")
    return ctypes.c_void_p(tensor.data_ptr())


class NativeKernels:
    """The C functions of the kernels with tensors in and out. Not to be built directly: `load_kernels`."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        """Wrap a loaded library; `name` tells one build from another."""
        self._lib = library
        self.name = name
        self._nf4_levels = nf4_level_bytes()
        self.has_bf16 = bool(library.mlt_has_bf16())
        self.set_num_threads(available_cores())

    def set_num_threads(self, num_threads: int) -> None:
        """Compute with `num_threads` threads from now on, the caller's included."""
        self._lib.mlt_set_threads(num_threads)

    def pack_int8(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise and pack `weight` float32 [N, K]; returns (packed uint8 [panels, K * 32], scales float32 [N])."""
        n, k = weight.shape
        packed = torch.empty((-(-n // PANEL), k * PANEL), dtype=torch.uint8)
        scales = torch.empty(n)
        self._lib.mlt_pack_int8(_pointer(weight, torch.float32), n, k, _pointer(packed, torch.uint8),
                                _pointer(scales, torch.float32))  # fmt: skip
        return packed, scales

    def pack_int4(self, weight: Tensor) -> Tensor:
        """`weight` float32 [N, K] as packed int4 panels, uint8 [panels, K / 32 * 640]."""
        n, k = weight.shape
        packed = torch.empty((-(-n // PANEL), k // INT4_GROUP * 640), dtype=torch.uint8)
        self._lib.mlt_pack_int4(_pointer(weight, torch.float32), n, k, _pointer(packed, torch.uint8))
        return packed

    def quantize(self, x: Tensor, group: int | None = None) -> QuantizedRows:
        """Quantise x float32 [M, K], with a scale for each `group` of a row (the whole row by default)."""
        out = _empty_rows(x.shape[0], x.shape[1], group)
        self._lib.mlt_quantize(_pointer(x, torch.float32), *x.shape, group or x.shape[1], *_row_pointers(out))
        return out

    def rmsnorm_quantize(self, x: Tensor, weight: Tensor, eps: float, group: int | None = None) -> QuantizedRows:
        """RMSNorm of x float32 [M, K] with weight float32 [K], quantised."""
        out = _empty_rows(x.shape[0], x.shape[1], group)
        self._lib.mlt_rmsnorm_quantize(_pointer(x, torch.float32), _pointer(weight, torch.float32),
                                       ctypes.c_float(eps), *x.shape, group or x.shape[1],
                                       *_row_pointers(out))  # fmt: skip
        return out

    def swiglu_quantize(self, gate_up: Tensor, group: int | None = None) -> QuantizedRows:
        """silu(gate) * up of gate_up float32 [M, 2 I], quantised to [M, I]."""
        rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = _empty_rows(rows, width, group)
        self._lib.mlt_swiglu_quantize(_pointer(gate_up, torch.float32), rows, width, group or width,
                                      *_row_pointers(out))  # fmt: skip
        return out

    def to_bf16(self, x: Tensor) -> Tensor:
        """X float32 [M, K] in bf16."""
        out = torch.empty(x.shape, dtype=torch.bfloat16)
        self._lib.mlt_to_bf16(_pointer(x, torch.float32), *x.shape, _pointer(out, torch.bfloat16))
        return out

    def rmsnorm_bf16(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMSNorm of x float32 [M, K] with weight float32 [K], in bf16."""
        out = torch.empty(x.shape, dtype=torch.bfloat16)
        self._lib.mlt_rmsnorm_bf16(_pointer(x, torch.float32), _pointer(weight, torch.float32), ctypes.c_float(eps),
                                   *x.shape, _pointer(out, torch.bfloat16))  # fmt: skip
        return out

    def swiglu_bf16(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up of gate_up float32 [M, 2 I], bf16 [M, I]."""
        rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = torch.empty((rows, width), dtype=torch.bfloat16)
        self._lib.mlt_swiglu_bf16(_pointer(gate_up, torch.float32), rows, width, _pointer(out, torch.bfloat16))
        return out

    def gemm_int8(self, x: QuantizedRows, packed: Tensor, scales: Tensor, bias: Tensor | None,
                  add_to: Tensor | None = None) -> Tensor:  # fmt: skip
        """Product of x [M, K] with packed weights [N, K], float32 [M, N]; added in place to `add_to` when given."""
        n = scales.shape[0]
        out = torch.empty((x.codes.shape[0], n)) if add_to is None else add_to
        self._lib.mlt_gemm_int8(*_rows_in(x), _pointer(packed, torch.uint8), _pointer(scales, torch.float32),
                                *_result(bias, n, out, add_to))  # fmt: skip
        return out

    def gemm_int4(self, x: QuantizedRows, packed: Tensor, bias: Tensor | None, num_out: int,
                  add_to: Tensor | None = None) -> Tensor:  # fmt: skip
        """The same with int4 weights; x in groups of 32."""
        out = torch.empty((x.codes.shape[0], num_out)) if add_to is None else add_to
        self._lib.mlt_gemm_int4(*_rows_in(x), _pointer(packed, torch.uint8), *_result(bias, num_out, out, add_to))
        return out

    def gemm_nf4(self, x: QuantizedRows, packed: Tensor, bias: Tensor | None, num_out: int,
                 add_to: Tensor | None = None) -> Tensor:  # fmt: skip
        """The same with NF4 weights; x in groups of 64."""
        out = torch.empty((x.codes.shape[0], num_out)) if add_to is None else add_to
        self._lib.mlt_gemm_nf4(*_rows_in(x), _pointer(packed, torch.uint8), _pointer(self._nf4_levels, torch.uint8),
                               *_result(bias, num_out, out, add_to))  # fmt: skip
        return out

    def gemm_bf16(self, x: Tensor, packed: Tensor, bias: Tensor | None, num_out: int,
                  add_to: Tensor | None = None) -> Tensor:  # fmt: skip
        """The same with bf16 weights and x bf16 [M, K]; where `has_bf16`."""
        out = torch.empty((x.shape[0], num_out)) if add_to is None else add_to
        self._lib.mlt_gemm_bf16(_pointer(x, torch.bfloat16), *x.shape, _pointer(packed, torch.bfloat16),
                                *_result(bias, num_out, out, add_to))  # fmt: skip
        return out

    def rope_store(self, qkv: Tensor, num_heads: int, num_kv_heads: int, positions: Tensor, slots: Tensor,
                   cosines: Tensor, sines: Tensor, cache: LayerCache,
                   head_norms: tuple[Tensor, Tensor] | None = None, eps: float = 0.0) -> None:  # fmt: skip
        """Rotate queries and keys of qkv float32 [M, (H + 2 KV) D] in place; store keys and values in `cache`.

        positions int32 [M]; slots int64 [M]; cosines, sines float32 [positions, D / 2]. `head_norms`: RMSNorm
        weights float32 [D] of queries and of keys, each head on its own, before the rotation.
        """
        query_norm, key_norm = (None, None) if head_norms is None else (_pointer(n, torch.float32) for n in head_norms)
        self._lib.mlt_rope_store(
            _pointer(qkv, torch.float32), qkv.shape[0], num_heads, num_kv_heads, cache.values.shape[-1],
            _pointer(positions, torch.int32), _pointer(slots, torch.int64), _pointer(cosines, torch.float32),
            _pointer(sines, torch.float32), *_cache_pointers(cache), query_norm, key_norm, ctypes.c_float(eps),
        )  # fmt: skip

    def paged_attention(self, qkv: Tensor, num_heads: int, num_kv_heads: int, cache: LayerCache,
                        tables: Tensor, row_seq: Tensor, lengths: Tensor,
                        paths: Tensor | None = None) -> Tensor:  # fmt: skip
        """Attention of each row over its sequence's cached tokens, float32 [M, H D].

        tables int32 [S, max_blocks]; row_seq, lengths int32 [M]; paths int64 [M, P], see `ForwardBatch`. Softmax scale
        is 1 / sqrt(D).
        """
        head_dim = cache.values.shape[-1]
        out = torch.empty((qkv.shape[0], num_heads * head_dim))
        self._lib.mlt_paged_attention(
            _pointer(qkv, torch.float32), qkv.shape[0], num_heads, num_kv_heads, head_dim, *_cache_pointers(cache),
            _pointer(tables, torch.int32), tables.shape[1], _pointer(row_seq, torch.int32),
            _pointer(lengths, torch.int32), None if paths is None else _pointer(paths, torch.int64),
            0 if paths is None else paths.shape[1], ctypes.c_float(head_dim**-0.5), _pointer(out, torch.float32),
        )  # fmt: skip
        return out

    def sample(self, logits: Tensor, temperature: Tensor, top_p: Tensor, top_k: Tensor, min_p: Tensor,
               uniform: Tensor, forced: Tensor, drawn: DrawnRows | None = None,
               constrained: tuple[Tensor, Tensor] | None = None,
               ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Draw one token a row of logits float32 [M, V]; see `sampling.Drawn`, `sample_torch` and `accept_torch`.

        A row of `constrained` (a `sampling.ConstrainedRows`) is drawn under its mask in the same pass.
        """
        rows, vocab = logits.shape
        mask_of, masks = None, None
        if constrained is not None:
            masks = constrained[1]
            _check_masks(masks, len(constrained[0]), vocab)
            mask_of = _numbers(constrained[0], rows)
        token, top_ids = torch.empty(rows, dtype=torch.int32), torch.empty((rows, NUM_LIKELIEST), dtype=torch.int32)
        logprob, entropy, log_normalizer = torch.empty(rows), torch.empty(rows), torch.empty(rows)
        top_logprobs = torch.empty((rows, NUM_LIKELIEST))
        draft_of = None if drawn is None else _numbers(drawn.rows, rows)
        self._lib.mlt_sample(
            _pointer(logits, torch.float32), rows, vocab, _pointer(temperature, torch.float32),
            _pointer(top_p, torch.float32), _pointer(top_k, torch.int32), _pointer(min_p, torch.float32),
            _pointer(uniform, torch.float64), _pointer(forced, torch.int32),
            None if mask_of is None else _pointer(mask_of, torch.int32),
            None if masks is None else _pointer(masks, torch.int32), *_draft_arguments(drawn, draft_of),
            _pointer(token, torch.int32),
            _pointer(logprob, torch.float32), _pointer(entropy, torch.float32),
            _pointer(log_normalizer, torch.float32), _pointer(top_ids, torch.int32),
            _pointer(top_logprobs, torch.float32),
        )  # fmt: skip
        return token, logprob, entropy, log_normalizer, top_ids, top_logprobs

    def apply_mask(self, logits: Tensor, masks: Tensor) -> None:
        """Set logits float32 [M, V] to minus infinity, in place, where masks int32 [M, ceil(V / 32)] have a 0 bit."""
        rows, vocab = logits.shape
        _check_masks(masks, rows, vocab)
        self._lib.mlt_apply_mask(_pointer(logits, torch.float32), rows, vocab, _pointer(masks, torch.int32))


def _check_masks(masks: Tensor, num_rows: int, vocab: int) -> None:
    if tuple(masks.shape) != (num_rows, -(-vocab // 32)):
        raise ValueError(f"masks of {num_rows} rows of {vocab} tokens cannot be {tuple(masks.shape)}")


def _numbers(rows: Tensor, num_rows: int) -> Tensor:
    """Of each of the rows, which entry of `rows` int64 [C] names it: int32 [num_rows], -1 where none does."""
    numbers = torch.full((num_rows,), -1, dtype=torch.int32)
    numbers[rows] = torch.arange(len(rows), dtype=torch.int32)
    return numbers


def _cache_pointers(cache: LayerCache) -> tuple[ctypes.c_void_p | None, ...]:
    """Keys, values and their scales; a bf16 cache has none."""
    if cache.key_scales is None or cache.value_scales is None:
        return (_pointer(cache.keys, torch.bfloat16), _pointer(cache.values, torch.bfloat16), None, None)
    return (
        _pointer(cache.keys, torch.int8), _pointer(cache.values, torch.int8),
        _pointer(cache.key_scales, torch.bfloat16), _pointer(cache.value_scales, torch.bfloat16),
    )  # fmt: skip


def _draft_arguments(drawn: DrawnRows | None, draft_of: Tensor | None) -> tuple[ctypes.c_void_p | int | None, ...]:
    """Which draft each row has, then the drafts and their distributions."""
    if drawn is None or draft_of is None:
        return (None, None, None, None, None, 0)
    return (
        _pointer(draft_of, torch.int32), _pointer(drawn.token, torch.int32),
        _pointer(drawn.accept_uniform, torch.float64), _pointer(drawn.ids, torch.int32),
        _pointer(drawn.probs, torch.float32), drawn.ids.shape[1],
    )  # fmt: skip


def _empty_rows(rows: int, width: int, group: int | None) -> QuantizedRows:
    groups = width // (group or width)
    return QuantizedRows(
        torch.empty((rows, width), dtype=torch.int8),
        torch.empty((rows, groups)),
        torch.empty((rows, groups), dtype=torch.int32),
    )


def _rows_in(x: QuantizedRows) -> tuple[ctypes.c_void_p | int, ...]:
    return (*_row_pointers(x), *x.codes.shape)


def _result(
    bias: Tensor | None, num_out: int, out: Tensor, add_to: Tensor | None
) -> tuple[ctypes.c_void_p | int | None, ...]:
    """The last arguments of a product: bias, N, where to, whether to add."""
    return (
        None if bias is None else _pointer(bias, torch.float32), num_out, _pointer(out, torch.float32),
        int(add_to is not None),
    )  # fmt: skip


def _row_pointers(rows: QuantizedRows) -> tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]:
    return (
        _pointer(rows.codes, torch.int8),
        _pointer(rows.scales, torch.float32),
        _pointer(rows.sums, torch.int32),
    )
