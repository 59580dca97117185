"""Planning: budgets, siblings, preemption, aborts, fairness. A ledger stands in for the model."""

from __future__ import annotations

import pytest
from driving import drive
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_runner import EOS, VOCAB, LedgerRunner, next_token

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.request import Status
from mathlete.ryanstream.scheduler import SchedulerConfig

MAX_LEN = 96


def make_engine(num_blocks: int = 64, max_running: int = 32, max_step_tokens: int = 64) -> tuple[Engine, LedgerRunner]:
    runner = LedgerRunner()
    config = SchedulerConfig(max_running, max_step_tokens, MAX_LEN)
    return Engine(runner, num_blocks, [EOS], config=config), runner  # type: ignore[arg-type]


def params(max_tokens: int = 8, seed: int = 0) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, seed=seed)


def expected_output(prompt: tuple[int, ...], sampling: SamplingParams) -> list[int]:
    tokens = prompt
    while True:
        tokens += (next_token(tokens, sampling.seed),)
        done = len(tokens) - len(prompt) >= sampling.max_tokens or len(tokens) >= MAX_LEN
        if tokens[-1] == EOS or done:
            return list(tokens[len(prompt) :])


@pytest.mark.parametrize("length", [31, 32, 33, 47, 48])
@pytest.mark.parametrize("max_step_tokens", [64, 24])
def test_the_prompt_of_siblings_is_computed_once(length: int, max_step_tokens: int) -> None:
    """Of a prompt's tokens only those after its last whole block are computed by each of 16 siblings."""
    engine, runner = make_engine(max_step_tokens=max_step_tokens)
    for i in range(16):
        engine.add(str(i), range(length), params(max_tokens=1, seed=i), group="p")
    ended = drive(engine)
    shared = (length - 1) // 16 * 16
    assert runner.num_computed == length + 15 * (length - shared)
    cached = [ended.outputs[str(i)].request.num_cached for i in range(16)]
    assert cached == [0] + [shared] * 15


def test_what_siblings_went_on_with_is_found_by_their_next_turns() -> None:
    """Also when two drew the same first tokens and only then differed (each wants its own chain of blocks)."""
    engine, runner = make_engine()
    first = tuple(range(32))
    outputs = {}
    for seed in range(3):
        outputs[seed] = expected_output(first, params(40, seed))
        engine.add(str(seed), first, params(40, seed))
    assert outputs[0] != outputs[1]
    drive(engine)
    before = runner.num_computed
    prompts = {seed: (*first, *output) for seed, output in outputs.items()}
    for seed, prompt in prompts.items():
        engine.add(f"{seed}+", prompt, params(1, seed))
    ended = drive(engine)
    for seed, prompt in prompts.items():
        assert ended.outputs[f"{seed}+"].request.num_cached == (len(prompt) - 1) // 16 * 16
    assert runner.num_computed - before == sum((len(prompt) - 1) % 16 + 1 for prompt in prompts.values())


def test_abort_frees_at_once_and_tells_in_the_next_step() -> None:
    engine, _ = make_engine(num_blocks=12, max_running=3)
    for i in range(4):
        engine.add(str(i), [i + 1] * 40, params(40), group="even" if i % 2 == 0 else "odd")
    engine.step()
    engine.step()
    assert engine._pool.num_free < 12
    engine.abort(request_id="1")
    engine.check_integrity()
    engine.abort(group="even")
    engine.check_integrity()
    assert [r.request_id for r in engine._requests.values()] == ["3"]
    ends = {o.request.request_id: o.end.reason for o in engine.step() if o.end is not None}
    assert ends == {"0": "abort", "1": "abort", "2": "abort"}
    engine.abort(request_id="3")
    engine.abort(request_id="unknown", group="unknown")
    assert engine._pool.num_free == 12
    assert [o.request.request_id for o in engine.step()] == ["3"]
    assert not engine.has_work


def test_an_id_is_free_again_once_its_end_was_told() -> None:
    engine, _ = make_engine()
    engine.add("a", [1], params())
    with pytest.raises(EngineError, match="in use"):
        engine.add("a", [1], params())
    engine.abort(request_id="a")
    with pytest.raises(EngineError, match="in use"):
        engine.add("a", [1], params())
    engine.step()
    engine.add("a", [1], params())
    drive(engine)


def test_what_cannot_run_is_refused() -> None:
    engine, _ = make_engine()
    with pytest.raises(EngineError, match="empty prompt"):
        engine.add("a", [], params())
    with pytest.raises(EngineError, match="fewer than 96"):
        engine.add("a", [0] * MAX_LEN, params())
    with pytest.raises(EngineError, match="token_bytes"):
        engine.add("a", [0], SamplingParams(stop=("x",)))
    engine.add("a", [0] * (MAX_LEN - 1), params())
    ended = drive(engine)
    assert ended.outputs["a"].end is not None and len(ended.ids("a")) == 1


def test_logits_that_are_no_numbers_end_only_their_request() -> None:
    class Broken(LedgerRunner):
        def execute(self, plan):  # type: ignore[no-untyped-def]
            drawn = super().execute(plan)
            return [
                tuple(token._replace(token_id=-1) for token in tokens) if entry.request.request_id == "bad" else tokens
                for entry, tokens in zip(plan.entries, drawn, strict=True)
            ]

    engine = Engine(Broken(), 64, [EOS], config=SchedulerConfig(8, 64, MAX_LEN))  # type: ignore[arg-type]
    engine.add("bad", [1, 2], params())
    engine.add("good", [1, 2], params())
    ended = drive(engine)
    bad = ended.outputs["bad"]
    assert bad.end is not None and bad.end.reason == "error" and "not numbers" in str(bad.end.message)
    assert bad.request.output_ids == []
    assert ended.ids("good") == expected_output((1, 2), params())


def test_the_oldest_is_never_put_aside_under_pressure() -> None:
    engine, _ = make_engine(num_blocks=6, max_step_tokens=16)
    for i in range(5):
        engine.add(str(i), [i + 1] * 30, params(60, seed=i))
    order: list[str] = []
    for _ in range(1000):
        if not engine.has_work:
            break
        oldest = min(engine._requests.values(), key=lambda r: r.arrival)
        order += [o.request.request_id for o in engine.step() if o.end is not None]
        assert oldest.status in (Status.RUNNING, Status.FINISHING, Status.FINISHED)
    assert sorted(order) == ["0", "1", "2", "3", "4"]


class EngineWalk(RuleBasedStateMachine):
    """Requests come, run and are aborted in any order on a pool that is too small for them."""

    @initialize(num_blocks=st.integers(6, 12), max_running=st.integers(1, 6), max_step_tokens=st.integers(1, 40))
    def start(self, num_blocks: int, max_running: int, max_step_tokens: int) -> None:
        self.max_step_tokens = max_step_tokens
        self.num_blocks = num_blocks
        self.engine, self.runner = make_engine(num_blocks, max_running, max_step_tokens)
        self.asked: dict[str, tuple[tuple[int, ...], SamplingParams]] = {}
        self.told: dict[str, str] = {}

    @rule(
        base=st.integers(0, 4),
        length=st.one_of(st.integers(1, 70), st.sampled_from([16, 32, 48])),
        tail=st.lists(st.integers(0, VOCAB - 1), max_size=3),
        max_tokens=st.integers(1, 40),
        seed=st.integers(0, 2),
        group=st.sampled_from(["a", "b", None]),
    )
    def add(self, base: int, length: int, tail: list[int], max_tokens: int, seed: int, group: str | None) -> None:
        name = str(len(self.asked))
        prompt = (*((base + i) % 7 for i in range(length)), *tail)
        self.asked[name] = (prompt, params(max_tokens, seed))
        self.engine.add(name, prompt, params(max_tokens, seed), group)

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            self._step()

    @precondition(lambda self: self.engine.num_unfinished)
    @rule(data=st.data())
    def abort_one(self, data: st.DataObject) -> None:
        self.engine.abort(request_id=data.draw(st.sampled_from(sorted(self.engine._requests))))

    @rule(group=st.sampled_from(["a", "b"]))
    def abort_group(self, group: str) -> None:
        self.engine.abort(group=group)
        assert all(request.group != group for request in self.engine._requests.values())

    @invariant()
    def whole(self) -> None:
        self.engine.check_integrity()
        if not self.engine.num_unfinished:
            assert self.engine._pool.num_free == self.num_blocks

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        bound = sum(len(prompt) + sampling.max_tokens for prompt, sampling in self.asked.values()) * 4 + 10
        for _ in range(bound):
            if not self.engine.has_work:
                break
            self._step()
        assert self.told.keys() == self.asked.keys(), "a request starved"
        assert self.engine._pool.num_free == self.num_blocks

    def _step(self) -> None:
        num_plans = len(self.runner.plans)
        for output in self.engine.step():
            request = output.request
            assert request.request_id not in self.told
            if output.end is not None:
                self.told[request.request_id] = output.end.reason
                expected = expected_output(*self.asked[request.request_id])
                if output.end.reason == "abort":
                    assert request.output_ids == expected[: len(request.output_ids)]
                else:
                    assert request.output_ids == expected
        for plan in self.runner.plans[num_plans:]:
            assert sum(entry.end - entry.start for entry in plan.entries) <= self.max_step_tokens
            assert all(entry.end > entry.start for entry in plan.entries)


EngineWalk.TestCase.settings = settings(max_examples=80, stateful_step_count=30)
test_random_walk = EngineWalk.TestCase


def test_a_long_prompt_that_goes_first_leaves_the_others_their_tokens() -> None:
    engine, runner = make_engine(num_blocks=200, max_step_tokens=16)
    for i in range(8):
        engine.add(str(i), [i + 1] * 3, SamplingParams(max_tokens=60, seed=i, ignore_eos=True))
    while any(not request.output_ids for request in engine._requests.values()):
        engine.step()
    engine.add("long", [9] * 80, params(1), priority=-1)
    engine.step()
    while engine._requests["long"].num_computed < 70:
        engine.step()
        plan = runner.plans[-1]
        assert sum(entry.samples for entry in plan.entries) == 8, "one of those that only need a token went without"
        assert sum(entry.end - entry.start for entry in plan.entries) == 16
    engine.check_integrity()


def test_lengths_that_are_not_the_texts_own_tell_nothing() -> None:
    engine, _ = make_engine()
    before = engine._lookahead._lengths.remaining(0, "p")
    for i in range(20):
        engine.add(str(i), [i + 1] * 3, SamplingParams(max_tokens=2, seed=i, ignore_eos=True), group="p")
    drive(engine)
    assert engine._lookahead._lengths.remaining(0, "p") == before
