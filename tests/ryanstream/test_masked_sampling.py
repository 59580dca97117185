"""Masks, forced tokens and the likeliest tokens, in both implementations, against plain numpy and each other."""

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
from mathlete.ryanstream.sampling import (
    NOT_FORCED,
    NOTHING_ALLOWED,
    ConstrainedRows,
    Drawn,
    SamplingBatch,
    apply_mask_torch,
    drawn_under_masks,
    sample,
    sample_torch,
    sampling_batch,
)
from mathlete.ryanstream.speculative.accept_rule import drawn_rows
from mathlete.ryanstream.speculative.draft_tree import DrawnFrom

Sampler = Callable[[Tensor, SamplingBatch, ConstrainedRows | None], Drawn]

SETTINGS = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=1, top_p=1),
    SamplingParams(temperature=0.8, top_p=0.9),
    SamplingParams(temperature=1.2, top_p=0.95, top_k=7, min_p=0.02),
    SamplingParams(temperature=1, top_p=1, min_p=0.1),
]


def _name(params: SamplingParams) -> str:
    return f"t{params.temperature}-p{params.top_p}-k{params.top_k}-m{params.min_p}"


@pytest.fixture(params=["native", "torch"])
def sampler(request: pytest.FixtureRequest) -> Sampler:
    kernels = None if request.param == "torch" else request.getfixturevalue("kernels")
    return lambda logits, batch, constrained=None: sample(logits, batch, kernels, constrained)


def pack(allowed: Tensor) -> Tensor:
    """Words int32 [R, ceil(V / 32)] of allowed bool [R, V], the long way."""
    rows, vocab = allowed.shape
    words = np.zeros((rows, -(-vocab // 32)), dtype=np.uint32)
    for row, token in allowed.nonzero().tolist():
        words[row, token // 32] |= np.uint32(1 << token % 32)
    return torch.from_numpy(words.view(np.int32))


@pytest.mark.parametrize("vocab", [16, 32, 48, 1024, 4112])
def test_apply_mask(kernels: NativeKernels, rng: torch.Generator, vocab: int) -> None:
    logits = torch.randn((7, vocab), generator=rng)
    logits[1, 3] = torch.nan
    allowed = torch.rand((7, vocab), generator=rng) < 0.5
    allowed[5], allowed[6] = True, False
    masked = torch.where(allowed, logits, -torch.inf)
    masks, twin = pack(allowed), logits.clone()
    apply_mask_torch(twin, masks)
    kernels.apply_mask(logits, masks)
    assert torch.equal(twin.nan_to_num(nan=9), masked.nan_to_num(nan=9))
    assert torch.equal(logits.nan_to_num(nan=9), masked.nan_to_num(nan=9))


def test_a_mask_of_the_wrong_width_is_refused(kernels: NativeKernels) -> None:
    logits, masks = torch.zeros((2, 64)), torch.zeros((2, 3), dtype=torch.int32)
    with pytest.raises(ValueError, match="masks of 2 rows of 64 tokens"):
        kernels.apply_mask(logits, masks)
    with pytest.raises(ValueError, match="masks of 2 rows of 64 tokens"):
        sample(logits, sampling_batch(SETTINGS[:2], [0, 0]), kernels, ConstrainedRows(torch.arange(2), masks))


@pytest.mark.parametrize("params", SETTINGS[1:], ids=_name)
def test_the_distribution_under_a_mask(sampler: Sampler, rng: torch.Generator, params: SamplingParams) -> None:
    """Chi-square over 20,000 draws of many seeds; wrong about once in a million."""
    num_draws, logits = 20_000, torch.randn(48, generator=rng) * 1.5
    allowed = torch.rand(48, generator=rng) < 0.5
    allowed[int(logits.argmax())] = False
    seeded = [SamplingParams(params.temperature, params.top_p, params.top_k, params.min_p, seed=s) for s in range(2000)]
    batch = sampling_batch([p for p in seeded for _ in range(10)], [*range(10)] * 2000)
    constrained = ConstrainedRows(torch.arange(num_draws), pack(allowed[None]).expand(num_draws, 2).contiguous())
    drawn = sampler(logits.expand(num_draws, 48).contiguous(), batch, constrained)
    kept = keep(torch.where(allowed, logits, -torch.inf).double().numpy(), params)
    counts = np.bincount(drawn.token.numpy(), minlength=48)
    assert counts[kept.ids].sum() == num_draws, "a token outside mask and filters was drawn"
    expected = kept.probabilities * num_draws
    large = expected >= 5
    statistic = float((((counts[kept.ids] - expected) ** 2 / expected)[large]).sum())
    degrees = max(int(large.sum()) - 1, 1)
    critical = degrees * (1 - 2 / (9 * degrees) + 4.75 * math.sqrt(2 / (9 * degrees))) ** 3  # Wilson & Hilferty 1931
    assert statistic < critical
    own = logits.log_softmax(-1)
    torch.testing.assert_close(drawn.logprob, own[drawn.token.long()], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(drawn.entropy, (-(own.exp() * own).sum()).expand(num_draws), rtol=1e-4, atol=1e-4)


def test_only_the_rows_named_are_constrained(sampler: Sampler, rng: torch.Generator) -> None:
    logits = torch.randn((30, 1024), generator=rng)
    before = logits.clone()
    batch = sampling_batch([SETTINGS[i % len(SETTINGS)] for i in range(30)], range(30))
    rows = torch.tensor([28, 3, 11])
    allowed = torch.zeros((3, 1024), dtype=torch.bool)
    for i, token in enumerate((0, 517, 1023)):
        allowed[i, token] = True
    free, held = sampler(logits, batch, None), sampler(logits, batch, ConstrainedRows(rows, pack(allowed)))
    assert held.token[rows].tolist() == [0, 517, 1023]
    others = torch.tensor([i for i in range(30) if i not in rows.tolist()])
    assert torch.equal(held.token[others], free.token[others])
    assert torch.equal(held.logprob[others], free.logprob[others])
    assert torch.equal(held.entropy, free.entropy) and torch.equal(held.top_logprobs, free.top_logprobs)
    assert torch.equal(logits, before), "the logits are left as they are"


def test_both_draw_the_same_under_masks(kernels: NativeKernels, rng: torch.Generator) -> None:
    logits = torch.randn((60, 1024), generator=rng) * 2
    batch = sampling_batch([SETTINGS[i % len(SETTINGS)] for i in range(60)], range(60))
    rows = torch.arange(0, 60, 2)
    constrained = ConstrainedRows(rows, pack(torch.rand((30, 1024), generator=rng) < 0.1))
    assert torch.equal(
        sample(logits, batch, kernels, constrained).token, sample(logits, batch, None, constrained).token
    )


@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0, 30.0])
def test_a_draw_under_a_mask_is_the_draw_from_a_masked_row(
    kernels: NativeKernels, rng: torch.Generator, spread: float
) -> None:
    """In one pass, or from masked copies first: with and without guesses, masks that leave much, little and nothing."""
    num_rows, vocab = 90, 4096
    logits = torch.randn((num_rows, vocab), generator=rng) * spread
    logits[7, 3] = torch.nan
    forced = [5 if i % 17 == 1 else NOT_FORCED for i in range(num_rows)]
    batch = sampling_batch([SETTINGS[i % len(SETTINGS)] for i in range(num_rows)], range(num_rows), forced)
    batch.uniform[::4] = 0.99
    share = torch.tensor([0.999, 0.5, 0.01, 0.0])[torch.arange(60) % 4]
    rows = torch.randperm(num_rows, generator=rng)[:60]
    allowed = torch.rand((60, vocab), generator=rng) < share[:, None]
    allowed[::3] &= logits[rows[::3]] < logits[rows[::3]].nan_to_num(0.0).amax(-1, keepdim=True)  # not the likeliest
    constrained = ConstrainedRows(rows, pack(allowed))
    guessed = list(range(0, num_rows, 2))
    named = [logits[row].nan_to_num(0.0).topk(3).indices.tolist() for row in guessed]
    noise = torch.rand(len(guessed), generator=rng).tolist()
    drawn = drawn_rows(
        guessed,
        [ids[i % 3] for i, ids in enumerate(named)],
        [DrawnFrom(tuple(ids), (0.5, 0.3, 0.2)) for ids in named],
        noise,
    )
    for guesses in (None, drawn):
        fast = sample(logits, batch, kernels, constrained, guesses)
        slow = sample(logits, drawn_under_masks(logits, batch, constrained, kernels, guesses), kernels, None, guesses)
        assert NOTHING_ALLOWED in fast.token and len(set(fast.token.tolist())) > 20
        for name, a, b in zip(Drawn._fields, fast, slow, strict=True):
            assert torch.equal(a.nan_to_num(9), b.nan_to_num(9)), name


def test_a_row_that_may_draw_nothing_says_so_alone(sampler: Sampler, rng: torch.Generator) -> None:
    """Nothing allowed; only what has probability zero allowed; logits that are no numbers, allowed or not."""
    logits = torch.randn((6, 64), generator=rng)
    logits[1, 5] = -torch.inf
    logits[2, 5] = logits[3, 6] = torch.nan
    allowed = torch.zeros((5, 64), dtype=torch.bool)
    allowed[1:, 5] = True
    allowed[4] = True
    for params in (SamplingParams(temperature=0), SamplingParams(temperature=1)):
        drawn = sampler(logits, sampling_batch([params] * 6, [0] * 6), ConstrainedRows(torch.arange(5), pack(allowed)))
        assert drawn.token[:4].tolist() == [NOTHING_ALLOWED, NOTHING_ALLOWED, -1, -1]
        assert min(drawn.token[4:].tolist()) >= 0
        assert drawn.logprob.isnan().tolist() == [True] * 4 + [False] * 2
        assert drawn.entropy.isnan().tolist() == [False, False, True, True, False, False]


def test_a_forced_token_has_the_models_own_logprob(sampler: Sampler, rng: torch.Generator) -> None:
    logits = torch.randn((5, 1024), generator=rng) * 3
    logits[3, 9] = torch.nan
    logits[4, 77] = -torch.inf
    forced = [-1, 0, 1023, 5, 77]
    drawn = sampler(logits, sampling_batch([SamplingParams(temperature=0.3, top_k=1)] * 5, [0] * 5, forced), None)
    assert drawn.token.tolist() == [int(logits[0].argmax()), 0, 1023, -1, 77]
    own = logits.log_softmax(-1)
    torch.testing.assert_close(drawn.logprob[1:3], torch.stack([own[1, 0], own[2, 1023]]), rtol=1e-5, atol=1e-5)
    assert math.isnan(drawn.logprob[3]) and drawn.logprob[4] == -torch.inf


@pytest.mark.parametrize("vocab", [16, 32, 64, 4112, 151936])
@pytest.mark.parametrize("kind", ["random", "rising", "falling", "ties"])
def test_the_likeliest_tokens(sampler: Sampler, rng: torch.Generator, vocab: int, kind: str) -> None:
    logits = torch.randn((3, vocab), generator=rng) * 2
    if kind == "ties":
        logits = logits.round()
    elif kind != "random":
        logits = logits.sort(dim=-1, descending=kind == "falling").values
    logits[2, 4:] = -torch.inf
    drawn = sampler(logits, sampling_batch([SamplingParams(temperature=0)] * 3, [0] * 3), None)
    own = logits.double().log_softmax(-1)
    for row in range(3):
        order = np.lexsort((np.arange(vocab), -logits[row].numpy()))[: 4 if row == 2 else 20]
        missing = 20 - len(order)
        assert drawn.top_ids[row].tolist() == [*order, *[-1] * missing]
        wanted = torch.cat([own[row][torch.from_numpy(order)], torch.full((missing,), -torch.inf)])
        torch.testing.assert_close(drawn.top_logprobs[row].double(), wanted, rtol=1e-5, atol=1e-5)
        assert float(drawn.log_normalizer[row]) == pytest.approx(float(logits[row].double().logsumexp(-1)), abs=1e-5)


@pytest.mark.parametrize("params", SETTINGS, ids=_name)
def test_draws_beyond_the_likeliest_agree(kernels: NativeKernels, rng: torch.Generator, params: SamplingParams) -> None:
    """Flat and steep rows, and uniform numbers near both ends: the twenty likeliest do and do not hold the draw."""
    logits = torch.cat([torch.randn((20, 4096), generator=rng) * spread for spread in (0.01, 1.0, 4.0, 30.0)])
    batch = sampling_batch([params] * 80, range(80))
    batch.uniform[::4], batch.uniform[1::4] = 0.0, 0.99
    assert torch.equal(sample(logits, batch, kernels).token, sample_torch(logits, batch).token)
