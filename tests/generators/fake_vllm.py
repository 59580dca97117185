"""A stand-in for vLLM's engine: a model that says something different behind every text, one token a step or several.

Keeps what `SegmentEngine` asks for, priorities and constraints included, and notes what it was asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mathlete.core.generation import TokenLogprob
from mathlete.generators.vllm_requests import DrawnToken, Segment, SegmentOutput

NUM_TOP = 20
Likely = Callable[[Sequence[int]], list[int]]


def printable(ids: Sequence[int]) -> list[int]:
    """The likeliest tokens behind a text, likeliest first: ids of printable characters, in an order of its own."""
    chosen = random.Random(str(tuple(ids[-4:])))
    return chosen.sample(range(33, 97), NUM_TOP)


@dataclass
class _Row:
    segment: Segment
    seed: int | None
    wants_logprobs: bool
    ids: list[int]
    num_drawn: int = 0


@dataclass
class FakeEngine:
    """See the module.

    Attributes:
        likely: what may come behind ids.
        per_step: tokens that a segment gets in a step, as with speculation.
        max_model_len: as vLLM's.
        refuses: raised by `add`, as vLLM raises for arguments that it does not take.
        dies: raised by `step` once, after so many steps.
        error_of_logprobs: added to what a reading of a text tells.
    """

    likely: Likely = printable
    per_step: int = 1
    max_model_len: int = 512
    refuses: ValueError | None = None
    dies: tuple[int, Exception] | None = None
    error_of_logprobs: float = 0.0
    asked: list[tuple[Segment, int | None]] = field(default_factory=list)
    aborted: list[tuple[str, ...]] = field(default_factory=list)
    rows: dict[str, _Row] = field(default_factory=dict)
    num_steps: int = 0
    num_closed: int = 0

    def add(self, segment: Segment, seed: int | None, wants_logprobs: bool) -> None:
        if self.refuses is not None:
            raise self.refuses
        assert segment.segment_id not in {asked.segment_id for asked, _ in self.asked}
        self.asked.append((segment, seed))
        self.rows[segment.segment_id] = _Row(segment, seed, wants_logprobs, list(segment.prompt_ids))

    def abort(self, segment_ids: Sequence[str]) -> None:
        self.aborted.append(tuple(segment_ids))
        for name in segment_ids:
            del self.rows[name]

    def step(self) -> list[SegmentOutput]:
        self.num_steps += 1
        if self.dies is not None and self.num_steps > self.dies[0]:
            raise self.dies[1]
        order = sorted(self.rows.values(), key=lambda row: row.segment.priority)
        return [self._advance(row) for row in order]

    def logprobs_of(self, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> list[float]:
        ids, found = list(prompt_ids), []
        for token_id in output_ids:
            top = {one.token_id: one.logprob for one in self._top(ids)}
            found.append(top.get(token_id, -9.0) + self.error_of_logprobs)
            ids.append(token_id)
        return found

    def close(self) -> None:
        self.num_closed += 1
        self.rows.clear()

    def _top(self, ids: Sequence[int]) -> tuple[TokenLogprob, ...]:
        return tuple(TokenLogprob(token_id, -1.0 - place / 4) for place, token_id in enumerate(self.likely(ids)))

    def _advance(self, row: _Row) -> SegmentOutput:
        tokens, reason = [], None
        while len(tokens) < self.per_step and reason is None:
            token = self._draw(row)
            row.ids.append(token.token_id)
            row.num_drawn += 1
            tokens.append(token)
            if token.token_id in row.segment.stop_token_ids:
                reason = "stop"
            elif row.num_drawn >= row.segment.max_tokens or len(row.ids) >= self.max_model_len:
                reason = "length"
        if reason is not None:
            del self.rows[row.segment.segment_id]
        cached = len(row.segment.prompt_ids) // 16 * 16
        return SegmentOutput(row.segment.segment_id, tuple(tokens), reason, cached, 2 * bool(reason), bool(reason))

    def _draw(self, row: _Row) -> DrawnToken:
        segment, top = row.segment, self._top(row.ids)
        ids = [one.token_id for one in top]
        if segment.constraint is not None:
            words = memoryview(bytearray(4 * 16)).cast("I")
            segment.constraint.fill_mask(words)
            allowed = [i for i in range(288) if words[i // 32] >> i % 32 & 1]
            ids = [i for i in ids if i in allowed] or allowed
        if segment.forced_id is not None:
            token_id = segment.forced_id
        elif segment.sampling.temperature == 0 or segment.sampling.top_k == 1 or segment.sampling.min_p == 1:
            token_id = ids[0]
        else:
            token_id = random.Random(f"{row.seed} {row.ids}").choice(ids)
        logprob = next((one.logprob for one in top if one.token_id == token_id), -9.0)
        return DrawnToken(token_id, logprob, top) if row.wants_logprobs else DrawnToken(token_id)
