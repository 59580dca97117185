"""Drawing tokens from logits: the definition in torch (the twin), and the choice of the fast path.

A draw is a pure function of the row's logits, the request's parameters, its constraint's mask and one uniform
number, which is itself a pure function of the request's seed and the token's place. Rows never meet.

So the same request with the same seed gives the same tokens, logprobs and entropies, bit for bit, whatever else is
in the batch, **as long as the row's logits are the same**. They are with the native kernels (every sum runs within
a row in a fixed order, integer products are exact), also after preemption, for found prefixes and for any chunking
of the prompt. They are not, in the last bits, and so now and then in a token,

- with the torch twins in floating point (bf16, fp32, and anything on a GPU): a matrix product is summed in another
  order for another number of rows. `EngineConfig.batch_invariant` computes each row alone there, and so avoids it;
- where the precision is chosen anew for each step by the number of its rows: then the company chooses it;
- across machines: the kernels' exponential and float sums are the compiler's for that processor;
- between native kernels and twins, here as well: their sums differ in order, so a uniform number within about 1e-6
  of the border between two tokens falls on either side.

Words: the *model's own* distribution is the softmax of the logits, before temperature, filters and mask. A
*forced* token is put in instead of being drawn; it has a logprob of the model's own like any other. A row with a
*draft* (a guess that was drawn) draws its token by `speculative/accept_rule.py`, from the same target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.model.native.kernels import NUM_LIKELIEST, NativeKernels
from mathlete.ryanstream.model.transfer import move_together
from mathlete.ryanstream.speculative.accept_rule import DrawnRows, accept_or_redraw, rank_at

NOT_FORCED = -1
NOTHING_ALLOWED = -2

_MASK = (1 << 64) - 1
_COLDEST = 1e-5
_LARGEST_TOP_K = (1 << 31) - 1
_ACCEPT_STREAM = 0xD1B54A32D192ED03


class Drawn(NamedTuple):
    """One token for each of R rows, and what the model's own distribution was there (natural logarithms).

    Attributes:
        token: int32 [R]; -1 where the logits were not numbers, -2 where no token was allowed.
        logprob: of the token, float32 [R].
        entropy: float32 [R].
        log_normalizer: a token's logit less this is its logprob, float32 [R].
        top_ids: the 20 likeliest tokens, ties by lower id, int32 [R, 20]; -1 where there are fewer.
        top_logprobs: theirs, float32 [R, 20]; minus infinity where there are fewer.

    A row with a NaN, or whose largest logit is infinite, has no distribution: all its values are NaN.
    """

    token: Tensor
    logprob: Tensor
    entropy: Tensor
    log_normalizer: Tensor
    top_ids: Tensor
    top_logprobs: Tensor


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """Parameters of R rows: float32 [R] (`top_k`, `forced` int32; `uniform` float64 in [0, 1)).

    Temperature 0 is greedy. `forced` is a token to take without drawing, -1 to draw, -2 to take none.
    """

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    min_p: Tensor
    uniform: Tensor
    forced: Tensor

    def rows(self, index: Tensor) -> SamplingBatch:
        """The parameters of the rows `index` int64 [C]."""
        return SamplingBatch(*(part[index] for part in self._parts()))

    def to(self, device: torch.device) -> SamplingBatch:
        """The same on `device`."""
        return SamplingBatch(*move_together(self._parts(), device))

    def _parts(self) -> tuple[Tensor, ...]:
        return self.temperature, self.top_p, self.top_k, self.min_p, self.uniform, self.forced


class ConstrainedRows(NamedTuple):
    """Rows that may draw only some tokens: `rows` int64 [C]; `masks` int32 [C, ceil(V / 32)], bit i % 32 of word
    i // 32 set where token i is allowed."""  # noqa: D205, D209

    rows: Tensor
    masks: Tensor

    def to(self, device: torch.device) -> ConstrainedRows:
        """The same on `device`."""
        return ConstrainedRows(*move_together(self, device))


def uniform_at(seed: int, place: int) -> float:
    """The noise of the token at `place` of a request: splitmix64 (Steele et al. 2014), 53 bits in [0, 1)."""
    state = (_splitmix(seed & _MASK) + place * 0x9E3779B97F4A7C15) & _MASK
    return (_splitmix(state) >> 11) * 2.0**-53


def accept_uniform_at(seed: int, place: int) -> float:
    """The noise that decides whether the draft at `place` is taken: another stream than `uniform_at`'s."""
    return uniform_at(seed ^ _ACCEPT_STREAM, place)


def _splitmix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def sampling_batch(
    params: Sequence[SamplingParams], places: Sequence[int], forced: Sequence[int] | None = None
) -> SamplingBatch:
    """Parameters of the rows; `places[i]` is the number of tokens row i has had before, `forced` all -1 by default.

    Temperatures below 1e-5 are greedy: logits divided by them would leave float32.
    """
    heat = [p.temperature if p.temperature >= _COLDEST else 0.0 for p in params]
    return SamplingBatch(
        temperature=torch.tensor(heat, dtype=torch.float32),
        top_p=torch.tensor([p.top_p for p in params], dtype=torch.float32),
        top_k=torch.tensor([min(p.top_k, _LARGEST_TOP_K) for p in params], dtype=torch.int32),
        min_p=torch.tensor([p.min_p for p in params], dtype=torch.float32),
        uniform=torch.tensor(
            [uniform_at(p.seed, place) for p, place in zip(params, places, strict=True)], dtype=torch.float64
        ),
        forced=torch.tensor([NOT_FORCED] * len(params) if forced is None else forced, dtype=torch.int32),
    )


class SampleKernel(Protocol):
    """Draws as `sample_torch` does, on the device of the logits; gives the fields of `Drawn` in order."""

    def sample(
        self,
        logits: Tensor,
        temperature: Tensor,
        top_p: Tensor,
        top_k: Tensor,
        min_p: Tensor,
        uniform: Tensor,
        forced: Tensor,
    ) -> tuple[Tensor, ...]:
        """Draw for each row of logits float32 [R, V]; the others are those of `SamplingBatch`, [R]."""
        ...

    def apply_mask(self, logits: Tensor, masks: Tensor) -> None:
        """See `apply_mask_torch`."""
        ...


def sample(
    logits: Tensor,
    batch: SamplingBatch,
    kernels: SampleKernel | None,
    constrained: ConstrainedRows | None = None,
    drawn: DrawnRows | None = None,
) -> Drawn:
    """Draw one token for each row of logits float32 [R, V], which are not changed.

    A constrained row is drawn from its allowed tokens alone, by the definition in `sample_torch` as if the others
    had probability zero. A row with a draft takes it or not by the accept rule. A forced row takes its token, whatever
    else it has. Everything that is told of a row is still of the model's own distribution.

    The native kernel does it where there is one and the vocabulary fits it, else the twin. Native kernels draw under
    the masks in the pass that takes the model's own distribution; the others draw the constrained rows twice.
    """
    if logits.shape[1] % 16:
        kernels = None
    if constrained is not None and not isinstance(kernels, NativeKernels):
        batch, constrained = drawn_under_masks(logits, batch, constrained, kernels, drawn), None
    return _draw(logits, batch, kernels, drawn, constrained)


def drawn_under_masks(
    logits: Tensor,
    batch: SamplingBatch,
    constrained: ConstrainedRows,
    kernels: SampleKernel | None,
    drawn: DrawnRows | None,
) -> SamplingBatch:
    """The batch with the constrained rows' tokens drawn from masked copies, and forced from here on."""
    allowed = logits[constrained.rows]
    if kernels is None:
        apply_mask_torch(allowed, constrained.masks)
    else:
        kernels.apply_mask(allowed, constrained.masks)
    if drawn is not None:  # those of the constrained rows, which have other numbers here
        number = torch.full_like(batch.forced, -1).long()
        number[constrained.rows] = torch.arange(len(constrained.rows), device=number.device)
        drawn = drawn._replace(rows=number[drawn.rows])
        drawn = drawn.at(drawn.rows >= 0)
    token = _draw(allowed, batch.rows(constrained.rows), kernels, drawn).token
    forced = batch.forced.clone()
    forced[constrained.rows] = torch.where(token < 0, NOTHING_ALLOWED, token)
    return replace(batch, forced=torch.where(batch.forced == NOT_FORCED, forced, batch.forced))


def _draw(
    logits: Tensor,
    batch: SamplingBatch,
    kernels: SampleKernel | None,
    drawn: DrawnRows | None,
    constrained: ConstrainedRows | None = None,
) -> Drawn:
    if drawn is not None:
        drawn = drawn.at(batch.forced[drawn.rows] == NOT_FORCED)
    if drawn is not None and not isinstance(kernels, NativeKernels):
        forced = batch.forced.clone()
        forced[drawn.rows] = accept_torch(logits, batch, drawn)
        batch = replace(batch, forced=forced)
    if kernels is None:
        return sample_torch(logits, batch)
    parts = batch.temperature, batch.top_p, batch.top_k, batch.min_p, batch.uniform, batch.forced
    if isinstance(kernels, NativeKernels):
        return Drawn(*kernels.sample(logits, *parts, drawn, constrained))
    return Drawn(*kernels.sample(logits, *parts))


def apply_mask_torch(logits: Tensor, masks: Tensor) -> None:
    """Set logits float32 [R, V] to minus infinity, in place, where the bit in masks int32 [R, ceil(V / 32)] is 0."""
    bits = torch.arange(32, dtype=torch.int32, device=masks.device)
    allowed = (masks[:, :, None] >> bits) & 1
    logits.masked_fill_(allowed.flatten(1)[:, : logits.shape[1]] == 0, -torch.inf)


def sample_torch(logits: Tensor, batch: SamplingBatch) -> Drawn:
    """The definition. logits float32 [R, V].

    Tokens are ranked by logit (ties: lower id first). Kept are, in this order of rank, at most `top_k`,
    those whose tempered probability is at least `min_p` times the first one's, and the smallest prefix whose
    tempered mass reaches `top_p`; the first is always kept. The draw inverts the cumulative distribution of the
    kept tokens at `uniform`.
    """
    broken = logits.isnan().any(-1) | ~logits.amax(-1).isfinite()
    logits = torch.where(broken[:, None], 0.0, logits)
    log_normalizer = logits.logsumexp(-1)
    logprobs = logits - log_normalizer[:, None]
    entropy = -(logprobs.exp() * logprobs.clamp_min(-1e4)).sum(-1)
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    token = order.gather(1, rank_at(_target(ordered, batch), batch.uniform)[:, None]).squeeze(1)
    token = torch.where(batch.forced == NOT_FORCED, token, batch.forced)
    logprob = logprobs.gather(1, token.clamp_min(0)[:, None]).squeeze(1)
    likeliest = logprobs.gather(1, order[:, :NUM_LIKELIEST])
    top_ids = torch.where(likeliest > -torch.inf, order[:, :NUM_LIKELIEST], -1)
    missing = (0, NUM_LIKELIEST - likeliest.shape[1])
    pad = torch.nn.functional.pad
    return Drawn(
        torch.where(broken, -1, token).to(torch.int32),
        torch.where(broken | (token < 0), torch.nan, logprob),
        torch.where(broken, torch.nan, entropy),
        torch.where(broken, torch.nan, log_normalizer),
        torch.where(broken[:, None], -1, pad(top_ids, missing, value=-1)).to(torch.int32),
        torch.where(broken[:, None], torch.nan, pad(likeliest, missing, value=-torch.inf)),
    )


def accept_torch(logits: Tensor, batch: SamplingBatch, drawn: DrawnRows) -> Tensor:
    """The tokens int32 [C] of the rows of logits float32 [R, V] that have drafts; anything where there are no numbers.

    The twin of what `NativeKernels.sample` does with them.
    """
    rows, params = logits[drawn.rows], batch.rows(drawn.rows)
    ordered, order = rows.nan_to_num(0.0, 0.0, -torch.inf).sort(dim=-1, descending=True, stable=True)
    return accept_or_redraw(_target(ordered, params), order, params.uniform, drawn).to(torch.int32)


def _target(ordered: Tensor, batch: SamplingBatch) -> Tensor:
    """What each row draws from, float64 [R, V] in order of rank, of its logits in this order."""
    greedy = batch.temperature <= 0
    heat = torch.where(greedy, 1.0, batch.temperature)
    ranked = torch.softmax(ordered.double() / heat[:, None], dim=-1)
    rank = torch.arange(ordered.shape[1], device=ordered.device)[None, :]
    mass_before = ranked.cumsum(-1) - ranked
    limit = torch.where(batch.top_k > 0, batch.top_k, ordered.shape[1]).masked_fill(greedy, 1)[:, None]
    keep = (rank < limit) & (ranked >= batch.min_p[:, None] * ranked[:, :1])
    keep &= (mass_before < batch.top_p[:, None]) | (batch.top_p[:, None] >= 1)
    keep[:, 0] = True
    kept = torch.where(keep, ranked, 0.0)
    return kept / kept.sum(-1, keepdim=True)
