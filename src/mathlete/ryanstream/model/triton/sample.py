"""Softmax and draw in one kernel: `sampling.sample_torch`'s definition, which is the twin, without a sort.

Every token has a *rank key*, a whole number that is larger for a larger logit and, among equal logits, for a lower
id; so a key names a token. What top-k and top-p keep are the tokens whose key is at least some key, and that
key, like the drawn token's own, is found bit by bit from the top, with one pass over the logits a bit: the largest
key for which the tokens of at least that key are enough (in number, or in mass). Sums run over tiles of fixed size
in order. Masses are float32 and the twin's float64, so another token may come out where the uniform number, or
top-p, lies within about 1e-6 of a border between two tokens. Not measured on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mathlete.ryanstream.model.native.kernels import NUM_LIKELIEST

_BLOCK = 1024


class TritonDraw(NamedTuple):
    """The fields of `sampling.Drawn`, in its order."""

    token: Tensor
    logprob: Tensor
    entropy: Tensor
    log_normalizer: Tensor
    top_ids: Tensor
    top_logprobs: Tensor


@triton.jit
def _rank_key(logits, ids, ID_BITS: tl.constexpr):
    bits = tl.where(logits == 0.0, 0.0, logits).to(tl.int32, bitcast=True)  # -0.0 is 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << ID_BITS) + ((1 << ID_BITS) - 1 - ids)


@triton.jit
def _token_of(key, ID_BITS: tl.constexpr):
    return (((1 << ID_BITS) - 1) - (key & ((1 << ID_BITS) - 1))).to(tl.int32)


@triton.jit
def _highest_below(row_ptr, vocab, limit, ID_BITS: tl.constexpr, BLOCK: tl.constexpr):
    """The largest key below `limit`."""
    highest = tl.full((), -(1 << (ID_BITS + 32)), dtype=tl.int64)
    for start in range(0, vocab, BLOCK):
        ids = start + tl.arange(0, BLOCK)
        logits = tl.load(row_ptr + ids, mask=ids < vocab, other=float("-inf"))
        key = _rank_key(logits, ids, ID_BITS)
        key = tl.where((ids < vocab) & (key < limit), key, -(1 << (ID_BITS + 32)))
        highest = tl.maximum(highest, tl.max(key, axis=0))
    return highest


@triton.jit
def _amount(row_ptr, vocab, least, top, heat, min_p, COUNT: tl.constexpr, ID_BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Of the tokens with a key of at least `least`: how many, or the mass (the top's is 1) of what min_p leaves."""
    total = 0.0
    for start in range(0, vocab, BLOCK):
        ids = start + tl.arange(0, BLOCK)
        logits = tl.load(row_ptr + ids, mask=ids < vocab, other=float("-inf"))
        counted = (ids < vocab) & (_rank_key(logits, ids, ID_BITS) >= least)
        mass = tl.exp((logits - top) / heat)
        if COUNT:
            mass = tl.where(counted, 1.0, 0.0)
        else:
            mass = tl.where(counted & (mass >= min_p), mass, 0.0)
        total += tl.sum(mass, axis=0)
    return total


@triton.jit
def _border(
    row_ptr, vocab, target, top, heat, min_p,
    COUNT: tl.constexpr, ABOVE: tl.constexpr, ID_BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The largest key for which `_amount` reaches `target` (ABOVE: exceeds it); the least of all when none does."""
    key = tl.full((), -(1 << (ID_BITS + 31)), dtype=tl.int64)
    step = tl.full((), 1 << (ID_BITS + 31), dtype=tl.int64)
    for _ in range(ID_BITS + 32):
        amount = _amount(row_ptr, vocab, key + step, top, heat, min_p, COUNT, ID_BITS, BLOCK)
        enough = amount > target if ABOVE else amount >= target
        key = tl.where(enough, key + step, key)
        step = step >> 1
    return key


@triton.jit
def _draw(row_ptr, vocab, top, heat, top_p, top_k, min_p, uniform, ID_BITS: tl.constexpr, BLOCK: tl.constexpr):
    """The key of the token at `uniform` among those kept."""
    least = tl.full((), -(1 << (ID_BITS + 31)), dtype=tl.int64)
    last = least  # the least key that is kept
    if (top_k > 0) & (top_k < vocab):
        last = _border(row_ptr, vocab, top_k.to(tl.float32), top, heat, min_p, True, False, ID_BITS, BLOCK)
    if top_p < 1.0:
        everything = _amount(row_ptr, vocab, least, top, heat, 0.0, False, ID_BITS, BLOCK)
        by_mass = _border(row_ptr, vocab, top_p * everything, top, heat, min_p, False, False, ID_BITS, BLOCK)
        last = tl.maximum(last, by_mass)
    kept = _amount(row_ptr, vocab, last, top, heat, min_p, False, ID_BITS, BLOCK)
    below_one = tl.minimum(uniform.to(tl.float32), 0.99999994)  # the largest float32 below 1
    key = _border(row_ptr, vocab, below_one * kept, top, heat, min_p, False, True, ID_BITS, BLOCK)
    return tl.maximum(key, last)


@triton.jit
def _sample_kernel(
    logits_ptr, stride, vocab, temperature_ptr, top_p_ptr, top_k_ptr, min_p_ptr, uniform_ptr, forced_ptr,
    token_ptr, logprob_ptr, entropy_ptr, normalizer_ptr, top_ids_ptr, top_logprobs_ptr,
    LIKELIEST: tl.constexpr, ID_BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program r draws row r. What it does not write stays as it was: the values of a row without a distribution."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * stride
    top, num_nan = float("-inf"), 0
    for start in range(0, vocab, BLOCK):
        ids = start + tl.arange(0, BLOCK)
        logits = tl.load(row_ptr + ids, mask=ids < vocab, other=float("-inf"))
        num_nan += tl.sum((logits != logits).to(tl.int32), axis=0)
        top = tl.maximum(top, tl.max(logits, axis=0))
    if (num_nan == 0) & (tl.abs(top) < float("inf")):
        mass, moment = 0.0, 0.0  # sums of exp(d) and of d exp(d), d = logit - top
        for start in range(0, vocab, BLOCK):
            ids = start + tl.arange(0, BLOCK)
            distance = tl.load(row_ptr + ids, mask=ids < vocab, other=float("-inf")) - top
            weight = tl.exp(distance)
            mass += tl.sum(weight, axis=0)
            moment += tl.sum(weight * tl.where(weight > 0.0, distance, 0.0), axis=0)
        normalizer = top + tl.log(mass)
        tl.store(normalizer_ptr + row, normalizer)
        tl.store(entropy_ptr + row, tl.log(mass) - moment / mass)
        key = tl.full((), 1 << (ID_BITS + 32), dtype=tl.int64)
        for place in range(LIKELIEST):
            key = _highest_below(row_ptr, vocab, key, ID_BITS, BLOCK)
            if key >= -(1 << (ID_BITS + 31)):
                token = _token_of(key, ID_BITS)
                logprob = tl.load(row_ptr + token) - normalizer
                tl.store(top_ids_ptr + row * LIKELIEST + place, tl.where(logprob == float("-inf"), -1, token))
                tl.store(top_logprobs_ptr + row * LIKELIEST + place, logprob)
            else:
                tl.store(top_logprobs_ptr + row * LIKELIEST + place, float("-inf"))
        token = tl.load(forced_ptr + row)
        if token == -1:
            heat = tl.load(temperature_ptr + row)
            if heat > 0.0:
                drawn = _draw(
                    row_ptr, vocab, top, heat, tl.load(top_p_ptr + row), tl.load(top_k_ptr + row),
                    tl.load(min_p_ptr + row), tl.load(uniform_ptr + row), ID_BITS, BLOCK,
                )  # fmt: skip
                token = _token_of(drawn, ID_BITS)
            else:
                token = tl.load(top_ids_ptr + row * LIKELIEST)
        tl.store(token_ptr + row, token)
        if token >= 0:
            tl.store(logprob_ptr + row, tl.load(row_ptr + token) - normalizer)


class TritonSampler:
    """Draws with the kernel, on the device of the logits."""

    def sample(
        self,
        logits: Tensor,
        temperature: Tensor,
        top_p: Tensor,
        top_k: Tensor,
        min_p: Tensor,
        uniform: Tensor,
        forced: Tensor,
    ) -> TritonDraw:
        """One token for each row of logits float32 [R, V], on `sampling.SamplingBatch`'s parameters, each [R]."""
        num_rows, vocab = logits.shape

        def filled(shape: tuple[int, ...], value: float, dtype: torch.dtype) -> Tensor:
            return torch.full(shape, value, dtype=dtype, device=logits.device)

        drawn = TritonDraw(
            token=filled((num_rows,), -1, torch.int32),
            logprob=filled((num_rows,), torch.nan, torch.float32),
            entropy=filled((num_rows,), torch.nan, torch.float32),
            log_normalizer=filled((num_rows,), torch.nan, torch.float32),
            top_ids=filled((num_rows, NUM_LIKELIEST), -1, torch.int32),
            top_logprobs=filled((num_rows, NUM_LIKELIEST), torch.nan, torch.float32),
        )
        _sample_kernel[(num_rows,)](
            logits, logits.stride(0), vocab, temperature, top_p, top_k, min_p, uniform, forced, *drawn,
            LIKELIEST=NUM_LIKELIEST, ID_BITS=(vocab - 1).bit_length(), BLOCK=_BLOCK,
        )  # fmt: skip
        return drawn
