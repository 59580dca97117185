"""Decides which tokens are computed in the next step. Returns plain data; never touches a tensor.

One progress counter instead of phases: a request catches up from `num_computed` to `num_tokens`.
Prefill, a found prefix, chunking and recomputation after preemption are all the same case; a request
that has caught up to its last token gets a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.ryanstream.kv_cache import BLOCK_SIZE, KVBlockPool
from mathlete.ryanstream.request import EngineRequest, Status


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Limits of a step.

    Attributes:
        max_running: requests that hold blocks at once.
        max_step_tokens: tokens computed in a step; long prompts are cut into chunks.
        max_model_len: tokens of a request, prompt and output, at most.
    """

    max_running: int = 32
    max_step_tokens: int = 256
    max_model_len: int = 4096

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("max_running", "max_step_tokens", "max_model_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"SchedulerConfig.{name} must be >= 1")


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """Compute tokens [start, end) of a request; draw a token when `end` is all there is."""

    request: EngineRequest
    start: int
    end: int
    samples: bool


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the next step computes, in order."""

    entries: tuple[PlannedRequest, ...]


class Scheduler:
    """First come, first served, with shared prefixes computed once."""

    def __init__(self, config: SchedulerConfig, pool: KVBlockPool) -> None:
        """Start with nothing queued."""
        self.config = config
        self._pool = pool
        self.waiting: list[EngineRequest] = []
        self.running: list[EngineRequest] = []

    def add(self, request: EngineRequest) -> None:
        """Queue a request by its order of arrival."""
        self.waiting.append(request)
        self.waiting.sort(key=lambda r: r.arrival)

    def schedule(self) -> StepPlan:
        """Plan a step: first those that run, oldest first, then as many of the waiting as fit."""
        budget = self.config.max_step_tokens
        entries: list[PlannedRequest] = []
        preempted = False
        for request in list(self.running):
            if budget <= 0 or request.status is not Status.RUNNING:
                continue
            entry = self._plan(request, budget)
            while entry is None and self._preempt_youngest(request):
                preempted = True
                entry = self._plan(request, budget)
            if entry is not None:
                entries.append(entry)
                budget -= entry.end - entry.start
        if not preempted:
            self._admit(entries, budget)
        return StepPlan(tuple(entries))

    def finish(self, request: EngineRequest) -> None:
        """Take a request out and give its blocks back."""
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._pool.release(request.block_ids)
        request.block_ids = []
        request.status = Status.FINISHED

    def note_computed(self, entry: PlannedRequest) -> None:
        """Advance the counter after a step and register the blocks it filled."""
        request = entry.request
        request.num_computed = entry.end
        for index in range(request.num_registered, request.num_computed // BLOCK_SIZE):
            tokens = request.token_slice(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE)
            request.block_ids[index] = self._pool.register(request.block_ids, index, tokens)
            request.num_registered = index + 1

    def _plan(self, request: EngineRequest, budget: int) -> PlannedRequest | None:
        """The request's part of the step, with blocks for it; None when there is no room."""
        end = min(request.num_tokens, request.num_computed + budget)
        missing = -(-end // BLOCK_SIZE) - len(request.block_ids)
        if missing > 0:
            blocks = self._pool.allocate(missing)
            if blocks is None:
                return None
            request.block_ids.extend(blocks)
        return PlannedRequest(request, request.num_computed, end, samples=end == request.num_tokens)

    def _admit(self, entries: list[PlannedRequest], budget: int) -> None:
        for request in list(self.waiting):
            if budget <= 0 or len(self.running) >= self.config.max_running:
                break
            tokens = request.token_slice(0, request.num_tokens - 1)  # the last is computed to get its logits
            match = self._pool.match_prefix(tokens)
            if self._sibling_is_ahead(tokens, match.num_tokens):
                continue
            self._pool.share(match.block_ids)
            request.block_ids = list(match.block_ids)
            request.num_computed = match.num_tokens
            request.num_registered = len(match.block_ids)
            entry = self._plan(request, budget)
            if entry is None:
                self._pool.release(request.block_ids)
                request.block_ids, request.num_computed, request.num_registered = [], 0, 0
                break
            if request.num_cached is None:
                request.num_cached = match.num_tokens
            self.waiting.remove(request)
            self.running.append(request)
            request.status = Status.RUNNING
            entries.append(entry)
            budget -= entry.end - entry.start

    def _sibling_is_ahead(self, tokens: list[int], num_found: int) -> bool:
        """Whether a running request is about to compute more of this prefix than the cache holds."""
        return any(
            num_found < (common := _common_blocks(tokens, other.prompt_ids)) and other.num_computed < common
            for other in self.running
            if other.num_computed < len(other.prompt_ids)
        )

    def _preempt_youngest(self, request: EngineRequest) -> bool:
        """Take the blocks of the youngest running request younger than `request`; whether there was one."""
        victim = max(self.running, key=lambda running: running.arrival)
        if victim is request:
            return False
        self._pool.release(victim.block_ids)
        victim.block_ids, victim.num_computed, victim.num_registered = [], 0, 0
        victim.status = Status.PREEMPTED
        self.running.remove(victim)
        self.add(victim)
        return True


def _common_blocks(tokens: Sequence[int], others: Sequence[int]) -> int:
    """Tokens in whole blocks that both start with."""
    common = 0
    for ours, theirs in zip(tokens, others, strict=False):
        if ours != theirs:
            break
        common += 1
    return common // BLOCK_SIZE * BLOCK_SIZE
