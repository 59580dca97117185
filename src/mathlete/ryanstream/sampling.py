"""Drawing tokens from logits: the definition in torch (the twin), and the choice of the fast path.

A draw is a pure function of the row's logits, the request's parameters and one uniform number, which
is itself a pure function of the request's seed and the token's place. Nothing depends on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.model.native.kernels import NativeKernels

_MASK = (1 << 64) - 1
_COLDEST = 1e-5
_LARGEST_TOP_K = (1 << 31) - 1


class Drawn(NamedTuple):
    """One token a row: `token` int32 [R], -1 where the logits were not numbers; the model's own `logprob`
    and `entropy` (temperature 1, before filters, nats) float32 [R]."""  # noqa: D205, D209

    token: Tensor
    logprob: Tensor
    entropy: Tensor


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """Parameters of R rows: float32 [R] (`top_k` int32; `uniform` float64 in [0, 1)). Temperature 0 is greedy."""

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    min_p: Tensor
    uniform: Tensor


def uniform_at(seed: int, place: int) -> float:
    """The noise of the token at `place` of a request: splitmix64 (Steele et al. 2014), 53 bits in [0, 1)."""
    state = (_splitmix(seed & _MASK) + place * 0x9E3779B97F4A7C15) & _MASK
    return (_splitmix(state) >> 11) * 2.0**-53


def _splitmix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def sampling_batch(params: Sequence[SamplingParams], places: Sequence[int]) -> SamplingBatch:
    """Parameters of the rows; `places[i]` is the number of tokens row i has drawn before.

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
    )


def sample(logits: Tensor, batch: SamplingBatch, kernels: NativeKernels | None) -> Drawn:
    """Draw with the native kernel where there is one and the vocabulary fits it, else with the twin."""
    if kernels is None or logits.shape[1] % 16:
        return sample_torch(logits, batch)
    return Drawn(*kernels.sample(logits, batch.temperature, batch.top_p, batch.top_k, batch.min_p, batch.uniform))


def sample_torch(logits: Tensor, batch: SamplingBatch) -> Drawn:
    """The definition. logits float32 [R, V].

    Tokens are ranked by tempered probability (ties: lower id first). Kept are, in this order of rank,
    at most `top_k`, those of at least `min_p` times the first one's probability, and the smallest prefix
    whose mass reaches `top_p`; the first is always kept. The draw inverts the cumulative distribution
    of the kept tokens at `uniform`. A row with a NaN, or whose largest logit is infinite, has no
    distribution: its token is -1, its logprob and entropy are NaN.
    """
    broken = logits.isnan().any(-1) | ~logits.amax(-1).isfinite()
    logits = torch.where(broken[:, None], 0.0, logits)
    logprobs = torch.log_softmax(logits, dim=-1)
    entropy = -(logprobs.exp() * logprobs.clamp_min(-1e4)).sum(-1)
    greedy = batch.temperature <= 0
    heat = torch.where(greedy, torch.ones_like(batch.temperature), batch.temperature)
    ranked, order = torch.sort(torch.softmax(logits.double() / heat[:, None], dim=-1), descending=True, stable=True)
    rank = torch.arange(logits.shape[1])[None, :]
    mass_before = ranked.cumsum(-1) - ranked
    limit = torch.where(batch.top_k > 0, batch.top_k, logits.shape[1])[:, None]
    keep = (rank < limit) & (ranked >= batch.min_p[:, None] * ranked[:, :1])
    keep &= (mass_before < batch.top_p[:, None]) | (batch.top_p[:, None] >= 1)
    keep[:, 0] = True
    kept = torch.where(keep, ranked, 0.0)
    cumulative = kept.cumsum(-1)
    place = (cumulative <= batch.uniform[:, None] * cumulative[:, -1:]).sum(-1)
    place = torch.minimum(place, keep.sum(-1) - 1).clamp_min(0)
    drawn = order.gather(1, place[:, None]).squeeze(1)
    token = torch.where(greedy, logits.argmax(-1), drawn)
    logprob = logprobs.gather(1, token[:, None]).squeeze(1)
    return Drawn(
        torch.where(broken, -1, token).to(torch.int32),
        torch.where(broken, torch.nan, logprob),
        torch.where(broken, torch.nan, entropy),
    )
