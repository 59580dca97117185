"""The head's books: each problem with one worker at a time, each event kept once, nothing lost with a worker."""

from __future__ import annotations

import pytest

from mathlete.cluster.assignments import Assignments
from mathlete.cluster.messages import Report
from mathlete.cluster.placement import Demand, demand_of
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.errors import InputError
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord
from mathlete.core.selection import Selection
from mathlete.core.trace import TraceEvent, encode, encode_ending
from mathlete.run_config import EngineSpec, RunConfig

PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?") for i in range(5)]


def attempt(problem_id: str, index: int, num_tokens: int = 10) -> TraceEvent:
    turn = Turn("\\boxed{1}", num_tokens)
    made = Attempt(
        f"{problem_id}/{index}", problem_id, index, "reasoning", index, 0.8, "1", "boxed", (turn,), num_tokens, 1.0
    )
    return TraceEvent("attempt_finished", 1.0, {"attempt": encode_ending(made)}, problem_id, made.id)


def end(problem_id: str) -> TraceEvent:
    chosen = Selection("1", "majority", 1.0)
    return TraceEvent("problem_finished", 2.0, {"selection": encode(chosen), "reason": "settled"}, problem_id)


def report(*events: TraceEvent, first: int = 0, num_taken: int = 0, wants: bool = True, num_tokens: int = 0) -> Report:
    return Report(first, events, num_taken, wants, (), num_tokens)


def books(*workers: str, token_budget: int | None = None) -> Assignments:
    made = Assignments(PROBLEMS, {}, token_budget)
    for worker in workers:
        made.add(worker)
        made.take(worker, report())
    return made


def given(made: Assignments, worker: str) -> list[str]:
    return [one.problem.id for one in made.orders(worker, stop=False).given]


def test_who_wants_a_problem_gets_the_next() -> None:
    made = books("a", "b")
    assert given(made, "a") == ["p0"] and given(made, "b") == ["p1"]
    assert given(made, "a") == ["p0"], "said again until it has it"
    made.take("a", report(num_taken=1, wants=False))
    assert given(made, "a") == []
    made.take("a", report(num_taken=1))
    orders = made.orders("a", stop=False)
    assert [(one.number, one.problem.id) for one in orders.given] == [(2, "p2")]
    assert orders.num_to_come == 1, "two problems are left for two workers"


def test_an_event_that_is_said_twice_is_kept_once() -> None:
    made = books("a")
    given(made, "a")
    first, second = attempt("p0", 0), attempt("p0", 1)
    assert made.take("a", report(first, num_taken=1)) == [first]
    assert made.take("a", report(first, second, num_taken=1)) == [second]
    assert made.orders("a", stop=False).num_kept == 2
    assert made.take("a", report(second, end("p0"), first=1, num_taken=1)) == [end("p0")]
    assert len(made.records["p0"].attempts) == 2 and made.is_ended("p0")


def test_what_a_lost_worker_had_goes_on_elsewhere_with_what_was_kept() -> None:
    made = books("a", "b")
    given(made, "a")
    given(made, "b")
    made.take("a", report(attempt("p0", 0), num_taken=1, num_tokens=30))
    assert made.remove("a") == 1 and made.num_tokens == 30
    made.take("b", report(num_taken=1))
    (one,) = made.orders("b", stop=False).given
    assert one.problem.id == "p0" and one.earlier is not None
    assert [kept.index for kept in one.earlier.attempts] == [0]
    made.add("c")
    stale = report(attempt("p0", 1), end("p0"), attempt("p2", 0), num_taken=1)
    assert made.take("c", stale) == [], "it does not have these problems"
    assert made.take("b", report(end("p0"), num_taken=2)) == [end("p0")]


def test_earlier_sessions_are_gone_on_with() -> None:
    settled = ProblemRecord(PROBLEMS[0], selection=Selection("1", "majority", 1.0), stop_reason="settled")
    cut = ProblemRecord(PROBLEMS[1], selection=Selection("1", "majority", 1.0), stop_reason="interrupted")
    made = Assignments(PROBLEMS[:3], {"p0": settled, "p1": cut})
    made.add("a")
    made.take("a", report())
    assert given(made, "a") == ["p1"] and [problem.id for problem in made.left] == ["p1", "p2"]
    assert not made.is_done
    made.take("a", report(end("p1"), num_taken=1))
    assert given(made, "a") == ["p2"]
    made.take("a", report(end("p2"), first=1, num_taken=2))
    assert made.is_done and made.orders("a", stop=False).no_more


def test_tokens_are_shared_evenly() -> None:
    made = books("a", "b", token_budget=1000)
    made.take("a", report(num_tokens=200))
    made.take("b", report(num_tokens=100))
    assert made.orders("a", stop=False).tokens_left == 350
    made.remove("b")
    assert made.orders("a", stop=False).tokens_left == 700, "what a lost worker used is gone"
    assert books("a").orders("a", stop=False).tokens_left is None


def test_nothing_is_given_out_at_the_end() -> None:
    made = books("a")
    orders = made.orders("a", stop=True)
    assert orders.stop and not orders.given


def config(*engines: EngineSpec, **options: object) -> RunConfig:
    return RunConfig("evaluate", None, "m", 60.0, engines=engines, **options)  # type: ignore[arg-type]


def vllm(name: str, pillars: tuple[str, ...] = (), **settings: object) -> EngineSpec:
    return EngineSpec(name, "vllm", "m", pillars, settings=settings)


def test_what_a_worker_takes_of_a_cluster() -> None:
    assert demand_of(config(), 3, 24.0, 0.0) == Demand(8.0, 0, 8)
    assert demand_of(config(threads=2), 3, 24.0, 0.0) == Demand(2.0, 0, 2)
    assert demand_of(config(), 4, 2.0, 0.0) == Demand(0.5, 0, 1), "more workers than processors share them"
    gpu = config(device="cuda", tensor_parallel=2, precision="bf16")
    assert demand_of(gpu, 2, 16.0, 4.0) == Demand(8.0, 2, 8)
    two = config(vllm("r", tensor_parallel_size=2), vllm("c", ("code",), tensor_parallel_size=2))
    assert demand_of(two, 2, 16.0, 8.0).num_gpus == 4
    assert demand_of(config(vllm("r", pipeline_parallel_size=2)), 1, 16.0, 2.0).num_gpus == 2
    ray = vllm("r", tensor_parallel_size=8, pipeline_parallel_size=2, distributed_executor_backend="ray")
    assert demand_of(config(ray), 1, 16.0, 16.0).num_gpus == 0, "vLLM reserves them itself"
    server = EngineSpec("s", "openai_server", "m", settings={"base_url": "http://127.0.0.1:1/v1"})
    assert demand_of(config(server), 4, 16.0, 0.0).num_gpus == 0
    assert demand_of(config(vllm("r")), 2, 2.0, 0.0).num_gpus == 0, "vLLM's CPU build"


def test_a_cluster_that_is_too_small_is_told() -> None:
    gpu = config(device="cuda", tensor_parallel=2, precision="bf16")
    with pytest.raises(InputError, match=r"--num-workers 3 needs 6 GPUs.*has 4: use --num-workers 2"):
        demand_of(gpu, 3, 16.0, 4.0)
    with pytest.raises(InputError, match=r"has 1: use another recipe"):
        demand_of(gpu, 1, 16.0, 1.0)
