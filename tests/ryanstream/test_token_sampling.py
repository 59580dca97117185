"""Drawing tokens: both implementations against a reference in numpy; noise, ties, broken logits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sampling_reference import keep
from torch import Tensor

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.sampling import Drawn, SamplingBatch, sample, sample_torch, sampling_batch, uniform_at

Sampler = Callable[[Tensor, SamplingBatch], Drawn]

SETTINGS = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=1, top_p=1),
    SamplingParams(temperature=0.3, top_p=1),
    SamplingParams(temperature=2.5, top_p=1),
    SamplingParams(temperature=0.8, top_p=0.95),
    SamplingParams(temperature=1.4, top_p=0.52),
    SamplingParams(temperature=1, top_p=1e-6),
    SamplingParams(temperature=1, top_p=1, top_k=1),
    SamplingParams(temperature=1, top_p=1, top_k=5),
    SamplingParams(temperature=1, top_p=1, top_k=10**12),
    SamplingParams(temperature=1, top_p=1, min_p=0.02),
    SamplingParams(temperature=1, top_p=1, min_p=1),
    SamplingParams(temperature=1.2, top_p=0.9, top_k=20, min_p=0.01),
]


def _name(params: SamplingParams) -> str:
    return f"t{params.temperature}-p{params.top_p}-k{params.top_k}-m{params.min_p}"


@pytest.fixture(params=["native", "torch"])
def sampler(request: pytest.FixtureRequest) -> Sampler:
    if request.param == "torch":
        return sample_torch
    kernels: NativeKernels = request.getfixturevalue("kernels")
    return lambda logits, batch: sample(logits, batch, kernels)


@pytest.mark.parametrize("params", SETTINGS, ids=_name)
@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 40.0])
def test_the_token_is_the_one_at_the_uniform(
    sampler: Sampler, rng: torch.Generator, params: SamplingParams, spread: float
) -> None:
    logits = torch.randn((40, 4112), generator=rng) * spread
    logits[3, 100:] = -torch.inf
    batch = sampling_batch([params] * 40, range(40))
    drawn = sampler(logits, batch)
    for row in range(40):
        kept = keep(logits[row].double().numpy(), params)
        uniform = 0.0 if params.temperature == 0 else float(batch.uniform[row])
        assert kept.fits(int(drawn.token[row]), uniform), f"row {row}"
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(1, drawn.token.long()[:, None]).squeeze(1)
    torch.testing.assert_close(drawn.logprob, chosen, rtol=1e-5, atol=1e-5)
    entropy = -(logprobs.exp() * logprobs.clamp_min(-1e4)).sum(-1)
    torch.testing.assert_close(drawn.entropy, entropy, rtol=1e-4, atol=1e-4)


def test_both_draw_the_same_token(kernels: NativeKernels, rng: torch.Generator) -> None:
    params = [SETTINGS[i % len(SETTINGS)] for i in range(130)]
    logits = torch.randn((130, 1024), generator=rng) * 2
    batch = sampling_batch(params, range(130))
    assert torch.equal(sample(logits, batch, kernels).token, sample_torch(logits, batch).token)


@pytest.mark.parametrize("params", SETTINGS[1:], ids=_name)
def test_the_distribution(sampler: Sampler, rng: torch.Generator, params: SamplingParams) -> None:
    """Chi-square over 20,000 draws of many seeds; wrong about once in a million."""
    num_draws, logits = 20_000, torch.randn(32, generator=rng) * 1.5
    seeded = [SamplingParams(params.temperature, params.top_p, params.top_k, params.min_p, seed=s) for s in range(2000)]
    batch = sampling_batch([p for p in seeded for _ in range(10)], [*range(10)] * 2000)
    drawn = sampler(logits.expand(num_draws, 32).contiguous(), batch).token.numpy()
    kept = keep(logits.double().numpy(), params)
    counts = np.bincount(drawn, minlength=32)
    assert counts[kept.ids].sum() == num_draws, "a token outside the filters was drawn"
    expected = kept.probabilities * num_draws
    large = expected >= 5
    statistic = float((((counts[kept.ids] - expected) ** 2 / expected)[large]).sum())
    degrees = max(int(large.sum()) - 1, 1)
    critical = degrees * (1 - 2 / (9 * degrees) + 4.75 * math.sqrt(2 / (9 * degrees))) ** 3  # Wilson & Hilferty 1931
    assert statistic < critical


@pytest.mark.parametrize("width", [16, 320, 321])
def test_ties_go_to_the_lower_id(kernels: NativeKernels, width: int) -> None:
    logits = torch.zeros((3, width))
    params = [SamplingParams(0), SamplingParams(1, top_p=1, top_k=4), SamplingParams(1, top_p=1)]
    batch = sampling_batch(params, [0] * 3)
    batch.uniform[:] = torch.tensor([0.9, 0.8, 1 - 2**-53])
    assert sample(logits, batch, kernels).token.tolist() == [0, 3, width - 1]
    assert sample_torch(logits, batch).token.tolist() == [0, 3, width - 1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_draw_nothing(sampler: Sampler, rng: torch.Generator, temperature: float) -> None:
    logits = torch.randn((6, 64), generator=rng)
    logits[0] = torch.nan
    logits[1, 40] = torch.nan
    logits[2] = -torch.inf
    logits[3, 7] = torch.inf
    logits[4, 7] = -torch.inf
    drawn = sampler(logits, sampling_batch([SamplingParams(temperature)] * 6, [0] * 6))
    assert [token < 0 for token in drawn.token.tolist()] == [True] * 4 + [False] * 2
    for values in (drawn.logprob, drawn.entropy, drawn.log_normalizer, drawn.top_logprobs[:, 0]):
        assert values.isnan().tolist() == [True] * 4 + [False] * 2
    assert (drawn.top_ids[:4] == -1).all() and (drawn.top_ids[4:] >= 0).all()


def test_a_temperature_near_zero_is_greedy(sampler: Sampler, rng: torch.Generator) -> None:
    logits = torch.randn((4, 64), generator=rng)
    params = [SamplingParams(t, top_p=1) for t in (1e-300, 1e-40, 1e-7, 2e-5)]
    assert torch.equal(sampler(logits, sampling_batch(params, [0] * 4)).token.long(), logits.argmax(-1))


def test_rows_do_not_meet(sampler: Sampler, rng: torch.Generator) -> None:
    logits = torch.randn((20, 64), generator=rng)
    params = [SamplingParams(0.5 + i / 10, top_p=0.9, seed=i) for i in range(20)]
    together = sampler(logits, sampling_batch(params, range(20)))
    for i in range(20):
        alone = sampler(logits[i : i + 1].contiguous(), sampling_batch(params[i : i + 1], [i]))
        assert all(torch.equal(part[0], whole[i]) for part, whole in zip(alone, together, strict=True))


def test_noise_is_even_and_named_by_seed_and_place() -> None:
    values = np.array([uniform_at(seed, place) for seed in range(200) for place in range(200)])
    assert len(set(values)) == len(values)
    assert 0 <= values.min() and values.max() < 1
    counts = np.bincount((values * 64).astype(int), minlength=64)
    assert ((counts - len(values) / 64) ** 2).sum() / (len(values) / 64) < 130  # 63 degrees, p < 1e-6
    neighbours = np.corrcoef(values.reshape(200, 200)[:, :-1].ravel(), values.reshape(200, 200)[:, 1:].ravel())[0, 1]
    seeds = np.corrcoef(values.reshape(200, 200)[:-1].ravel(), values.reshape(200, 200)[1:].ravel())[0, 1]
    assert abs(neighbours) < 0.025 and abs(seeds) < 0.025
    assert uniform_at(-1, 0) == uniform_at(2**64 - 1, 0)


def test_splitmix_is_the_published_one() -> None:
    """First outputs of splitmix64 from state 1234567 (Rosetta Code's reference values)."""
    from mathlete.ryanstream.sampling import _splitmix

    golden = 0x9E3779B97F4A7C15
    assert [_splitmix(1234567 + i * golden & (1 << 64) - 1) for i in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
