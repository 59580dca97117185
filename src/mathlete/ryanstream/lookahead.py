"""Is a sequence about to end? From what its tokens say, without knowing what they mean.

The engine knows no mathematics: whoever does hands in *signals*, token sequences that come shortly before an end
(the ids that spell the start of a boxed answer). The prediction is SPEC A3's: the chance of ending within ten tokens
and the expected number still to come.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from mathlete.ryanstream.lengths import LengthPosterior
from mathlete.ryanstream.request import EngineRequest

HORIZON = 10

_TREND_TOKENS = 20
_EOS_FLOOR = -10.0  # an end of text less likely than e^-10 says nothing: over 99 % of tokens lie below
_LENGTH_PERIOD = 4  # tokens between two looks at the length distribution, which moves slowly
_FEWEST_FOR_SLOPE = 3


class Outlook(NamedTuple):
    """What is expected of a running request.

    Attributes:
        ends_soon: probability that it ends within the next `HORIZON` tokens.
        remaining: expected number of tokens still to come.
    """

    ends_soon: float
    remaining: float


class Lookahead(Protocol):
    """Tells a scheduler which requests are about to end."""

    def note_token(
        self, request: EngineRequest, token_id: int, eos_logprob: float, entropy: float, num_left: int
    ) -> Outlook:
        """A token was drawn and the request goes on, for `num_left` tokens at most."""
        ...

    def note_finished(self, request: EngineRequest) -> None:
        """The request came to its own end."""
        ...

    def forget(self, request: EngineRequest) -> None:
        """The request is gone, however it ended."""
        ...

    def expected_remaining(self, request: EngineRequest) -> float:
        """Tokens still to come from any request, waiting or running."""
        ...


class Features(NamedTuple):
    """What the prediction is made of, each after the newest token.

    Attributes:
        hazard: log-odds of ending within the horizon by length alone, the highest so far: a sequence that has
            outgrown what is usual is overdue and does not become less likely to end.
        eos_level: the largest log-probability of the end of text in the last 20 tokens, 0 at e^-10, 1 at certainty.
        eos_slope: least-squares slope of that over the last 20 tokens, per token.
        entropy: mean over the last 20 tokens, nats.
        signal: 1 while the newest signal is less than `HORIZON` tokens back.
        recency: exp(-tokens since the newest signal / HORIZON).
    """

    hazard: float
    eos_level: float
    eos_slope: float
    entropy: float
    signal: float
    recency: float


@dataclass(frozen=True, slots=True)
class LookaheadWeights:
    """A logistic model over `Features`."""

    bias: float
    hazard: float
    eos_level: float
    eos_slope: float
    entropy: float
    signal: float
    recency: float

    def probability(self, features: Features) -> float:
        """The chance of ending within the horizon."""
        score = (
            self.bias
            + self.hazard * features.hazard
            + self.eos_level * features.eos_level
            + self.eos_slope * features.eos_slope
            + self.entropy * features.entropy
            + self.signal * features.signal
            + self.recency * features.recency
        )
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


# Fitted by benchmarks/fit_lookahead.py on 32 MATH problems x 4 attempts of Qwen2.5-Coder-0.5B-Instruct at temperature
# 0.8 (72,786 positions), signal "boxed{"; held out were 16 problems: log loss 0.059 (base rate 0.097, position alone
# 0.094), precision 0.995 above 0.7 and 41 of 57 ends foreseen. What the end-of-text probability tells there is little:
# up to the last token but one it lies near e^-20, so its weights, held to be no less than 0, are small.
WEIGHTS = LookaheadWeights(
    bias=0.011, hazard=1.055, eos_level=0.207, eos_slope=0.001, entropy=-2.777, signal=2.660, recency=5.274
)


@dataclass(slots=True)
class _Track:
    """What is remembered of one running request."""

    eos: deque[float] = field(default_factory=lambda: deque(maxlen=_TREND_TOKENS))
    entropies: deque[float] = field(default_factory=lambda: deque(maxlen=_TREND_TOKENS))
    hazard: float = 0.0
    remaining: float = 0.0  # if it does not end within the horizon
    signal_age: float = math.inf


class LookaheadPredictor:
    """Watches running requests token by token and finished ones for their length."""

    def __init__(self, signals: Sequence[Sequence[int]] = (), weights: LookaheadWeights = WEIGHTS) -> None:
        """Start knowing nothing of lengths but a prior.

        Args:
            signals: token sequences that come shortly before an end.
            weights: of the logistic model.
        """
        self.signals = tuple(tuple(signal) for signal in signals if signal)
        self._weights = weights
        self._lengths = LengthPosterior()
        self._tracks: dict[EngineRequest, _Track] = {}

    def note_token(
        self, request: EngineRequest, token_id: int, eos_logprob: float, entropy: float, num_left: int
    ) -> Outlook:
        """See `Lookahead`. `request.output_ids` ends with `token_id`; the end-of-text log-probability is natural."""
        features = self.features(request, token_id, eos_logprob, entropy)
        if num_left <= HORIZON:
            return Outlook(1.0, num_left / 2)
        ends_soon = self._weights.probability(features)
        remaining = ends_soon * HORIZON / 2 + (1 - ends_soon) * self._tracks[request].remaining
        return Outlook(ends_soon, min(remaining, num_left))

    def features(self, request: EngineRequest, token_id: int, eos_logprob: float, entropy: float) -> Features:
        """Take in a token; what the prediction is to be made from."""
        track = self._tracks.setdefault(request, _Track())
        track.eos.append(eos_logprob if eos_logprob > _EOS_FLOOR else _EOS_FLOOR)
        track.entropies.append(entropy)
        ended = any(
            token_id == signal[-1] and tuple(request.output_ids[-len(signal) :]) == signal for signal in self.signals
        )
        track.signal_age = 0 if ended else track.signal_age + 1
        length = len(request.output_ids)
        track.remaining = max(track.remaining - 1, HORIZON)
        if length % _LENGTH_PERIOD == 1:
            track.hazard = max(track.hazard, self._lengths.ends_within(length, HORIZON, request.group))
            track.remaining = HORIZON + self._lengths.remaining(length + HORIZON, request.group)
        return Features(
            hazard=_log_odds(track.hazard),
            eos_level=1 - max(track.eos) / _EOS_FLOOR,
            eos_slope=_slope(track.eos) / -_EOS_FLOOR,
            entropy=sum(track.entropies) / len(track.entropies),
            signal=1.0 if track.signal_age < HORIZON else 0.0,
            recency=math.exp(-track.signal_age / HORIZON),
        )

    def note_finished(self, request: EngineRequest) -> None:
        """Learn from the request's output length."""
        self._lengths.add(len(request.output_ids), request.group)

    def forget(self, request: EngineRequest) -> None:
        """Drop what was remembered of the request."""
        self._tracks.pop(request, None)

    def expected_remaining(self, request: EngineRequest) -> float:
        """By length alone."""
        left = request.sampling.max_tokens - len(request.output_ids)
        return min(self._lengths.remaining(len(request.output_ids), request.group), left)


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(bounded / (1 - bounded))


def _slope(values: deque[float]) -> float:
    """Least-squares slope over the places 0, 1, ..."""
    num = len(values)
    if num < _FEWEST_FOR_SLOPE or max(values) == min(values):
        return 0.0
    middle = (num - 1) / 2
    return sum((place - middle) * value for place, value in enumerate(values)) * 12 / (num * (num * num - 1))
