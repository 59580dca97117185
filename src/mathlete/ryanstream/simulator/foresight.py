"""A lookahead for the simulator: as good as the real predictor was measured to be, and no better.

There are no tokens to look at, so what the predictor would say is drawn at random, with its hit rate, lead and rate of
false alarms on recorded attempts. Expected lengths come from the real `LengthPosterior`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from mathlete.ryanstream.lengths import LengthPosterior
from mathlete.ryanstream.lookahead import HORIZON, Outlook
from mathlete.ryanstream.request import EngineRequest

_LENGTH_PERIOD = 4  # tokens between two looks at the length distribution, as in the predictor


@dataclass(frozen=True, slots=True)
class ForesightQuality:
    """How the predictor fares at the threshold for FINISHING; the defaults are its figures on held-out attempts.

    Attributes:
        hit_rate: part of the ends that it foresees within the horizon.
        longest_lead: tokens before the end at which it foresees one, at most; shorter leads are as frequent.
        false_alarms: alarms per token that goes on for longer than the horizon.
    """

    hit_rate: float = 0.72
    longest_lead: int = 9
    false_alarms: float = 3.5e-5


class SimulatedLookahead:
    """Knows the true output lengths and tells of them as much as the predictor would."""

    def __init__(self, num_output: Mapping[str, int], seed: int, quality: ForesightQuality | None = None) -> None:
        """Draw once, per request, whether and how early its end is foreseen; `num_output` is by request id."""
        self._quality = quality or ForesightQuality()
        self._rng = random.Random(seed)
        self._lengths = LengthPosterior()
        self._num_output = num_output
        self._lead = {
            name: self._rng.randint(1, self._quality.longest_lead) if self._rng.random() < self._quality.hit_rate else 0
            for name in num_output
        }
        self._alarm_until: dict[EngineRequest, int] = {}
        self._remaining: dict[EngineRequest, float] = {}  # the expected length, as of the last look

    def note_token(
        self, request: EngineRequest, token_id: int, eos_logprob: float, entropy: float, num_left: int
    ) -> Outlook:
        """Foreseen, or by mistake taken for foreseen, or not."""
        length = len(request.output_ids)
        remaining = self._num_output[request.request_id] - length
        if self._rng.random() < self._quality.false_alarms:
            self._alarm_until[request] = length + HORIZON
        raised = remaining <= self._lead[request.request_id] or length < self._alarm_until.get(request, 0)
        if length % _LENGTH_PERIOD == 1:
            self._remaining[request] = length + self.expected_remaining(request)
        return Outlook(1.0 if raised else 0.0, HORIZON / 2 if raised else self._remaining[request] - length)

    def note_finished(self, request: EngineRequest) -> None:
        """Learn its length."""
        self._lengths.add(len(request.output_ids), request.group)

    def forget(self, request: EngineRequest) -> None:
        """Drop what was noted of it."""
        self._remaining.pop(request, None)
        self._alarm_until.pop(request, None)

    def expected_remaining(self, request: EngineRequest) -> float:
        """By length alone, as the predictor does."""
        return self._lengths.remaining(len(request.output_ids), request.group)
