"""Decides which tokens are computed in the next step. Returns plain data; never touches a tensor.

One progress counter instead of phases: a request catches up from `num_computed` to `num_tokens`.
Prefill, a found prefix, chunking and recomputation after preemption are all the same case; a request
that has caught up to its last token gets a new one.

Everybody ends. Requests are totally ordered (`policy.order_key`), and the order can change only when a token
appears that is new, or a request comes or goes. The first of those that run is never put aside and may put aside
any other; the first of those that wait is admitted first. So until it gets its token, the first stays the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mathlete.ryanstream.kv_cache import BLOCK_SIZE, BlockCopy, PrefixMatch, SlotMove, blocks_for, slot_of
from mathlete.ryanstream.kv_manager import KVCacheManager
from mathlete.ryanstream.lookahead import HORIZON, Lookahead
from mathlete.ryanstream.memory_plan import expected, peak_blocks
from mathlete.ryanstream.policy import FirstComeFirstServed, OrderKey, SchedulingPolicy, order_key
from mathlete.ryanstream.request import EngineRequest, Status
from mathlete.ryanstream.shared_prefix import sibling_is_ahead
from mathlete.ryanstream.speculative.draft_states import PlannedDraft
from mathlete.ryanstream.waiting import GroupAccounts, WaitingQueue

FINISHING_ABOVE = 0.7

# Blocks that may be promised for each there is: not all requests are at their longest at once, and expected lengths
# err on both sides. In the simulator 1.0 left slots empty and 1.35 put many requests aside; 1.1 to 1.2 were best.
_OVERCOMMIT = 1.2


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
    """Compute tokens [start, end) of a request; draw a token when `end` is all there is.

    The nodes of a `draft` are computed behind them, node i in the slot of place `end + i`, and draw a token each.
    """

    request: EngineRequest
    start: int
    end: int
    samples: bool
    draft: PlannedDraft | None = None

    @property
    def num_nodes(self) -> int:
        """Of its draft."""
        return 0 if self.draft is None else self.draft.tree.num_nodes


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the next step does: first the copies of blocks, in order, then the entries.

    Attributes:
        entries: what is computed, in order.
        copies: shared blocks whose owner writes to its own copy from now on.
        keeps_hidden: whether the hidden states of all rows are wanted (`ModelRunner.hidden`).
    """

    entries: tuple[PlannedRequest, ...]
    copies: tuple[BlockCopy, ...] = ()
    keeps_hidden: bool = False

    @property
    def num_rows(self) -> int:
        """Tokens computed, drafts included."""
        return sum(entry.end - entry.start + entry.num_nodes for entry in self.entries)


@dataclass(slots=True)
class _Draft:
    """A plan in the making: its entries by request, and the tokens that are left."""

    budget: int
    entries: dict[EngineRequest, PlannedRequest] = field(default_factory=dict)

    def put(self, entry: PlannedRequest) -> None:
        self.entries[entry.request] = entry
        self.budget -= entry.end - entry.start

    def drop(self, request: EngineRequest) -> None:
        entry = self.entries.pop(request, None)
        if entry is not None:
            self.budget += entry.end - entry.start


class Scheduler:
    """Plans steps in the order of a policy, with shared prefixes computed once.

    Attributes:
        waiting: requests that hold no blocks.
        running: requests that do.
        num_preemptions: requests put aside so far.
        num_held: requests that the last step held back because a sibling is computing the prefix they need.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        pool: KVCacheManager,
        policy: SchedulingPolicy | None = None,
        lookahead: Lookahead | None = None,
    ) -> None:
        """Start with nothing queued.

        Args:
            config: limits of a step.
            pool: where blocks come from.
            policy: the order of service; by arrival when None.
            lookahead: tells which requests are about to end; without one nobody is FINISHING.
        """
        self.config = config
        self.num_preemptions = 0
        self.num_held = 0
        self._pool = pool
        self._policy = policy or FirstComeFirstServed()
        self._lookahead = lookahead
        self._accounts = GroupAccounts()
        self.waiting = WaitingQueue(self._policy, self._accounts)
        self.running: list[EngineRequest] = []
        self._copies: list[BlockCopy] = []

    def add(self, request: EngineRequest) -> None:
        """Queue a new request."""
        self._accounts.open(request.group)
        self.waiting.add(request)

    def fork(self, parent: EngineRequest, child: EngineRequest) -> None:
        """Take in a copy of `parent`.

        Where the parent holds all but its last token and there is a place, the child shares its blocks and runs
        beside it at once; else it waits, and finds what is in the cache when it is admitted.
        """
        caught_up = parent.is_running and parent.num_computed == parent.num_tokens - 1
        if not caught_up or len(self.running) >= self.config.max_running:
            self.add(child)
            return
        self._accounts.open(child.group)
        child.block_ids = self._pool.fork(parent.block_ids)
        child.num_computed, child.num_registered = parent.num_computed, parent.num_registered
        child.status = Status.RUNNING
        self.running.append(child)

    def schedule(self) -> StepPlan:
        """Plan a step: first those that run, in order, then as many of the waiting as fit."""
        draft = _Draft(self.config.max_step_tokens)
        keys = {request: self._key(request) for request in self.running}
        num_preempted, self.num_held = self.num_preemptions, 0
        num_decoding = sum(request.num_left == 1 for request in self.running)  # and not planned yet
        for request in sorted(self.running, key=lambda r: (r.status is not Status.FINISHING, keys[r])):
            num_decoding -= request.num_left == 1
            if draft.budget > 0 and request.is_running:
                self._go_on(request, draft, keys, max(1, draft.budget - num_decoding))
        if num_preempted == self.num_preemptions:
            self._admit(draft)
        return StepPlan(tuple(draft.entries.values()), self.take_copies())

    def take_copies(self) -> tuple[BlockCopy, ...]:
        """Copies of blocks that were planned since the last call."""
        copies, self._copies = tuple(self._copies), []
        return copies

    def reserve_draft(self, request: EngineRequest, num_nodes: int) -> int:
        """Blocks for guesses beyond a running request's tokens: for how many of `num_nodes` there was room.

        Of the blocks that hold what might be asked for again it takes one at most, which the request's own tokens
        would take soon: no guess is worth more.
        """
        start, num_empty = request.num_tokens, self._pool.num_free - self._pool.num_idle
        end = min(start + num_nodes, (len(request.block_ids) + max(1, num_empty)) * BLOCK_SIZE)
        while end > start:
            copies = self._pool.reserve(request.block_ids, start, end)
            if copies is not None:
                self._copies += copies
                return end - start
            end = (end - 1) // BLOCK_SIZE * BLOCK_SIZE  # without its last block
        return 0

    def rewind(self, request: EngineRequest, go_back: Callable[[], None]) -> None:
        """Let `go_back` take output tokens from an unfinished request, and give back the blocks that held them.

        A full block that would be written to in its middle is given back too: it is registered, others may read
        it. Its up to 16 tokens that stand are computed again. Raises what `go_back` raises; nothing has changed then.
        """
        if not request.is_running:
            self.waiting.remove(request)  # its place may depend on what changes
        try:
            go_back()
        finally:
            if not request.is_running:
                self.waiting.add(request)
        if self._lookahead is not None:
            self._lookahead.forget(request)
        if request.is_running:
            request.status, request.num_paused = Status.RUNNING, 0
            num_computed = min(request.num_computed, request.num_tokens - 1)  # the last one's logits are needed
            if num_computed < request.num_registered * BLOCK_SIZE:
                num_computed -= num_computed % BLOCK_SIZE
            kept = blocks_for(num_computed)
            self._pool.release(request.block_ids[kept:], request.request_id)
            del request.block_ids[kept:]
            request.num_computed, request.num_registered = num_computed, min(request.num_registered, kept)

    def finish(self, request: EngineRequest) -> None:
        """Take a request out and give its blocks back."""
        if request.is_running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        self._accounts.close(request.group)
        if self._lookahead is not None:
            self._lookahead.forget(request)
        self._pool.release(request.block_ids, request.request_id)
        request.block_ids = []
        request.status = Status.FINISHED

    def note_computed(self, entry: PlannedRequest) -> None:
        """Advance the counter after a step, register the blocks it filled, charge the group for what is new."""
        request = entry.request
        request.num_computed = entry.end
        self._charge(entry)
        self._register_full(request)

    def note_accepted(self, entry: PlannedRequest, nodes: Sequence[int]) -> list[SlotMove]:
        """The model drew these nodes of an entry's draft, one after the other, and they are output now.

        Returns:
            What must be moved at once so that their keys and values lie where those of output do.
        """
        request = entry.request
        slots = [slot_of(request.block_ids, entry.end + node) for node in nodes]
        places = [slot_of(request.block_ids, entry.end + place) for place in range(len(nodes))]
        request.num_computed = entry.end + len(nodes)
        self._charge(entry)
        self._register_full(request)
        return [SlotMove(src, dst) for src, dst in zip(slots, places, strict=True) if src != dst]

    def _charge(self, entry: PlannedRequest) -> None:
        """Charge the group for what was computed for the first time."""
        request = entry.request
        num_new = request.num_computed - max(entry.start, request.num_charged)
        if num_new > 0:
            self._accounts.charge(request.group, num_new)
            request.num_charged = request.num_computed

    def _register_full(self, request: EngineRequest) -> None:
        for index in range(request.num_registered, request.num_computed // BLOCK_SIZE):
            tokens = request.token_slice(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE)
            request.block_ids[index] = self._pool.register(request.block_ids, index, tokens)
            request.num_registered = index + 1

    def note_token(self, request: EngineRequest, token_id: int, eos_logprob: float, entropy: float) -> None:
        """A running request got a token and goes on: ask whether it is about to end.

        Args:
            request: its output ends with the token.
            token_id: what was drawn.
            eos_logprob: natural log-probability of the end of text where the token was drawn.
            entropy: of the distribution there, nats.
        """
        if self._lookahead is not None:
            num_output_left = request.sampling.max_tokens - len(request.output_ids)
            num_left = min(num_output_left, self.config.max_model_len - request.num_tokens)
            outlook = self._lookahead.note_token(request, token_id, eos_logprob, entropy, num_left)
            request.expected_remaining = outlook.remaining
            request.status = Status.FINISHING if outlook.ends_soon > FINISHING_ABOVE else Status.RUNNING

    def note_finished(self, request: EngineRequest) -> None:
        """A request came to its own end (it was not aborted): its length tells of its siblings'."""
        if self._lookahead is not None:
            self._lookahead.note_finished(request)

    def num_served(self, group: str | None) -> int:
        """Tokens that a group with unfinished requests was served, what it was lifted by included."""
        return self._accounts.num_served(group)

    def _key(self, request: EngineRequest) -> OrderKey:
        return order_key(self._policy, request, self._accounts.num_served(request.group))

    def _go_on(
        self, request: EngineRequest, draft: _Draft, keys: Mapping[EngineRequest, OrderKey], budget: int
    ) -> None:
        """Plan a running request; where there is no room, wait for a finishing one, or put others aside.

        `budget` leaves a token for each later one that only needs one: a long prompt does not hold up the others.
        """
        entry = self._plan(request, budget)
        if entry is None and self._pauses(request, draft):
            request.num_paused += 1
            return
        while entry is None and (victim := self._victim(request, keys)) is not None:
            draft.drop(victim)
            self._preempt(victim)
            entry = self._plan(request, budget)
        if entry is not None:
            request.num_paused = 0
            draft.put(entry)

    def _plan(self, request: EngineRequest, budget: int) -> PlannedRequest | None:
        """The request's part of the step, with blocks for it; None when there is no room."""
        end = min(request.num_tokens, request.num_computed + budget)
        copies = self._pool.reserve(request.block_ids, request.num_computed, end)
        if copies is None:
            return None
        self._copies += copies
        return PlannedRequest(request, request.num_computed, end, samples=end == request.num_tokens)

    def _pauses(self, request: EngineRequest, draft: _Draft) -> bool:
        """Whether to wait a step for a finishing request's blocks instead of putting another aside.

        Only for one that gets its token in this step, and no longer than it was expected to take: the
        expectation may be wrong.
        """
        if request.status is Status.FINISHING or request.num_paused >= HORIZON:
            return False
        return any(planned.status is Status.FINISHING for planned in draft.entries)

    def _victim(self, request: EngineRequest, keys: Mapping[EngineRequest, OrderKey]) -> EngineRequest | None:
        """Whom to put aside for `request`: the last in order, a FINISHING one only if there is no other.

        None when that one comes before `request`, which then waits with its blocks.
        """
        others = [other for other in self.running if other is not request]
        last = max(others, key=lambda r: (r.status is not Status.FINISHING, keys[r]), default=None)
        return last if last is not None and keys[last] > keys[request] else None

    def _preempt(self, victim: EngineRequest) -> None:
        """Take a running request's blocks. It keeps output, priority and arrival, so it waits in its place."""
        self._pool.release(victim.block_ids, victim.request_id)
        victim.block_ids, victim.num_computed, victim.num_registered, victim.num_paused = [], 0, 0, 0
        victim.status = Status.PREEMPTED
        self.running.remove(victim)
        self.waiting.add(victim)
        self.num_preemptions += 1

    def _admit(self, draft: _Draft) -> None:
        if draft.budget <= 0 or len(self.running) >= self.config.max_running:
            return
        for request in self.waiting.in_order():
            tokens = request.token_slice(0, request.num_reusable)
            match = self._pool.match_prefix(tokens)
            if sibling_is_ahead(tokens, match.num_tokens, self.running):
                self.num_held += 1
                if self.num_held == self.config.max_running:  # there may be thousands: enough to fill the next step
                    break
                continue
            if not self._will_fit(request, match) or not self._start(request, match, draft):
                break
            if draft.budget <= 0 or len(self.running) >= self.config.max_running:
                break

    def _will_fit(self, request: EngineRequest, match: PrefixMatch) -> bool:
        """Whether the running and this one are expected to end without putting anyone aside.

        Being put aside costs more than waiting: all that was computed is computed again. Without a lookahead
        nothing is expected, and room for the next step is all that counts.
        """
        if self._lookahead is None:
            return True
        request.expected_remaining = self._lookahead.expected_remaining(request)
        if not self.running:
            return True
        num_needed = blocks_for(request.num_tokens) - self._pool.num_used_of(match.block_ids)
        future = [expected(other) for other in (*self.running, request)]
        num_used = self._pool.num_blocks - self._pool.num_free + num_needed
        return peak_blocks(num_used, future) <= _OVERCOMMIT * self._pool.num_blocks

    def _start(self, request: EngineRequest, match: PrefixMatch, draft: _Draft) -> bool:
        """Let a waiting request run from the prefix that was found; False, and no change, when there is no room."""
        self._pool.share(match.block_ids)
        request.block_ids = list(match.block_ids)
        request.num_computed = match.num_tokens
        request.num_registered = len(match.block_ids)
        entry = self._plan(request, draft.budget)
        if entry is None:
            self._pool.release(request.block_ids)
            request.block_ids, request.num_computed, request.num_registered = [], 0, 0
            return False
        self._pool.note_reference(match.block_ids)
        if request.num_cached is None:
            request.num_cached = match.num_tokens
        self.waiting.remove(request)
        self.running.append(request)
        request.status = Status.RUNNING
        draft.put(entry)
        return True
