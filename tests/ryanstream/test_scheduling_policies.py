"""Who goes first, who is put aside, and that everybody ends. Plans are made without a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.kv_manager import KVCacheManager
from mathlete.ryanstream.lookahead import HORIZON, Lookahead, Outlook
from mathlete.ryanstream.memory_plan import Expected, peak_blocks
from mathlete.ryanstream.policy import FairShare, FirstComeFirstServed, SchedulingPolicy, ShortestFirst
from mathlete.ryanstream.request import EngineRequest, Status
from mathlete.ryanstream.scheduler import Scheduler, SchedulerConfig
from mathlete.ryanstream.waiting import GroupAccounts, WaitingQueue


@dataclass
class Foretold:
    """A lookahead that is told which requests are about to end, and expects everybody to go on for `remaining`."""

    finishing: set[str] = field(default_factory=set)
    remaining: float = 1.0

    def note_token(
        self, request: EngineRequest, token_id: int, eos_logprob: float, entropy: float, num_left: int
    ) -> Outlook:
        return Outlook(float(request.request_id in self.finishing), self.remaining)

    def note_finished(self, request: EngineRequest) -> None:
        pass

    def forget(self, request: EngineRequest) -> None:
        self.finishing.discard(request.request_id)

    def expected_remaining(self, request: EngineRequest) -> float:
        return self.remaining


class Bench:
    """A scheduler and the lengths of its requests."""

    def __init__(
        self,
        max_running: int = 4,
        num_blocks: int = 64,
        max_step_tokens: int = 64,
        policy: SchedulingPolicy | None = None,
        lookahead: Lookahead | None = None,
    ) -> None:
        self.pool = KVCacheManager(num_blocks)
        config = SchedulerConfig(max_running, max_step_tokens, max_model_len=1024)
        self.scheduler = Scheduler(config, self.pool, policy, lookahead)
        self.lengths: dict[str, int] = {}
        self.requests: list[EngineRequest] = []
        self.ended: list[str] = []

    def add(self, name: str, num_prompt: int, num_output: int, group: str | None = None, priority: int = 0) -> None:
        arrival = len(self.requests)
        prompt = tuple(range(1000 * arrival, 1000 * arrival + num_prompt))
        request = EngineRequest(name, prompt, SamplingParams(max_tokens=2048), group, arrival, priority=priority)
        self.lengths[name] = num_output
        self.requests.append(request)
        self.scheduler.add(request)

    def __getitem__(self, name: str) -> EngineRequest:
        return next(request for request in self.requests if request.request_id == name)

    def step(self) -> list[str]:
        """One step; the names of those planned."""
        plan = self.scheduler.schedule()
        for entry in plan.entries:
            self.scheduler.note_computed(entry)
            if entry.samples:
                request = entry.request
                request.output_ids.append(-1 - request.arrival)
                if len(request.output_ids) < self.lengths[request.request_id]:
                    self.scheduler.note_token(request, request.output_ids[-1], -20.0, 1.0)
                else:
                    self.scheduler.note_finished(request)
                    self.scheduler.finish(request)
                    self.ended.append(request.request_id)
        queued = [*self.scheduler.running, *self.scheduler.waiting]
        self.pool.check_integrity([request.block_ids for request in queued])
        assert plan.entries or not queued, "requests are there and nothing is computed"
        return [entry.request.request_id for entry in plan.entries]

    def run(self, max_steps: int = 20_000) -> list[str]:
        """Until all have ended; their names in order."""
        for _ in range(max_steps):
            if not self.scheduler.running and not self.scheduler.waiting:
                return self.ended
            self.step()
        raise AssertionError(f"{len(self.scheduler.waiting)} requests still wait after {max_steps} steps")


def test_lower_priority_numbers_go_first_and_equals_by_arrival() -> None:
    bench = Bench(max_running=1)
    for name, priority in (("a", 1), ("b", 0), ("c", 1), ("d", -1), ("e", 0)):
        bench.add(name, 10, 3, priority=priority)
    assert bench.run() == ["d", "b", "e", "a", "c"]


@pytest.mark.parametrize("policy", [FirstComeFirstServed(), FairShare(16), ShortestFirst(lambda r: -r.arrival)])
def test_no_policy_overrules_priority(policy: SchedulingPolicy) -> None:
    bench = Bench(max_running=1, policy=policy)
    for i in range(6):
        bench.add(str(i), 10, 5 + i, group=str(i % 2), priority=-i)
    assert bench.run() == ["5", "4", "3", "2", "1", "0"]


def test_shortest_first_orders_groups_and_siblings() -> None:
    lengths = {"a": 9, "b": 4, "c": 7, "d": 2}
    bench = Bench(max_running=1, policy=ShortestFirst(lambda r: lengths[r.request_id], fixed=True))
    for name, group in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")):
        bench.add(name, 10, lengths[name], group)
    assert bench.run() == ["d", "b", "c", "a"]


def test_a_group_far_behind_goes_first() -> None:
    """Eight attempts of an early problem do not keep a later one out for longer than the quantum."""

    def first_of_late(policy: SchedulingPolicy) -> int:
        bench = Bench(max_running=1, policy=policy)
        for i in range(8):
            bench.add(f"early{i}", 10, 50, "early")
        bench.add("late", 10, 50, "late")
        return bench.run().index("late")

    assert first_of_late(FirstComeFirstServed()) == 8
    assert first_of_late(FairShare(100)) == 2
    assert first_of_late(FairShare(10_000)) == 8


def test_a_small_quantum_serves_groups_evenly() -> None:
    bench = Bench(max_running=2, policy=FairShare(32))
    for group in ("a", "b", "c"):
        for i in range(6):
            bench.add(f"{group}{i}", 5, 20, group)
    for _ in range(90):
        bench.step()
    served = [bench.scheduler.num_served(group) for group in ("a", "b", "c")]
    assert max(served) - min(served) <= 32 + 2 * 25


def test_a_group_that_was_away_has_no_credit() -> None:
    accounts = GroupAccounts()
    accounts.open("a")
    accounts.charge("a", 500)
    accounts.open("b")
    assert accounts.num_served("b") == 500
    accounts.close("b")
    accounts.charge("a", 100)
    accounts.open("b")
    assert accounts.num_served("b") == 600
    accounts.open("c")
    accounts.charge("c", 7)
    accounts.close("a")
    accounts.open("a")
    assert accounts.num_served("a") == 600, "what it was served is remembered while it is away"


def test_recomputed_tokens_are_not_charged_twice() -> None:
    bench = Bench(num_blocks=6)
    bench.add("a", 40, 40, "a")
    bench.add("b", 40, 40, "b")
    while bench.scheduler.num_preemptions == 0:
        bench.step()
    while bench["b"].status is not Status.FINISHED:
        before = bench.scheduler.num_served("b")
        bench.step()
    assert 40 + 39 - 1 <= before <= 40 + 39


def test_a_preempted_request_keeps_its_place_and_its_output() -> None:
    bench = Bench(max_running=2, num_blocks=7)
    for name in ("a", "b", "c", "d"):
        bench.add(name, 30, 45)
    while bench["b"].status is not Status.PREEMPTED:
        bench.step()
    kept = list(bench["b"].output_ids)
    assert kept and bench["b"].block_ids == []
    assert [r.request_id for r in bench.scheduler.waiting.in_order()] == ["b", "c", "d"]
    assert bench.run() == ["a", "b", "c", "d"]
    assert bench["b"].output_ids[: len(kept)] == kept and len(bench["b"].output_ids) == 45


def test_the_last_in_order_is_put_aside_a_finishing_one_only_if_there_is_no_other() -> None:
    foretold = Foretold()
    bench = Bench(num_blocks=9, lookahead=foretold)
    for name in ("a", "b", "c"):
        bench.add(name, 40, 60)
    foretold.finishing = {"c"}
    bench.step()
    bench.step()
    assert bench["c"].status is Status.FINISHING
    bench["a"].num_paused = bench["b"].num_paused = HORIZON  # they have waited long enough
    while not bench.scheduler.num_preemptions:
        bench["a"].num_paused = bench["b"].num_paused = HORIZON
        bench.step()
    assert bench["b"].status is Status.PREEMPTED and bench["c"].is_running
    bench.scheduler.finish(bench["b"])
    while bench["c"].status is not Status.PREEMPTED:
        bench["a"].num_paused = HORIZON
        bench.step()
    assert bench["a"].is_running


def test_a_request_waits_with_its_blocks_for_one_that_is_about_to_end() -> None:
    foretold = Foretold()
    bench = Bench(num_blocks=6, lookahead=foretold)
    bench.add("a", 40, 50)
    bench.add("b", 33, 12)
    bench.step()
    bench.step()
    foretold.finishing = {"b"}
    order = bench.run()
    assert order == ["b", "a"] and bench.scheduler.num_preemptions == 0
    hasty = Bench(num_blocks=6)
    hasty.add("a", 40, 50)
    hasty.add("b", 33, 12)
    assert hasty.run() == ["a", "b"] and hasty.scheduler.num_preemptions == 1


def test_waiting_for_a_finishing_request_that_does_not_end_is_bounded() -> None:
    foretold = Foretold(finishing={"b"})
    bench = Bench(num_blocks=6, lookahead=foretold)
    bench.add("a", 46, 50)
    bench.add("b", 33, 60)
    longest = 0
    while bench["a"].status is not Status.FINISHED:
        bench.step()
        longest = max(longest, bench["a"].num_paused)
    assert longest == HORIZON
    assert bench.run() == ["a", "b"]


def test_a_status_is_raised_and_taken_back() -> None:
    foretold = Foretold(finishing={"a"})
    bench = Bench(lookahead=foretold)
    bench.add("a", 4, 9)
    bench.step()
    assert bench["a"].status is Status.FINISHING
    foretold.finishing.clear()
    bench.step()
    assert bench["a"].status is Status.RUNNING
    assert bench.run() == ["a"]


def test_nobody_is_admitted_who_is_expected_to_have_to_be_put_aside() -> None:
    bench = Bench(num_blocks=12, lookahead=Foretold(remaining=100))
    for name in ("a", "b", "c"):
        bench.add(name, 30, 100)
    bench.step()
    assert [r.request_id for r in bench.scheduler.running] == ["a"]
    assert bench.run() == ["a", "b", "c"] and bench.scheduler.num_preemptions == 0


def test_peak_blocks_looks_at_the_moment_before_each_end() -> None:
    assert peak_blocks(5, []) == 5
    assert peak_blocks(5, [Expected(32, 3)]) == 7
    assert peak_blocks(10, [Expected(16, 4), Expected(160, 2)]) == pytest.approx(10 - 4 + 10)
    assert peak_blocks(10, [Expected(160, 2), Expected(16, 40)]) == pytest.approx(12)


def test_the_queue_costs_no_more_than_the_groups_it_looks_at() -> None:
    """Thousands of waiting siblings: a step looks at the first of each group, not at all of them."""

    class Counting(FirstComeFirstServed):
        num_asked = 0

        def rank(self, request: EngineRequest, num_served: int) -> float:
            Counting.num_asked += 1
            return 0.0

    accounts = GroupAccounts()
    queue = WaitingQueue(Counting(), accounts)
    for i in range(2000):
        request = EngineRequest(str(i), (1,), SamplingParams(), f"g{i % 10}", i)
        accounts.open(request.group)
        queue.add(request)
    first = [request for request, _ in zip(queue.in_order(), range(20), strict=False)]
    assert [request.arrival for request in first] == list(range(20))
    assert Counting.num_asked <= 10 + 20
    for request in first:
        assert queue.remove(request)
        assert not queue.remove(request)
    assert len(queue) == len(list(queue)) == 1980


POLICIES: dict[str, SchedulingPolicy] = {
    "fcfs": FirstComeFirstServed(),
    "longest remaining first": ShortestFirst(lambda r: float(len(r.output_ids) * 37 % 11)),  # changes all the time
    "fair": FairShare(24),
}


@settings(max_examples=60)
@given(
    policy=st.sampled_from(sorted(POLICIES)),
    max_running=st.integers(1, 6),
    num_blocks=st.integers(8, 14),
    max_step_tokens=st.integers(1, 40),
    asked=st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["a", "b", None]), st.integers(0, 2)),
        min_size=1,
        max_size=10,
    ),
    finishing=st.sets(st.integers(0, 9)),
    looks_ahead=st.booleans(),
)
def test_everybody_ends(
    policy: str,
    max_running: int,
    num_blocks: int,
    max_step_tokens: int,
    asked: list[tuple[int, int, str | None, int]],
    finishing: set[int],
    looks_ahead: bool,
) -> None:
    """Whatever the policy and however wrong the lookahead, on a pool that holds little more than one request."""
    foretold = Foretold({str(i) for i in finishing}, remaining=20) if looks_ahead else None
    bench = Bench(max_running, num_blocks, max_step_tokens, POLICIES[policy], foretold)
    for i, (num_prompt, num_output, group, priority) in enumerate(asked):
        bench.add(str(i), num_prompt, num_output, group, priority)
    assert sorted(bench.run()) == sorted(str(i) for i in range(len(asked)))
    assert all(len(request.output_ids) == bench.lengths[request.request_id] for request in bench.requests)
    assert bench.pool.num_free == num_blocks
