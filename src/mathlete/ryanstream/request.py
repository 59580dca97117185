"""What the engine is asked, what it answers, and its own record of a request in between.

Token ids in, token ids out: the engine knows nothing of chat templates, problems or answers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal

from mathlete.core.generation import SamplingParams

EndReason = Literal["stop", "length", "abort", "error"]


class Status(enum.Enum):
    """Where a request is. PREEMPTED has lost its blocks and will catch up from its tokens."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class EngineRequest:
    """One request inside the engine.

    Attributes:
        request_id: unique among the unfinished.
        prompt_ids: tokens given.
        sampling: how to draw.
        group: siblings share it, or None.
        arrival: order of arrival, for fairness.
        output_ids: tokens drawn so far.
        num_computed: tokens (prompt and output) whose keys and values are in the cache.
        num_cached: prompt tokens that were found in the cache at first admission.
        block_ids: its KV blocks, in order.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    group: str | None
    arrival: int
    status: Status = Status.WAITING
    output_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    num_computed: int = 0
    num_cached: int | None = None
    block_ids: list[int] = field(default_factory=list)
    num_registered: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens known so far, prompt and output."""
        return len(self.prompt_ids) + len(self.output_ids)

    def token_slice(self, start: int, end: int) -> list[int]:
        """Tokens [start, end) of prompt followed by output."""
        split = len(self.prompt_ids)
        if end <= split:
            return list(self.prompt_ids[start:end])
        return [*self.prompt_ids[start:split], *self.output_ids[max(0, start - split) : end - split]]


@dataclass(frozen=True, slots=True)
class RequestEnd:
    """Why and how a request ended.

    Attributes:
        reason: see `EndReason`.
        stop: the stop string found, or None.
        num_output_bytes: bytes of output text to keep (the stop string may end inside a token);
            None keeps all.
        message: what went wrong when `reason` is "error".
    """

    reason: EndReason
    stop: str | None = None
    num_output_bytes: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """News of one request after a step: at most one new token, and its end if it has ended."""

    request: EngineRequest
    new_token_id: int | None
    end: RequestEnd | None
