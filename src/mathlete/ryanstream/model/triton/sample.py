"""Softmax, draw and mask in kernels: `sampling.sample_torch`'s definition, which is the twin.

Every token has a *rank key*, a whole number that is larger for a larger logit and, among equal logits, for a lower
id; so a key names a token. What top-k, min-p and top-p keep are the tokens whose key is at least some key, and the
drawn token is the largest key for which the kept tokens of at least that key hold enough mass.

Two kernels, and nothing between them that waits for the device:

1. A row is cut into tiles of 1024 logits (`tile`). Each tile is sorted by key, with the mass of its first 1, 2, 3,
   ... tokens beside it. All tiles of all rows at once: this is where the logits are read, a single time.
2. One program a row looks for keys, 16 candidates at a time, four bits of the key a round. How much lies at or above
   a candidate is found by bisection in every sorted tile; the tiles' shares are added up in order. The likeliest
   tokens come from merging the tiles' heads.

It takes the same time for a flat row as for a peaked one: nothing is guessed about how many tokens matter. A row's
sums depend on the row alone. Masses are float32 inside a tile and float64 across tiles, the twin's are float64, so
another token may come out where the uniform number, or top-p, lies within about 1e-6 of a border between two tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mathlete.ryanstream.model.native.kernels import NUM_LIKELIEST

_TILE = 1024
_SORT_WARPS = 4
_DRAW_WARPS = 8
_WAYS_BITS = 4  # of a key, settled in one round
_ROWS_AT_ONCE = 128  # sorted tiles of 152k logits take 1.9 MB a row
_MASK_BLOCK = 1024


class TritonDraw(NamedTuple):
    """The fields of `sampling.Drawn`, in its order."""

    token: Tensor
    logprob: Tensor
    entropy: Tensor
    log_normalizer: Tensor
    top_ids: Tensor
    top_logprobs: Tensor


class SortedTiles(NamedTuple):
    """R rows of T tiles: what the first kernel leaves for the second.

    Attributes:
        keys: int64 [R, T, tile], falling; below every token's where the row has ended.
        masses: float32 [R, T, tile], of a tile's tokens up to and with this one, tempered; the tile's largest is 1.
        tops: largest logit, float32 [R, T].
        sums: of exp(d), d = logit - top, float32 [R, T].
        moments: of d exp(d), float32 [R, T].
        num_nan: int32 [R, T].
    """

    keys: Tensor
    masses: Tensor
    tops: Tensor
    sums: Tensor
    moments: Tensor
    num_nan: Tensor


@triton.jit
def _ordered(logits):
    """int32, in the order of the logits."""
    bits = tl.where(logits == 0.0, 0.0, logits).to(tl.int32, bitcast=True)  # -0.0 is 0.0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _rank_key(logits, ids, ID_BITS: tl.constexpr):
    return (_ordered(logits).to(tl.int64) << ID_BITS) + ((1 << ID_BITS) - 1 - ids)


@triton.jit
def _logit_of(key, ID_BITS: tl.constexpr):
    ordered = (key >> ID_BITS).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _token_of(key, ID_BITS: tl.constexpr):
    return (((1 << ID_BITS) - 1) - (key & ((1 << ID_BITS) - 1))).to(tl.int32)


@triton.jit
def _sort_tiles_kernel(
    logits_ptr, stride, vocab, temperature_ptr,
    keys_ptr, masses_ptr, tops_ptr, sums_ptr, moments_ptr, num_nan_ptr,
    ID_BITS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Program (t, r) makes tile t of row r."""
    tile, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at = row * tl.num_programs(0) + tile
    places = tl.arange(0, TILE)
    ids = tile * TILE + places
    inside = ids < vocab
    logits = tl.load(logits_ptr + row * stride + ids, mask=inside, other=float("-inf"))
    top = tl.max(logits, axis=0)
    tl.store(tops_ptr + at, top)
    tl.store(num_nan_ptr + at, tl.sum((logits != logits).to(tl.int32), axis=0))
    reference = tl.where(tl.abs(top) < float("inf"), top, 0.0)  # else nothing here is possible, or the row is broken
    distance = logits - reference
    weight = tl.exp(distance)
    tl.store(sums_ptr + at, tl.sum(weight, axis=0))
    tl.store(moments_ptr + at, tl.sum(weight * tl.where(weight > 0.0, distance, 0.0), axis=0))
    key = tl.where(inside, _rank_key(logits, ids, ID_BITS), -(1 << (ID_BITS + 32)))
    key = tl.sort(key, descending=True)
    tl.store(keys_ptr + at * TILE + places, key)
    heat = tl.load(temperature_ptr + row)
    heat = tl.where(heat > 0.0, heat, 1.0)
    mass = tl.exp((_logit_of(key, ID_BITS) - reference) / heat)
    mass = tl.where(key >= -(1 << (ID_BITS + 31)), mass, 0.0)
    tl.store(masses_ptr + at * TILE + places, tl.cumsum(mass, axis=0))


@triton.jit
def _num_at_least(keys_ptr, starts, least, low, high):
    """How many keys of each tile are at least `least` int64 [W, 1], known to be in low to high: int32 [W, T]."""
    span = tl.max(tl.max(high - low, axis=1), axis=0)
    while span > 0:
        middle = (low + high) // 2
        is_open = low < high
        key = tl.load(keys_ptr + starts + middle, mask=is_open, other=0)
        enough = key >= least
        low = tl.where(is_open & enough, middle + 1, low)
        high = tl.where(is_open & (key < least), middle, high)
        span = span // 2
    return low


@triton.jit
def _amount(masses_ptr, starts, scale, counts, COUNT: tl.constexpr):
    """The first `counts` int32 [W, T] tokens of every tile: how many, or their mass; float64 [W]."""
    if COUNT:
        each = counts.to(tl.float64)
    else:
        each = tl.load(masses_ptr + starts + counts - 1, mask=counts > 0, other=0.0).to(tl.float64) * scale
    return tl.sum(each, axis=1)


@triton.jit
def _border(
    keys_ptr, masses_ptr, starts, scale, sizes, target,
    COUNT: tl.constexpr, ABOVE: tl.constexpr, ID_BITS: tl.constexpr, WAYS_BITS: tl.constexpr,
):  # fmt: skip
    """The largest key whose `_amount` reaches `target` (ABOVE: exceeds it); the least of all when none does."""
    ways: tl.constexpr = 1 << WAYS_BITS
    rounds: tl.constexpr = (ID_BITS + 32 + WAYS_BITS - 1) // WAYS_BITS
    way = tl.arange(0, ways)
    key = tl.full((), -(1 << (ID_BITS + 31)), dtype=tl.int64)
    step = tl.full((), 1 << (WAYS_BITS * (rounds - 1)), dtype=tl.int64)
    high = sizes  # the counts at `key`, and at the least key that is known not to do
    low = tl.zeros_like(sizes)
    for _ in range(rounds):
        candidates = key + way.to(tl.int64) * step
        no_counts = tl.zeros((ways, 1), dtype=tl.int32)
        counts = _num_at_least(
            keys_ptr, starts[None, :], candidates[:, None], no_counts + low[None, :], no_counts + high[None, :]
        )
        amount = _amount(masses_ptr, starts[None, :], scale[None, :], counts, COUNT)
        enough = amount > target if ABOVE else amount >= target
        chosen = tl.max(tl.where(enough, way, 0), axis=0)
        key += chosen.to(tl.int64) * step
        high = tl.sum(tl.where((way == chosen)[:, None], counts, 0), axis=0)
        low = tl.where(chosen + 1 < ways, tl.sum(tl.where((way == chosen + 1)[:, None], counts, 0), axis=0), low)
        step = step >> WAYS_BITS
    return key


@triton.jit
def _draw(
    keys_ptr, masses_ptr, starts, sizes, tops, vocab, top, heat, top_p, top_k, min_p, uniform,
    ID_BITS: tl.constexpr, WAYS_BITS: tl.constexpr,
):  # fmt: skip
    """The key of the token at `uniform` among those kept."""
    scale = tl.exp((tops - top) / heat).to(tl.float64)
    last = tl.full((), -(1 << (ID_BITS + 31)), dtype=tl.int64)  # the least key that is kept
    if min_p > 0.0:
        last = _ordered(top + heat * tl.log(min_p)).to(tl.int64) << ID_BITS
    if (top_k > 0) & (top_k < vocab):
        target = top_k.to(tl.float64)
        by_number = _border(keys_ptr, masses_ptr, starts, scale, sizes, target, True, False, ID_BITS, WAYS_BITS)
        last = tl.maximum(last, by_number)
    if top_p < 1.0:
        everything = tl.max(_amount(masses_ptr, starts[None, :], scale[None, :], sizes[None, :], False), axis=0)
        target = top_p.to(tl.float64) * everything
        by_mass = _border(keys_ptr, masses_ptr, starts, scale, sizes, target, False, False, ID_BITS, WAYS_BITS)
        last = tl.maximum(last, by_mass)
    none = tl.zeros_like(sizes)[None, :]
    counts = _num_at_least(keys_ptr, starts[None, :], last, none, sizes[None, :])
    kept = tl.max(_amount(masses_ptr, starts[None, :], scale[None, :], counts, False), axis=0)
    key = _border(keys_ptr, masses_ptr, starts, scale, sizes, uniform * kept, False, True, ID_BITS, WAYS_BITS)
    return tl.maximum(key, last)  # where rounding left nothing above: the last one


@triton.jit
def _draw_kernel(
    logits_ptr, stride, vocab, temperature_ptr, top_p_ptr, top_k_ptr, min_p_ptr, uniform_ptr, forced_ptr,
    num_tiles, keys_ptr, masses_ptr, tops_ptr, sums_ptr, moments_ptr, num_nan_ptr,
    token_ptr, logprob_ptr, entropy_ptr, normalizer_ptr, top_ids_ptr, top_logprobs_ptr,
    LIKELIEST: tl.constexpr, ID_BITS: tl.constexpr, TILE: tl.constexpr, TILES: tl.constexpr, WAYS_BITS: tl.constexpr,
):  # fmt: skip
    """Program r draws row r."""
    row = tl.program_id(0).to(tl.int64)
    tiles = tl.arange(0, TILES)
    inside = tiles < num_tiles
    at = row * num_tiles + tiles
    starts = at * TILE
    sizes = tl.maximum(tl.minimum(vocab - tiles * TILE, TILE), 0)
    tops = tl.load(tops_ptr + at, mask=inside, other=float("-inf"))
    top = tl.max(tops, axis=0)
    num_nan = tl.sum(tl.load(num_nan_ptr + at, mask=inside, other=0), axis=0)
    if (num_nan == 0) & (tl.abs(top) < float("inf")):
        sums = tl.load(sums_ptr + at, mask=inside, other=0.0)
        moments = tl.load(moments_ptr + at, mask=inside, other=0.0)
        shrink = tl.exp(tops - top)
        distance = tl.where(shrink > 0.0, tops - top, 0.0)
        mass = tl.sum(sums * shrink, axis=0)
        moment = tl.sum((moments + distance * sums) * shrink, axis=0)
        normalizer = top + tl.log(mass)
        tl.store(normalizer_ptr + row, normalizer)
        tl.store(entropy_ptr + row, tl.log(mass) - moment / mass)
        ended = tl.full((TILES,), -(1 << (ID_BITS + 32)), dtype=tl.int64)
        heads = tl.load(keys_ptr + starts, mask=inside, other=-(1 << (ID_BITS + 32)))
        first = tl.max(heads, axis=0)
        taken = tl.zeros((TILES,), dtype=tl.int32)
        for place in range(LIKELIEST):
            key = tl.max(heads, axis=0)
            logprob = tl.where(key >= -(1 << (ID_BITS + 31)), _logit_of(key, ID_BITS) - normalizer, float("-inf"))
            possible = logprob > float("-inf")
            tl.store(top_ids_ptr + row * LIKELIEST + place, tl.where(possible, _token_of(key, ID_BITS), -1))
            tl.store(top_logprobs_ptr + row * LIKELIEST + place, logprob)
            is_next = inside & (heads == key)
            taken += is_next.to(tl.int32)
            follows = tl.load(keys_ptr + starts + taken, mask=is_next & (taken < TILE), other=-(1 << (ID_BITS + 32)))
            heads = tl.where(is_next, tl.where(taken < TILE, follows, ended), heads)
        token = tl.load(forced_ptr + row)
        if token == -1:
            heat = tl.load(temperature_ptr + row)
            key = first
            if heat > 0.0:
                key = _draw(
                    keys_ptr, masses_ptr, starts, sizes, tops, vocab, top, heat, tl.load(top_p_ptr + row),
                    tl.load(top_k_ptr + row), tl.load(min_p_ptr + row), tl.load(uniform_ptr + row), ID_BITS, WAYS_BITS,
                )  # fmt: skip
            token = _token_of(key, ID_BITS)
        tl.store(token_ptr + row, token)
        logit = tl.load(logits_ptr + row * stride + token, mask=token >= 0, other=float("nan"))
        tl.store(logprob_ptr + row, logit - normalizer)
    else:
        nothing = tl.full((), float("nan"), dtype=tl.float32)
        tl.store(token_ptr + row, -1)
        tl.store(logprob_ptr + row, nothing)
        tl.store(entropy_ptr + row, nothing)
        tl.store(normalizer_ptr + row, nothing)
        for place in range(LIKELIEST):
            tl.store(top_ids_ptr + row * LIKELIEST + place, -1)
            tl.store(top_logprobs_ptr + row * LIKELIEST + place, nothing)


@triton.jit
def _mask_kernel(logits_ptr, stride, vocab, masks_ptr, num_words, BLOCK: tl.constexpr):
    """Program (t, r) takes the t-th tile of row r."""
    row = tl.program_id(1).to(tl.int64)
    ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = ids < vocab
    words = tl.load(masks_ptr + row * num_words + ids // 32, mask=inside, other=0)
    refused = ((words >> (ids % 32)) & 1) == 0
    tl.store(logits_ptr + row * stride + ids, float("-inf"), mask=inside & refused)


class TritonSampler:
    """Draws with the kernels, on the device of the logits."""

    def __init__(self, tile: int = _TILE, sort_warps: int = _SORT_WARPS) -> None:
        """With tiles of so many logits, a power of two, each sorted by so many warps."""
        self._tile = tile
        self._sort_warps = sort_warps

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
        drawn = _empty_draw(num_rows, logits.device)
        for start in range(0, num_rows, _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            part, heat = logits[rows], temperature[rows]
            tiles, id_bits = self._sorted_tiles(part, heat), (vocab - 1).bit_length()
            _draw_kernel[(len(part),)](
                part, part.stride(0), vocab, heat, top_p[rows], top_k[rows], min_p[rows], uniform[rows], forced[rows],
                tiles.tops.shape[1], *tiles, *(field[rows] for field in drawn),
                LIKELIEST=NUM_LIKELIEST, ID_BITS=id_bits, TILE=self._tile,
                TILES=triton.next_power_of_2(tiles.tops.shape[1]), WAYS_BITS=_WAYS_BITS, num_warps=_DRAW_WARPS,
            )  # fmt: skip
        return drawn

    def apply_mask(self, logits: Tensor, masks: Tensor) -> None:
        """See `sampling.apply_mask_torch`, the twin."""
        num_rows, vocab = logits.shape
        _mask_kernel[(triton.cdiv(vocab, _MASK_BLOCK), num_rows)](
            logits, logits.stride(0), vocab, masks, masks.shape[1], BLOCK=_MASK_BLOCK
        )

    def _sorted_tiles(self, logits: Tensor, temperature: Tensor) -> SortedTiles:
        """The tiles of logits float32 [R, V], tempered by temperature float32 [R], 0 counting as 1."""
        num_rows, vocab = logits.shape
        num_tiles = triton.cdiv(vocab, self._tile)

        def empty(*inner: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty((num_rows, num_tiles, *inner), dtype=dtype, device=logits.device)

        tiles = SortedTiles(
            empty(self._tile, dtype=torch.int64), empty(self._tile), empty(), empty(), empty(), empty(dtype=torch.int32)
        )
        _sort_tiles_kernel[(num_tiles, num_rows)](
            logits, logits.stride(0), vocab, temperature, *tiles,
            ID_BITS=(vocab - 1).bit_length(), TILE=self._tile, num_warps=self._sort_warps,
        )  # fmt: skip
        return tiles


def _empty_draw(num_rows: int, device: torch.device) -> TritonDraw:
    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return TritonDraw(
        token=empty(num_rows, dtype=torch.int32),
        logprob=empty(num_rows),
        entropy=empty(num_rows),
        log_normalizer=empty(num_rows),
        top_ids=empty(num_rows, NUM_LIKELIEST, dtype=torch.int32),
        top_logprobs=empty(num_rows, NUM_LIKELIEST),
    )
