"""One simulation: the real scheduler and the real KV pool, steps that take the time of a cost model."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.kv_cache import BLOCK_SIZE, blocks_for
from mathlete.ryanstream.kv_manager import KVCacheManager
from mathlete.ryanstream.lookahead import Lookahead
from mathlete.ryanstream.policy import SchedulingPolicy
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.scheduler import PlannedRequest, Scheduler, SchedulerConfig
from mathlete.ryanstream.simulator.cost import StepCost, plan_size
from mathlete.ryanstream.simulator.trace import TraceRequest
from mathlete.ryanstream.simulator.votes import Vote

_TOKENS_A_REQUEST = 1 << 20  # ids of different requests never meet


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """A machine and the rules of the vote.

    Attributes:
        max_running: slots.
        num_blocks: KV blocks of 16 tokens.
        max_step_tokens: tokens computed in a step.
        cost: how long a step takes.
        num_agreeing: equal answers that settle a vote, besides an uncatchable leader; None for never.
        abort_settled: whether a problem's other attempts are aborted when its vote is settled. Policies then
            compute different tokens.
    """

    max_running: int = 32
    num_blocks: int = 2048
    max_step_tokens: int = 256
    cost: StepCost = StepCost()
    num_agreeing: int | None = 4
    abort_settled: bool = False


@dataclass(slots=True)
class SimulationResult:
    """What happened.

    Attributes:
        seconds: from the first arrival to the last end.
        num_steps: engine steps.
        num_tokens: output tokens.
        num_computed: tokens computed, recomputed ones included.
        waiting_steps: request-steps spent waiting.
        stalls: those of them in which a slot, blocks and step tokens were there to serve the request.
        stalls_for_prefix: those of the stalls in which a sibling was about to compute the request's prefix.
        num_preemptions: requests put aside.
        paused_steps: request-steps in which a running request had no room and kept its blocks.
        jain: Jain's index over the groups' served tokens when half of all tokens were served (those that had
            arrived); 1 when all had the same.
        latency_s: of each request from its arrival to its end; aborted ones are left out.
        settled_s: of each group from its arrival to its settled vote.
    """

    seconds: float = 0.0
    num_steps: int = 0
    num_tokens: int = 0
    num_computed: int = 0
    waiting_steps: int = 0
    stalls: int = 0
    stalls_for_prefix: int = 0
    num_preemptions: int = 0
    paused_steps: int = 0
    jain: float = 1.0
    latency_s: dict[str, float] = field(default_factory=dict)
    settled_s: dict[str, float] = field(default_factory=dict)


def simulate(
    trace: Sequence[TraceRequest],
    config: SimulationConfig,
    policy: SchedulingPolicy | None = None,
    lookahead: Lookahead | None = None,
) -> SimulationResult:
    """Run a trace to its end.

    Raises:
        EngineError: when a request could not be held by the whole KV pool.
    """
    simulation = _Simulation(trace, config, policy, lookahead)
    while simulation.step():
        pass
    return simulation.result


class _Simulation:
    """The state of one run."""

    def __init__(
        self,
        trace: Sequence[TraceRequest],
        config: SimulationConfig,
        policy: SchedulingPolicy | None,
        lookahead: Lookahead | None,
    ) -> None:
        self.result = SimulationResult()
        self._config = config
        self._now_s = 0.0
        self._trace = {request.request_id: request for request in trace}
        longest = self._longest(trace)
        if blocks_for(longest) > config.num_blocks:
            raise EngineError(f"a request of {longest} tokens does not fit into {config.num_blocks} blocks")
        self._pool = KVCacheManager(config.num_blocks, clock=lambda: self._now_s)
        limits = SchedulerConfig(config.max_running, config.max_step_tokens, longest + 1)
        self._scheduler = Scheduler(limits, self._pool, policy, lookahead)
        self._numbers = {request.request_id: number for number, request in enumerate(trace)}
        self._arrivals = [(r.arrival_s, self._numbers[r.request_id]) for r in trace if r.follows is None]
        heapq.heapify(self._arrivals)
        self._requests = tuple(trace)
        self._next_turns: dict[str, list[TraceRequest]] = {}
        for request in trace:
            if request.follows is not None:
                self._next_turns.setdefault(request.follows, []).append(request)
        self._group_numbers = {group: n for n, group in enumerate(dict.fromkeys(r.group for r in trace))}
        self._prompts: dict[str, tuple[int, ...]] = {}
        self._live: dict[str, EngineRequest] = {}
        self._began_s: dict[str, float] = {}
        self._arrived_s: dict[str, float] = {}
        self._votes = {group: Vote(0, config.num_agreeing) for group in self._group_numbers}
        for request in trace:
            self._votes[request.group].outstanding += request.request_id not in self._next_turns
        self._served = dict.fromkeys(self._group_numbers, 0)
        self._half = sum(request.num_output for request in trace) // 2

    def _longest(self, trace: Sequence[TraceRequest]) -> int:
        lengths: dict[str, int] = {}
        for request in trace:
            before = 0 if request.follows is None else lengths[request.follows]
            lengths[request.request_id] = before + request.num_prompt + request.num_output
        return max(lengths.values(), default=1)

    def step(self) -> bool:
        """Let in who has arrived, and run one engine step; False when all is done."""
        while self._arrivals and (self._arrivals[0][0] <= self._now_s or not self._live):
            arrival_s, number = heapq.heappop(self._arrivals)
            self._now_s = max(self._now_s, arrival_s)
            self._arrive(self._requests[number], arrival_s)
        if not self._live:
            return False
        plan = self._scheduler.schedule()
        num_tokens, num_attended = plan_size(plan)
        self._count_waiting(plan.entries, num_tokens)
        self._now_s += self._config.cost.seconds(num_tokens, num_attended)
        self.result.num_steps += 1
        self.result.num_computed += num_tokens
        for entry in plan.entries:
            if entry.request.request_id in self._live:  # else aborted by a vote that was settled in this very step
                self._scheduler.note_computed(entry)
                if entry.samples:
                    self._take_token(entry.request)
        self.result.seconds = self._now_s
        self.result.num_preemptions = self._scheduler.num_preemptions
        return True

    def _arrive(self, asked: TraceRequest, arrival_s: float) -> None:
        vote = self._votes[asked.group]
        if self._config.abort_settled and vote.is_settled:
            return
        number = self._numbers[asked.request_id]
        if asked.follows is None:
            start = self._group_numbers[asked.group] * _TOKENS_A_REQUEST
            prompt = tuple(range(start, start + asked.num_prompt))
        else:
            prompt = (*self._prompts.pop(asked.follows), *([-2 * number - 2] * asked.num_prompt))
        sampling = SamplingParams(max_tokens=asked.num_output + _TOKENS_A_REQUEST)
        request = EngineRequest(asked.request_id, prompt, sampling, asked.group, number, priority=asked.priority)
        self._live[asked.request_id] = request
        self._arrived_s[asked.request_id] = arrival_s
        self._began_s.setdefault(asked.group, arrival_s)
        self._scheduler.add(request)

    def _take_token(self, request: EngineRequest) -> None:
        """The model's part: any token, and the end where the trace has it. Ids of two requests never agree."""
        asked = self._trace[request.request_id]
        token_id = -2 * request.arrival - 1
        request.output_ids.append(token_id)
        self.result.num_tokens += 1
        self._served[asked.group] += 1
        if self.result.num_tokens == self._half:
            self.result.jain = self._jain()
        if len(request.output_ids) < asked.num_output:
            self._scheduler.note_token(request, token_id, -20.0, 0.0)
            return
        self._scheduler.note_finished(request)
        self._scheduler.finish(request)
        del self._live[request.request_id]
        self.result.latency_s[request.request_id] = self._now_s - self._arrived_s[request.request_id]
        followers = self._next_turns.get(request.request_id, ())
        for following in followers:
            self._prompts[request.request_id] = (*request.prompt_ids, *request.output_ids)
            place = self._numbers[following.request_id]
            heapq.heappush(self._arrivals, (self._now_s + following.arrival_s, place))
        if not followers:
            self._vote(asked)

    def _vote(self, asked: TraceRequest) -> None:
        vote = self._votes[asked.group]
        vote.add(asked.answer)
        if vote.is_settled and asked.group not in self.result.settled_s:
            self.result.settled_s[asked.group] = self._now_s - self._began_s[asked.group]
            if self._config.abort_settled:
                for request in [r for r in self._live.values() if r.group == asked.group]:
                    self._scheduler.finish(request)
                    del self._live[request.request_id]

    def _count_waiting(self, entries: Sequence[PlannedRequest], num_tokens: int) -> None:
        """Count who waits, and who of them could have been served beside those that were."""
        scheduler, config = self._scheduler, self._config
        num_waiting = len(scheduler.waiting)
        self.result.waiting_steps += num_waiting
        self.result.paused_steps += len(scheduler.running) - len(entries)
        num_slots = config.max_running - len(scheduler.running)
        num_left = config.max_step_tokens - num_tokens
        if not (num_waiting and num_slots and num_left and self._pool.num_free):
            return
        found: dict[str | None, int] = {}
        needs = []
        for request in scheduler.waiting:
            if request.group not in found:
                found[request.group] = len(self._pool.match_prefix(request.prompt_ids[:-1]).block_ids)
            chunk_end = min(request.num_tokens, found[request.group] * BLOCK_SIZE + num_left)
            needs.append(max(0, blocks_for(chunk_end) - found[request.group]))
        num_free, num_served = self._pool.num_free, 0
        for need in sorted(needs)[:num_slots]:
            if need > num_free or num_left < 1:
                break
            num_free -= need
            num_left -= 1
            num_served += 1
        self.result.stalls += num_served
        self.result.stalls_for_prefix += min(num_served, scheduler.num_held)

    def _jain(self) -> float:
        served = [self._served[group] for group in self._began_s]
        squares = sum(tokens * tokens for tokens in served)
        return sum(served) ** 2 / (len(served) * squares) if squares else 1.0
