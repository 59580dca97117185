"""The simulator does what the engine does, and counts what it says it counts."""

from __future__ import annotations

import gzip
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from ledger_runner import LedgerRunner

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.policy import FairShare, FirstComeFirstServed
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.scheduler import SchedulerConfig, StepPlan
from mathlete.ryanstream.simulator import (
    LengthModel,
    SimulationConfig,
    StepCost,
    StepSample,
    Trace,
    TraceRequest,
    collect_step_samples,
    compare_policies,
    fit_length_model,
    fit_step_cost,
    simulate,
    synthetic_trace,
    trace_from_attempts,
)
from mathlete.ryanstream.simulator.compare import POLICIES
from mathlete.ryanstream.simulator.cost import attended
from mathlete.ryanstream.simulator.foresight import ForesightQuality, SimulatedLookahead
from mathlete.ryanstream.simulator.trace import reordered
from mathlete.ryanstream.simulator.votes import Vote

SHARED_TRACES = Path(__file__).parents[3] / "shared" / "traces"
EACH_STEP_A_SECOND = StepCost(1.0, 0.0, 0.0)


class Unrelated(LedgerRunner):
    """A ledger whose requests never draw the same token, as in the simulator."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[EngineRequest, int] = {}

    def execute(self, plan: StepPlan) -> list[Any]:
        drawn = super().execute(plan)
        for entry in plan.entries:
            self.numbers.setdefault(entry.request, len(self.numbers))
        return [
            tuple(token._replace(token_id=10**6 + self.numbers[entry.request]) for token in tokens)
            for entry, tokens in zip(plan.entries, drawn, strict=True)
        ]


@pytest.mark.parametrize("num_blocks", [12, 20, 64])
@pytest.mark.parametrize("max_step_tokens", [12, 64])
def test_it_takes_the_engines_steps(num_blocks: int, max_step_tokens: int) -> None:
    """The same requests through the real engine: as many steps, tokens computed, and requests put aside."""
    trace = synthetic_trace(3, 5, seed=num_blocks, lengths=LengthModel(3.8, 0.2, 0.3), num_prompt=37, max_output=90)
    config = SimulationConfig(4, num_blocks, max_step_tokens)
    policy = FirstComeFirstServed()
    runner = Unrelated()
    limits = SchedulerConfig(4, max_step_tokens, max_model_len=256)
    engine = Engine(runner, num_blocks, [], config=limits, policy=policy)  # type: ignore[arg-type]
    engine._scheduler._lookahead = None
    prompts = {group: [n] * 37 for n, group in enumerate(dict.fromkeys(r.group for r in trace))}
    for request in trace:
        sampling = SamplingParams(max_tokens=request.num_output)
        engine.add(request.request_id, prompts[request.group], sampling, request.group)
    samples = collect_step_samples(engine)
    result = simulate(trace, config, policy)
    assert result.num_steps == len(runner.plans) == len(samples)
    assert result.num_computed == runner.num_computed == sum(sample.num_tokens for sample in samples)
    assert result.num_preemptions == engine._scheduler.num_preemptions
    assert (result.num_preemptions > 0) == (num_blocks == 12)
    assert result.num_tokens == sum(request.num_output for request in trace)


def test_time_is_the_cost_of_the_steps() -> None:
    trace = (TraceRequest("a", "g", 10, 3), TraceRequest("b", "g", 10, 1, arrival_s=100.0))
    cost = StepCost(step_s=1.0, token_s=0.5, attended_s=0.25)
    result = simulate(trace, SimulationConfig(2, 8, 64, cost))
    prefill = 1 + 0.5 * 10 + 0.25 * attended(0, 10)
    assert attended(0, 10) == 55 and attended(10, 11) == 11
    assert result.latency_s["a"] == pytest.approx(prefill + 2 * 1.5 + 0.25 * (11 + 12))
    assert result.latency_s["b"] == pytest.approx(prefill)
    assert result.seconds == pytest.approx(100 + prefill)


def test_a_stall_is_waiting_beside_a_free_slot_and_free_blocks() -> None:
    """Without room, or without a slot, nobody stalls; held back with both there, somebody does."""
    alike = tuple(TraceRequest(str(i), str(i), 20, 10) for i in range(4))
    full = simulate(alike, SimulationConfig(1, 64, 64))
    assert full.stalls == 0 and full.waiting_steps == 10 * (3 + 2 + 1)
    roomy = simulate(alike, SimulationConfig(4, 64, 256))
    assert roomy.stalls == 0 and roomy.waiting_steps == 0
    siblings = tuple(TraceRequest(str(i), "g", 40, 10) for i in range(4))
    shared = simulate(siblings, SimulationConfig(4, 64, 24))
    assert shared.stalls_for_prefix == shared.stalls
    cautious = simulate(alike, SimulationConfig(4, 8, 256), FirstComeFirstServed(), SimulatedLookahead(
        dict.fromkeys("0123", 10), 0
    ))  # fmt: skip
    assert cautious.stalls > 0, "expecting long outputs, it holds requests back although there is room now"


def test_the_next_turn_follows_and_finds_its_prefix() -> None:
    first = TraceRequest("a", "g", 40, 20, answer="1")
    second = TraceRequest("a+", "g", 16, 10, arrival_s=5.0, answer="2", follows="a")
    result = simulate((first, second), SimulationConfig(2, 16, 64, EACH_STEP_A_SECOND))
    assert result.latency_s == {"a": 20.0, "a+": 10.0}
    assert result.settled_s == {"g": 35.0}
    assert result.num_computed < 40 + 19 + 17 + 9 + 16, "what the first turn computed is found"


def test_a_settled_vote_aborts_its_siblings_if_asked() -> None:
    trace = tuple(TraceRequest(str(i), "g", 10, 10 * (i + 1), answer="7") for i in range(8))
    on = simulate(trace, SimulationConfig(8, 64, 256, EACH_STEP_A_SECOND, num_agreeing=4, abort_settled=True))
    off = simulate(trace, SimulationConfig(8, 64, 256, EACH_STEP_A_SECOND, num_agreeing=4))
    assert on.settled_s == off.settled_s == {"g": 40.0}
    assert len(on.latency_s) == 4 and len(off.latency_s) == 8
    assert on.num_tokens < off.num_tokens == sum(r.num_output for r in trace)


def test_votes_are_settled_by_agreement_or_when_the_leader_is_out_of_reach() -> None:
    vote = Vote(outstanding=5, num_agreeing=None)
    vote.add("a")
    vote.add("a")
    assert not vote.is_settled, "two to nothing, three to come"
    vote.add("a")
    assert vote.is_settled
    agreeing = Vote(outstanding=99, num_agreeing=2)
    agreeing.add("a")
    agreeing.add(None)
    assert not agreeing.is_settled
    agreeing.add("a")
    assert agreeing.is_settled
    nothing = Vote(outstanding=1, num_agreeing=4)
    nothing.add(None)
    assert nothing.is_settled


def test_fairness_is_one_when_all_are_served_alike_and_less_when_not() -> None:
    trace = tuple(TraceRequest(f"{g}{i}", g, 10, 40) for g in "abcd" for i in range(4))
    by_arrival = simulate(trace, SimulationConfig(2, 64, 64), FirstComeFirstServed())
    fair = simulate(trace, SimulationConfig(2, 64, 64), FairShare(32))
    assert by_arrival.jain == pytest.approx(0.5, abs=0.05)
    assert fair.jain > 0.7
    assert simulate(trace, SimulationConfig(16, 64, 256)).jain > 0.99


def test_a_request_that_does_not_fit_is_refused() -> None:
    with pytest.raises(EngineError, match="does not fit into 4 blocks"):
        simulate((TraceRequest("a", "g", 40, 40),), SimulationConfig(num_blocks=4))


def test_the_step_cost_is_found_again() -> None:
    true = StepCost(0.02, 0.001, 2e-6)
    sizes = [(n, n * context) for n in (1, 8, 32, 256) for context in (50, 400, 2000)]
    found = fit_step_cost([StepSample(true.seconds(n, context), n, context) for n, context in sizes])
    assert found.step_s == pytest.approx(true.step_s) and found.token_s == pytest.approx(true.token_s)
    assert found.attended_s == pytest.approx(true.attended_s)
    free_context = fit_step_cost([StepSample(0.1 + n - 1e-9 * context, n, context) for n, context in sizes])
    assert free_context.attended_s == 0 and free_context.token_s == pytest.approx(1, rel=1e-3)
    with pytest.raises(ValueError, match="at least 3"):
        fit_step_cost([StepSample(1.0, 1, 1)])


def test_the_length_model_is_found_again() -> None:
    model = LengthModel(5.0, 0.6, 0.3)
    found = fit_length_model(synthetic_trace(300, 6, seed=1, lengths=model, max_output=10**9))
    assert found.mean == pytest.approx(model.mean, abs=0.1)
    assert found.between_sd == pytest.approx(model.between_sd, abs=0.1)
    assert found.within_sd == pytest.approx(model.within_sd, abs=0.05)
    with pytest.raises(ValueError, match="two groups"):
        fit_length_model((TraceRequest("a", "g", 1, 1),))


def test_recorded_attempts_become_a_trace() -> None:
    problems = [
        {"problem_id": "p", "problem": "x" * 70, "attempts": [{"tokens": 100, "answer": "3"}, {"answer": "4"}]},
        {"problem_id": "q", "problem": "x", "attempts": [{"tokens": 64, "answer": None}, {"tokens": 1}]},
    ]
    trace = trace_from_attempts(problems, length_scale=0.25, interval_s=2.0)
    assert [(r.request_id, r.num_output, r.answer) for r in trace] == [("q#0", 16, None), ("q#1", 1, None)]
    assert trace_from_attempts(problems, min_attempts=1)[0] == TraceRequest("p#0", "p", 60, 100, 0.0, "3")
    with pytest.raises(ValueError, match="num_output"):
        TraceRequest("a", "g", 1, 0)


def test_another_order_deals_out_the_same_arrivals() -> None:
    trace = synthetic_trace(6, 2, seed=0, interval_s=10.0)
    other = reordered(trace, seed=3)
    assert reordered(trace, 0) == trace
    assert sorted(r.arrival_s for r in other) == sorted(r.arrival_s for r in trace)
    assert [r.group for r in other] != [r.group for r in trace]
    assert {r.request_id: r.num_output for r in other} == {r.request_id: r.num_output for r in trace}


def test_foresight_is_as_good_as_it_is_said_to_be() -> None:
    lengths = {str(i): 200 for i in range(400)}
    lookahead = SimulatedLookahead(lengths, seed=0, quality=ForesightQuality(0.6, 5, 1e-3))
    foreseen, alarms = 0, 0
    for i, name in enumerate(lengths):
        request = EngineRequest(name, (0,), SamplingParams(), None, i)
        raised = []
        for _ in range(1, 200):
            request.output_ids.append(0)
            raised.append(lookahead.note_token(request, 0, -20.0, 0.0, 999).ends_soon > 0.5)
        foreseen += any(raised[-3:])
        alarms += any(raised[:180])
        lookahead.forget(request)
    assert foreseen / 400 == pytest.approx(0.6, abs=0.08)
    assert alarms / 400 == pytest.approx(1 - math.exp(-0.18), abs=0.06)


def tight() -> tuple[Trace, SimulationConfig]:
    lengths = LengthModel(4.2, 0.3, 0.5)
    return synthetic_trace(8, 6, seed=4, lengths=lengths, num_prompt=60), SimulationConfig(12, 60, 96)


def test_policies_are_compared_at_equal_tokens() -> None:
    trace, config = tight()
    results = {result.policy: result for result in compare_policies(trace, config, num_orders=2)}
    assert list(results) == list(POLICIES)
    assert len({result.num_tokens for result in results.values()}) == 1
    fcfs = results["fcfs"]
    assert fcfs.settled_ratio == (1.0, 1.0, 1.0)
    assert all(r.settled_s.low <= r.settled_s.mean <= r.settled_s.high for r in results.values())
    assert results["sjf, known lengths"].latency_s.mean < fcfs.latency_s.mean
    with pytest.raises(ValueError, match="at least one order"):
        compare_policies((), config)


def test_looking_ahead_saves_work_where_memory_is_scarce() -> None:
    trace, config = tight()
    lengths = {request.request_id: request.num_output for request in trace}
    plain = simulate(trace, config)
    ahead = simulate(trace, config, FairShare(), SimulatedLookahead(lengths, 0))
    assert ahead.num_preemptions < plain.num_preemptions
    assert ahead.num_computed < plain.num_computed


@pytest.mark.shared
def test_recorded_lengths_of_a_large_model() -> None:
    path = SHARED_TRACES / "gptoss120b_euler.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path}")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        trace = trace_from_attempts([json.loads(line) for line in lines], length_scale=1 / 256, min_attempts=4)
    assert len(trace) > 300
    result = simulate(trace, SimulationConfig(64, 4096, 512))
    assert result.num_tokens == sum(request.num_output for request in trace)
    assert len(result.settled_s) == len({request.group for request in trace})
    assert statistics.fmean(result.latency_s.values()) < result.seconds
