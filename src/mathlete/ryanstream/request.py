"""What the engine is asked, what it answers, and its own record of a request in between.

Token ids in, token ids out: the engine knows nothing of chat templates, problems or answers.
"""

from __future__ import annotations

import copy
import enum
from dataclasses import dataclass, field, fields
from typing import Literal

from torch import Tensor

from mathlete.core.generation import SamplingParams, TokenConstraint, TokenLogprob
from mathlete.ryanstream.hidden_states import HiddenPositions
from mathlete.ryanstream.stopping import StopMatcher
from mathlete.ryanstream.thinking import ThinkingBudget

EndReason = Literal["stop", "length", "abort", "error"]


class Status(enum.Enum):
    """Where a request is.

    FINISHING runs and is expected to end within a few tokens. PREEMPTED has lost its blocks and will catch up
    from its tokens.
    """

    WAITING = "waiting"
    RUNNING = "running"
    FINISHING = "finishing"
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
        priority: lower goes first.
        output_ids: tokens so far, drawn or forced.
        logprobs: of each under the model's own distribution.
        entropies: of that distribution at each.
        top_means: mean logprob of its 20 likeliest tokens at each.
        top_logprobs: its likeliest tokens at each, as many as were asked for.
        num_forced: how many of the output tokens were forced.
        matcher: looks for its stop strings.
        constraint: which tokens may be drawn, or None; has accepted all of `output_ids`.
        constraint_failure: what went wrong in it, or None.
        thinking: its budget of thinking, or None.
        num_computed: tokens (prompt and output) whose keys and values are in the cache.
        num_cached: prompt tokens that were found in the cache at first admission.
        block_ids: its KV blocks, in order.
        num_charged: tokens that its group was charged for; recomputed ones are not charged again.
        hidden_wanted: which hidden states to keep, or None.
        hidden: those kept so far, float32 [hidden] by position.
        expected_remaining: output tokens still to come, as the lookahead last said.
        num_paused: steps in a row in which it kept its blocks and waited for a finishing request's.
        num_rewinds: how often output tokens were taken back.
        num_discarded: how many of them.
        num_drafted: tokens guessed for it that were computed.
        num_accepted: of these, how many became output.
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
    top_means: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[TokenLogprob, ...]] = field(default_factory=list)
    num_forced: int = 0
    matcher: StopMatcher = field(default_factory=lambda: StopMatcher(()))
    constraint: TokenConstraint | None = None
    constraint_failure: str | None = None
    thinking: ThinkingBudget | None = None
    num_computed: int = 0
    num_cached: int | None = None
    block_ids: list[int] = field(default_factory=list)
    num_registered: int = 0
    priority: int = 0
    num_charged: int = 0
    expected_remaining: float = 0.0
    num_paused: int = 0
    hidden_wanted: HiddenPositions | None = None
    hidden: dict[int, Tensor] = field(default_factory=dict)
    num_rewinds: int = 0
    num_discarded: int = 0
    num_drafted: int = 0
    num_accepted: int = 0

    @property
    def is_running(self) -> bool:
        """Whether it holds blocks and takes part in steps."""
        return self.status is Status.RUNNING or self.status is Status.FINISHING

    @property
    def num_tokens(self) -> int:
        """Tokens known so far, prompt and output."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def num_reusable(self) -> int:
        """Tokens that may be taken from the cache as they are.

        All but the last, which is computed to get its logits, and none from the first position on whose hidden
        state is still wanted: the cache holds keys and values only.
        """
        if self.hidden_wanted is None:
            return self.num_tokens - 1
        missing = self.hidden_wanted.first_missing(len(self.prompt_ids), self.num_tokens, self.hidden)
        return min(self.num_tokens - 1, missing)

    @property
    def forced_id(self) -> int | None:
        """The token that must come next, or None when one may be drawn."""
        return None if self.thinking is None else self.thinking.forced_id

    def forked(self, request_id: str, sampling: SamplingParams, arrival: int) -> EngineRequest:
        """A second request with the same tokens so far. It holds no blocks and has computed nothing yet.

        Its constraint is left to the caller: not every one can be copied.
        """
        names = {field.name for field in fields(self)} - {"constraint"}
        own = {name: copy.copy(getattr(self, name)) for name in names}
        own |= {"request_id": request_id, "sampling": sampling, "arrival": arrival, "status": Status.WAITING}
        return EngineRequest(**own | {"num_computed": 0, "num_registered": 0, "block_ids": []})

    @property
    def num_left(self) -> int:
        """Known tokens that are not computed yet; 1 for a request that only needs its newest token computed."""
        return self.num_tokens - self.num_computed

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


def what_went_wrong(error: Exception) -> str:
    """An exception that a request's constraint raised, for a person."""
    return f"it raised {type(error).__name__}: {error}"
