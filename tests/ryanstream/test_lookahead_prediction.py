"""What is expected of a running request: lengths, the chance of a near end, and that it is worth something."""

from __future__ import annotations

import math
import random
import statistics
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.lengths import PRIOR, LengthPosterior, LogNormal
from mathlete.ryanstream.lookahead import HORIZON, WEIGHTS, LookaheadPredictor, Outlook, _slope
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.scheduler import FINISHING_ABOVE

SIGNAL = (7, 8)
QUIET = 1
FAR = 1 << 20


def new_request(name: str = "r", group: str | None = "g", max_tokens: int = FAR) -> EngineRequest:
    return EngineRequest(name, (0,), SamplingParams(max_tokens=max_tokens), group, arrival=0)


def feed(
    predictor: LookaheadPredictor, request: EngineRequest, tokens: list[int], entropy: float = 0.4, eos: float = -20.0
) -> list[Outlook]:
    outlooks = []
    for token in tokens:
        request.output_ids.append(token)
        num_left = request.sampling.max_tokens - len(request.output_ids)
        outlooks.append(predictor.note_token(request, token, eos, entropy, num_left))
    return outlooks


def predictor_with_siblings(*lengths: int) -> LookaheadPredictor:
    predictor = LookaheadPredictor([SIGNAL])
    for i, length in enumerate(lengths):
        sibling = new_request(f"s{i}")
        sibling.output_ids = [QUIET] * length
        predictor.note_finished(sibling)
    return predictor


@pytest.mark.parametrize("siblings", [(), (100,), (90, 100, 120, 800), (400, 420, 380, 410)])
def test_the_probability_never_falls_with_length_alone(siblings: tuple[int, ...]) -> None:
    """A sequence that has outgrown its siblings is overdue."""
    outlooks = feed(predictor_with_siblings(*siblings), new_request(), [QUIET] * 1500)
    chances = [outlook.ends_soon for outlook in outlooks]
    assert all(later >= earlier - 1e-12 for earlier, later in zip(chances, chances[1:], strict=False))
    assert chances[-1] > 2 * chances[20]


def test_siblings_tell_when_an_end_is_due() -> None:
    """At 200 tokens, siblings of about 200 make an end likelier than siblings of 1,000, and less is to come."""
    short = feed(predictor_with_siblings(190, 200, 210, 205), new_request(), [QUIET] * 200)[-1]
    long = feed(predictor_with_siblings(990, 1000, 1010, 1005), new_request(), [QUIET] * 200)[-1]
    assert short.ends_soon > 3 * long.ends_soon
    assert short.remaining < 0.5 * long.remaining
    assert 600 < long.remaining < 1200


def test_a_signal_raises_to_finishing_and_fades() -> None:
    predictor = predictor_with_siblings(100, 110, 95)
    quiet = feed(predictor, new_request(), [QUIET] * 100)
    assert max(outlook.ends_soon for outlook in quiet) < FINISHING_ABOVE
    signalled = feed(predictor, new_request("s"), [QUIET] * 98 + [*SIGNAL] + [QUIET] * 60, entropy=0.05)
    assert signalled[99].ends_soon > FINISHING_ABOVE
    assert signalled[99].remaining < quiet[99].remaining
    assert signalled[-1].ends_soon < 0.5
    half = feed(predictor, new_request("h"), [QUIET] * 99 + [SIGNAL[0]], entropy=0.05)
    assert half[-1].ends_soon < FINISHING_ABOVE, "half a signal is none"


def test_a_likelier_end_of_text_never_lowers_the_probability() -> None:
    predictor = predictor_with_siblings(100)
    far = feed(predictor, new_request("a"), [QUIET] * 50, eos=-20.0)[-1]
    near = feed(predictor, new_request("b"), [QUIET] * 50, eos=-0.5)[-1]
    assert near.ends_soon > far.ends_soon
    unknown = feed(predictor, new_request("c"), [QUIET] * 50, eos=-math.inf)[-1]
    assert unknown == far
    assert min(WEIGHTS.hazard, WEIGHTS.eos_level, WEIGHTS.eos_slope, WEIGHTS.signal, WEIGHTS.recency) >= 0


def test_the_token_limit_is_a_certain_end() -> None:
    outlooks = feed(LookaheadPredictor(), new_request(max_tokens=40), [QUIET] * 39)
    assert [outlook.ends_soon for outlook in outlooks[29:]] == [1.0] * 10
    assert all(outlook.ends_soon < FINISHING_ABOVE for outlook in outlooks[:29])
    assert all(outlook.remaining <= 39 - i for i, outlook in enumerate(outlooks))


def test_what_is_gone_is_forgotten() -> None:
    predictor = predictor_with_siblings(100)
    request = new_request()
    feed(predictor, request, [QUIET] * 5)
    predictor.note_finished(request)
    predictor.forget(request)
    predictor.forget(request)
    assert not predictor._tracks


def test_the_slope_is_that_of_least_squares() -> None:
    assert _slope(deque([1.0, 3.0, 5.0, 7.0])) == pytest.approx(2.0)
    values = [0.3, -1.0, 2.5, 0.0, 4.0]
    expected = statistics.linear_regression(range(5), values).slope
    assert _slope(deque(values)) == pytest.approx(expected)
    assert _slope(deque([1.0, 2.0])) == 0.0


@given(st.floats(0, 9), st.floats(0.2, 1.5), st.floats(0, 4000))
def test_the_log_normal_agrees_with_its_integral(mean: float, sd: float, length: float) -> None:
    """E[L; L > n] = n S(n) + the integral of S beyond n, here by quadrature over the logarithm."""
    part = LogNormal(mean, sd)
    low, high = math.log(max(length, 1e-6)), mean + 12 * sd
    total = max(length, 0) * part.survival(length)
    if high > low:
        steps = 1000
        width = (high - low) / steps
        at = [low + (i + 0.5) * width for i in range(steps)]
        total += sum(part.survival(math.exp(x)) * math.exp(x) for x in at) * width
    assert part.mean_beyond(length) == pytest.approx(total, rel=2e-3, abs=1e-3)


@given(st.lists(st.integers(1, 5000), max_size=40), st.integers(0, 100_000))
def test_the_posterior_is_a_distribution(lengths: list[int], length: int) -> None:
    posterior = LengthPosterior()
    for seen in lengths:
        posterior.add(seen, "g")
    for group in ("g", "other", None):
        chances = [posterior.ends_within(length, horizon, group) for horizon in (1, 10, 100, 10_000)]
        assert all(0 <= chance <= 1 for chance in chances) and chances == sorted(chances)
        assert posterior.remaining(length, group) >= 1


def test_the_prior_learns_from_all_groups() -> None:
    posterior = LengthPosterior()
    assert posterior.remaining(0, "new") == pytest.approx(math.exp(PRIOR.mean + PRIOR.sd**2 / 2), rel=1e-6)
    for i in range(200):
        posterior.add(20_000, f"g{i}")
    assert 15_000 < posterior.remaining(0, "new") < 30_000


def test_chances_by_length_are_calibrated_and_better_than_the_base_rate() -> None:
    """On lengths drawn from the kind of distribution that recorded ones have: what is said is what happens."""
    rng = random.Random(3)
    posterior = LengthPosterior()
    said: list[float] = []
    happened: list[bool] = []
    for number in range(120):
        centre = rng.gauss(5.6, 0.5)
        for _ in range(8):
            length = round(math.exp(rng.gauss(centre, 0.35)))
            for position in range(5, length, 7):
                said.append(posterior.ends_within(position, HORIZON, str(number)))
                happened.append(length - position <= HORIZON)
            posterior.add(length, str(number))
    base = statistics.fmean(happened)
    assert statistics.fmean(said) == pytest.approx(base, rel=0.15)

    def log_loss(chances: list[float]) -> float:
        return -statistics.fmean(
            math.log(max(p if end else 1 - p, 1e-9)) for p, end in zip(chances, happened, strict=True)
        )

    assert log_loss(said) < 0.97 * log_loss([base] * len(said))
    high = [end for p, end in zip(said, happened, strict=True) if p > 2 * base]
    low = [end for p, end in zip(said, happened, strict=True) if p < base / 2]
    assert statistics.fmean(high) > 1.5 * base and statistics.fmean(low) < 0.7 * base
