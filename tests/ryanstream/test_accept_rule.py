"""The accept rule: what comes out is distributed as the target, whatever the drafts were drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sampling_reference import Kept, keep
from torch import Tensor

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.model.native.kernels import NUM_LIKELIEST, NativeKernels
from mathlete.ryanstream.sampling import (
    NOTHING_ALLOWED,
    ConstrainedRows,
    Drawn,
    SamplingBatch,
    accept_uniform_at,
    sample,
    sample_torch,
    sampling_batch,
    uniform_at,
)
from mathlete.ryanstream.speculative.accept_rule import DrawnRows, accept_or_redraw, drawn_rows, rank_at
from mathlete.ryanstream.speculative.draft_tree import DrawnFrom

Sampler = Callable[[Tensor, SamplingBatch, ConstrainedRows | None, DrawnRows | None], Drawn]
Floats = NDArray[np.float64]

VOCAB = 48
BELOW_ONE = 1 - 2.0**-53
SETTINGS = {
    "greedy": SamplingParams(temperature=0),
    "plain": SamplingParams(temperature=1, top_p=1),
    "cold": SamplingParams(temperature=0.7, top_p=1),
    "hot": SamplingParams(temperature=1.3, top_p=1),
    "top_p": SamplingParams(temperature=0.7, top_p=0.9),
    "top_k": SamplingParams(temperature=1.3, top_p=1, top_k=5),
    "min_p": SamplingParams(temperature=1.3, top_p=1, min_p=0.1),
    "all": SamplingParams(temperature=1.3, top_p=0.95, top_k=9, min_p=0.02),
}
QS = ("close", "far", "disjoint")


@pytest.fixture(params=["native", "torch"])
def sampler(request: pytest.FixtureRequest) -> Sampler:
    kernels = None if request.param == "torch" else request.getfixturevalue("kernels")
    return lambda logits, batch, constrained, drawn: sample(logits, batch, kernels, constrained, drawn)


@dataclass(frozen=True)
class Case:
    """One row: what it draws from, and what its drafts are drawn from.

    `p` and `q` float64 [V] by token id; `allowed` bool [V] or None.
    """

    params: SamplingParams
    logits: Tensor
    allowed: Tensor | None
    p: Floats
    q: Floats

    @property
    def drawn_from(self) -> DrawnFrom:
        ids = np.flatnonzero(self.q)
        return DrawnFrom(tuple(ids.tolist()), tuple(self.q[ids].tolist()))

    def constrained(self, num_rows: int) -> ConstrainedRows | None:
        if self.allowed is None:
            return None
        words = np.packbits(np.pad(self.allowed.numpy(), (0, -VOCAB % 32)), bitorder="little").view(np.int32)
        masks = torch.from_numpy(words.copy()).expand(num_rows, -1).contiguous()
        return ConstrainedRows(torch.arange(num_rows), masks)


def by_id(kept: Kept, vocab: int = VOCAB) -> Floats:
    probs = np.zeros(vocab)
    probs[kept.ids] = kept.probabilities
    return probs


def proposal(name: str, logits: Tensor, params: SamplingParams, rng: torch.Generator) -> Floats:
    """At most 20 tokens: the target's likeliest with shaken logits, any, or those that it likes least."""
    if name == "far":
        weights = torch.rand(len(logits), generator=rng) ** 4
    else:
        shaken = logits + 0.3 * torch.randn(len(logits), generator=rng)
        weights = (shaken / max(params.temperature, 0.5)).softmax(-1)
        ranked = logits.sort().values
        weights = weights * (logits >= ranked[-12] if name == "close" else logits <= ranked[len(logits) // 5])
    weights[weights.argsort(descending=True)[NUM_LIKELIEST:]] = 0
    probs = weights.float().double().numpy()
    return probs / probs.sum()


def make_case(setting: str, q: str, masked: bool, rng: torch.Generator) -> Case:
    params, logits = SETTINGS[setting], torch.randn(VOCAB, generator=rng) * 1.5
    allowed = None
    seen = logits
    if masked:
        allowed = torch.rand(VOCAB, generator=rng) < 0.5
        allowed[logits.argmax()] = False
        seen = torch.where(allowed, logits, -torch.inf)
    target = by_id(keep(seen.double().numpy(), params))
    return Case(params, logits, allowed, target, proposal(q, logits, params, rng))


def judged(
    sampler: Sampler, case: Case, tokens: NDArray[np.int64], accept_uniform: Floats, uniform: Floats
) -> NDArray[np.int64]:
    """What comes out of a row for each draft and pair of numbers."""
    num = len(tokens)
    batch = sampling_batch([case.params], [0]).rows(torch.zeros(num, dtype=torch.int64))
    batch = replace(batch, uniform=torch.from_numpy(uniform.astype(np.float64)))
    one = drawn_rows([0], [int(np.flatnonzero(case.q)[0])], [case.drawn_from], [0.0])
    drawn = DrawnRows(
        torch.arange(num), torch.from_numpy(tokens.astype(np.int32)), one.ids.expand(num, -1).contiguous(),
        one.probs.expand(num, -1).contiguous(), torch.from_numpy(accept_uniform),
    )  # fmt: skip
    logits = case.logits.expand(num, VOCAB).contiguous()
    return sampler(logits, batch, case.constrained(num), drawn).token.numpy().astype(np.int64)


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
@pytest.mark.parametrize("q", QS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_expectation_is_the_target(
    sampler: Sampler, rng: torch.Generator, setting: str, q: str, masked: bool
) -> None:
    """By enumeration: every draft, its acceptance over a grid of 256, the residual over a grid of 2,048."""
    case = make_case(setting, q, masked, rng)
    drafts = np.flatnonzero(case.q)
    grid, fine = (np.arange(256) + 0.5) / 256, (np.arange(2048) + 0.5) / 2048
    out = judged(sampler, case, np.repeat(drafts, 256), np.tile(grid, len(drafts)), np.full(256 * len(drafts), 0.37))
    accepted = (out.reshape(-1, 256) == drafts[:, None]).mean(1)
    worst = int(drafts[np.argmin(case.p[drafts] / case.q[drafts])])
    redrawn = judged(sampler, case, np.full(2048, worst), np.full(2048, BELOW_ONE), fine)
    expected_accepted = np.minimum(1, case.p[drafts] / case.q[drafts])
    residual = np.bincount(redrawn, minlength=VOCAB) / 2048
    result = (1 - case.q[drafts] @ accepted) * residual
    result[drafts] += case.q[drafts] * accepted
    assert np.abs(accepted - expected_accepted).max() <= 1 / 256
    assert np.abs(result - case.p).max() <= 2 / 256
    assert (case.p[np.unique(np.concatenate([out, redrawn]))] > 0).all(), "a token outside mask and filters came out"


def excess(counts: NDArray[np.int64], p: Floats) -> float:
    """The chi-square statistic of counts as a standard normal deviate (Wilson & Hilferty 1931); rare ones pooled."""
    expected = p * counts.sum()
    rare = expected < 8
    observed, expected = np.append(counts[~rare], counts[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    if expected[-1] < 8:
        observed, expected = observed[:-1], expected[:-1]
    if len(expected) < 2:
        return 0.0
    degrees = len(expected) - 1
    ratio = float(((observed - expected) ** 2 / expected).sum()) / degrees
    return float((math.cbrt(ratio) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees)))


PASSES, FAILS = 3.72, 4.75  # p = 1e-4, 1e-6
NUM_DRAWS = 20_000


@dataclass(frozen=True)
class Noise:
    drafts: NDArray[np.int64]
    accept_uniform: Floats
    uniform: Floats


@cache
def streams() -> tuple[Floats, Floats, Floats]:
    """Of many seeds and places: what a proposer may draw with, and the two numbers that the engine uses."""
    pairs = [(seed, place) for seed in range(NUM_DRAWS // 10) for place in range(10)]
    proposers = np.array([uniform_at(seed ^ 0x5EED, place) for seed, place in pairs])
    uniform, accepts = (np.array([of(seed, place) for seed, place in pairs]) for of in (uniform_at, accept_uniform_at))
    return proposers, accepts, uniform


def noise(case: Case) -> Noise:
    """Drafts drawn from q, with their numbers."""
    proposers, accepts, uniform = streams()
    drafts = np.minimum(np.searchsorted(np.cumsum(case.q), proposers, side="right"), np.flatnonzero(case.q)[-1])
    return Noise(drafts, accepts, uniform)


@pytest.mark.parametrize(
    ("setting", "masked"), [*((name, False) for name in SETTINGS if name != "greedy"), ("plain", True), ("all", True)]
)
@pytest.mark.parametrize("q", QS)
def test_the_marginal_is_the_target(sampler: Sampler, rng: torch.Generator, setting: str, q: str, masked: bool) -> None:
    case = make_case(setting, q, masked, rng)
    given = noise(case)
    out = judged(sampler, case, given.drafts, given.accept_uniform, given.uniform)
    assert excess(np.bincount(out, minlength=VOCAB), case.p) < PASSES
    common = np.minimum(case.p, case.q)
    taken = (out == given.drafts).mean()  # a draft that is refused does not come out: where p < q, the residual is 0
    assert abs(taken - common.sum()) <= 4 * math.sqrt(common.sum() * abs(1 - common.sum()) / NUM_DRAWS) + 1e-9


def at_uniform(p: Floats, uniform: float) -> int:
    return int(rank_at(torch.from_numpy(p / p.sum())[None], torch.tensor([uniform], dtype=torch.float64)))


def scalar_residual(case: Case, draft: int, accept: float, uniform: float) -> int:
    """Knows q of the draft only."""
    if accept * case.q[draft] < case.p[draft]:
        return draft
    left = case.p.copy()
    left[draft] = max(left[draft] - case.q[draft], 0)
    return at_uniform(left, uniform)


def full_rule(case: Case, draft: int, accept: float, uniform: float, p: Floats | None = None) -> int:
    p = case.p if p is None else p
    if accept * case.q[draft] < p[draft]:
        return draft
    return at_uniform(np.maximum(p - case.q, 0), uniform)


def untempered(case: Case, draft: int, accept: float, uniform: float) -> int:
    return full_rule(case, draft, accept, uniform, case.logits.double().softmax(-1).numpy())


def one_number_for_both(case: Case, draft: int, accept: float, uniform: float) -> int:
    return full_rule(case, draft, uniform, uniform)


def unlikely_ones_dropped(case: Case, draft: int, accept: float, uniform: float) -> int:
    """Drafts of low q are not judged: the row draws from p."""
    return at_uniform(case.p, uniform) if case.q[draft] < 0.1 else full_rule(case, draft, accept, uniform)


def impossible_ones_dropped(case: Case, draft: int, accept: float, uniform: float) -> int:
    """Drafts that the filters or the mask forbid are not judged."""
    return at_uniform(case.p, uniform) if case.p[draft] == 0 else full_rule(case, draft, accept, uniform)


@pytest.mark.parametrize(
    ("wrong", "setting", "q", "masked"),
    [
        (scalar_residual, "hot", "far", False),
        (untempered, "hot", "close", False),
        (one_number_for_both, "hot", "far", False),
        (unlikely_ones_dropped, "cold", "close", False),
        (impossible_ones_dropped, "hot", "close", True),
    ],
)
def test_a_wrong_rule_is_found_out(
    rng: torch.Generator, wrong: Callable[[Case, int, float, float], int], setting: str, q: str, masked: bool
) -> None:
    """The same test, on the same draws, tells it from the target; and lets the right rule pass."""
    case = make_case(setting, q, masked, rng)
    given = noise(case)
    for rule, fails in ((wrong, True), (full_rule, False)):
        rows = zip(given.drafts.tolist(), given.accept_uniform.tolist(), given.uniform.tolist(), strict=True)
        counts = np.bincount([partial(rule, case)(*row) for row in rows], minlength=VOCAB)
        assert (excess(counts, case.p) > FAILS) is fails
        assert fails or excess(counts, case.p) < PASSES


def mixed_rows(rng: torch.Generator, num: int, vocab: int, spread: float) -> tuple[Tensor, SamplingBatch, DrawnRows]:
    params = [list(SETTINGS.values())[i % len(SETTINGS)] for i in range(num)]
    params = [replace(p, seed=i) for i, p in enumerate(params)]
    logits = torch.randn((num, vocab), generator=rng) * spread
    qs = [proposal(QS[i % 3], logits[i], params[i], rng) for i in range(num)]
    ids = [np.flatnonzero(q) for q in qs]
    froms = [DrawnFrom(tuple(i.tolist()), tuple(q[i].tolist())) for i, q in zip(ids, qs, strict=True)]
    tokens = [int(i[int(torch.randint(len(i), (1,), generator=rng))]) for i in ids]
    drawn = drawn_rows(range(num), tokens, froms, [accept_uniform_at(i, 3) for i in range(num)])
    return logits, sampling_batch(params, [3] * num), drawn


@pytest.mark.parametrize(("vocab", "spread"), [(16, 1.0), (1024, 2.0), (4112, 0.5), (4112, 4.0)])
def test_kernel_and_twin_draw_what_the_words_say(
    kernels: NativeKernels, rng: torch.Generator, vocab: int, spread: float
) -> None:
    """Against the rule in numpy, but for numbers within 2e-5 of a border; and one against the other."""
    logits, batch, drawn = mixed_rows(rng, 240, vocab, spread)
    native, twin = (sample(logits, batch, which, drawn=drawn) for which in (kernels, None))
    assert (native.token != twin.token).sum() <= 1
    num_refused = 0
    for row in range(240):
        params = list(SETTINGS.values())[row % len(SETTINGS)]
        kept = keep(logits[row].double().numpy(), params)
        q = np.zeros(vocab)
        valid = drawn.ids[row] >= 0
        np.add.at(q, drawn.ids[row][valid].numpy(), drawn.probs[row][valid].double().numpy())
        q /= q.sum()
        draft = int(drawn.token[row])
        margin = by_id(kept, vocab)[draft] - float(drawn.accept_uniform[row]) * q[draft]
        left = np.maximum(kept.probabilities - q[kept.ids], 0)
        residual = Kept(kept.ids[left > 0], left[left > 0] / left.sum())
        num_refused += margin < 0
        for result in (native, twin):
            token = int(result.token[row])
            uniform = 0.0 if params.temperature == 0 else float(batch.uniform[row])
            taken, redrawn = token == draft, residual.fits(token, uniform, slack=5e-5)
            assert taken if margin > 2e-5 else redrawn if margin < -2e-5 else taken or redrawn, row
    assert 60 < num_refused < 230
    own = sample_torch(logits, batch)
    torch.testing.assert_close(native.entropy, own.entropy, rtol=1e-4, atol=1e-4)
    chosen = logits.log_softmax(-1).gather(1, native.token.long()[:, None]).squeeze(1)
    torch.testing.assert_close(native.logprob, chosen, rtol=1e-5, atol=1e-5)
    assert torch.equal(native.top_ids, own.top_ids)


def test_rows_do_not_meet(sampler: Sampler, rng: torch.Generator) -> None:
    """Alone or together, drafts on some rows only and in any order: a row's result is the same, bit for bit."""
    logits, batch, drawn = mixed_rows(rng, 24, 64, 1.5)
    picked = torch.tensor([17, 2, 9, 3, 22])
    together = sampler(logits, batch, None, drawn.at(picked))
    without = sampler(logits, batch, None, None)
    for row in range(24):
        one = torch.tensor([row])
        guess = drawn.at(one)._replace(rows=torch.zeros(1, dtype=torch.int64)) if row in picked.tolist() else None
        alone = sampler(logits[one], batch.rows(one), None, guess)
        assert all(torch.equal(part[0], whole[row]) for part, whole in zip(alone, together, strict=True))
        assert guess is not None or together.token[row] == without.token[row]


def test_a_forced_row_takes_its_token_and_a_broken_one_none(sampler: Sampler, rng: torch.Generator) -> None:
    logits, batch, drawn = mixed_rows(rng, 6, 64, 1.5)
    batch.forced[:] = torch.tensor([5, -1, -2, -1, -1, -1])
    logits[1, 3] = torch.nan
    logits[3] = -torch.inf
    logits[4, 9] = torch.inf
    out = sampler(logits, batch, None, drawn)
    assert out.token[:5].tolist() == [5, -1, -2, -1, -1] and out.token[5] >= 0
    assert out.logprob.isnan().tolist() == [False, True, True, True, True, False]


def test_masked_drafts_are_refused_and_rows_without_a_token_say_so(sampler: Sampler, rng: torch.Generator) -> None:
    logits, batch, drawn = mixed_rows(rng, 8, 64, 1.5)
    masks = torch.full((3, 2), -1, dtype=torch.int32)
    rows = torch.tensor([6, 1, 4])
    for i, row in enumerate(rows.tolist()):
        token = int(drawn.token[row])
        masks[i, token // 32] ^= torch.tensor(1 << token % 32, dtype=torch.int64).to(torch.int32)
    masks[2] = 0
    out = sampler(logits, batch, ConstrainedRows(rows, masks), drawn._replace(accept_uniform=drawn.accept_uniform * 0))
    assert out.token[6] != drawn.token[6] and out.token[1] != drawn.token[1] and out.token[4] == NOTHING_ALLOWED
    assert min(out.token[[6, 1]].tolist()) >= 0


def test_an_empty_residual_draws_from_the_target(sampler: Sampler) -> None:
    """Where p = q nothing is refused, except by a number that rounding has made 1."""
    case = Case(SETTINGS["plain"], torch.full((VOCAB,), -torch.inf), None, np.zeros(VOCAB), np.zeros(VOCAB))
    case.logits[[3, 40]], case.q[[3, 40]] = 1.25, 0.5
    out = judged(sampler, case, np.array([3, 3, 40]), np.array([1.0, 1.0, 1.0]), np.array([0.2, 0.7, 0.2]))
    assert out.tolist() == [3, 40, 3]
    out = judged(sampler, case, np.array([3, 40, 40]), np.array([BELOW_ONE, 0.9, 0.0]), np.array([0.7, 0.2, 0.2]))
    assert out.tolist() == [3, 40, 40]


def test_q_counts_by_its_shares(sampler: Sampler, rng: torch.Generator) -> None:
    """A distribution that rounding left beside 1 is one of its shares."""
    logits, batch, drawn = mixed_rows(rng, 40, 64, 1.0)
    doubled = drawn._replace(probs=drawn.probs * 2)
    assert torch.equal(sampler(logits, batch, None, doubled).token, sampler(logits, batch, None, drawn).token)


def test_no_drafts_change_nothing(sampler: Sampler, rng: torch.Generator) -> None:
    logits, batch, _ = mixed_rows(rng, 5, 64, 1.0)
    with_none = sampler(logits, batch, None, drawn_rows([], [], [], []))
    assert all(torch.equal(a, b) for a, b in zip(with_none, sampler(logits, batch, None, None), strict=True))


def test_a_kernel_without_the_rule_leaves_it_to_the_twin(rng: torch.Generator) -> None:
    class PlainKernel:
        def sample(self, logits: Tensor, *parts: Tensor) -> Drawn:
            return sample_torch(logits, SamplingBatch(*parts))

    logits, batch, drawn = mixed_rows(rng, 40, 64, 1.0)
    assert torch.equal(
        sample(logits, batch, PlainKernel(), drawn=drawn).token, sample(logits, batch, None, drawn=drawn).token
    )


def test_a_draft_that_its_distribution_does_not_have_is_refused() -> None:
    for q in (DrawnFrom((1, 2), (0.5, 0.5)), DrawnFrom((1, 3), (1.0, 0.0))):
        with pytest.raises(ValueError, match="token 3 is said to be drawn"):
            drawn_rows([0], [3], [q], [0.5])


def test_the_rule_itself() -> None:
    """p = (0.6, 0.3, 0.1), q = (0.2, 0.8, 0): token 1 is taken at 3/8, and the residual is (0.8, 0, 0.2)."""
    order = torch.tensor([[4, 0, 2]]).repeat(5, 1)
    target = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).repeat(5, 1)
    q = [DrawnFrom((0, 4), (0.8, 0.2))] * 5
    drawn = drawn_rows(range(5), [0, 0, 0, 0, 4], q, [0.374, 0.376, 0.376, 0.376, 0.999])
    uniform = torch.tensor([0.9, 0.0, 0.79, 0.81, 0.5], dtype=torch.float64)
    order = torch.cat([order, torch.tensor([[1, 3]]).repeat(5, 1)], 1)
    target = torch.cat([target, torch.zeros((5, 2), dtype=torch.float64)], 1)
    assert accept_or_redraw(target, order, uniform, drawn).tolist() == [0, 4, 4, 2, 4]


def test_the_two_streams_of_noise_are_strangers() -> None:
    pairs = [(seed, place) for seed in range(200) for place in range(200)]
    draws, accepts = (np.array([of(seed, place) for seed, place in pairs]) for of in (uniform_at, accept_uniform_at))
    assert not set(draws) & set(accepts) and 0 <= accepts.min() and accepts.max() < 1
    cells = np.bincount((draws * 8).astype(int) * 8 + (accepts * 8).astype(int), minlength=64)
    assert excess(cells, np.full(64, 1 / 64)) < PASSES
    for shift in (1, 200):
        assert abs(np.corrcoef(draws[shift:], accepts[:-shift])[0, 1]) < 0.025
