"""A cache too small for what is asked: who waits, who is refused, and that nothing turns in circles."""

from __future__ import annotations

import pytest
from driving import drive
from ledger_runner import EOS, LedgerRunner, next_token

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.scheduler import SchedulerConfig


def make_engine(num_blocks: int, max_running: int = 8, max_step_tokens: int = 64, max_len: int = 4096):  # type: ignore[no-untyped-def]
    runner = LedgerRunner()
    config = SchedulerConfig(max_running, max_step_tokens, max_len)
    return Engine(runner, num_blocks, [EOS], config=config, block_bytes=2**19), runner  # type: ignore[arg-type]


def exactly(num_tokens: int, seed: int = 0) -> SamplingParams:
    """That many tokens, whatever they are."""
    return SamplingParams(max_tokens=num_tokens, seed=seed, ignore_eos=True)


def test_a_request_that_could_outgrow_the_cache_is_refused_with_both_sizes() -> None:
    engine, _ = make_engine(num_blocks=5)
    with pytest.raises(EngineError) as refusal:
        engine.add("big", [1] * 50, exactly(32))
    message = str(refusal.value)
    assert "'big' can grow to 50 prompt and 32 new tokens" in message
    assert "needs 6 blocks (96 tokens, 3.0 MiB)" in message
    assert "has 5 blocks (80 tokens, 2.5 MiB)" in message
    assert "max_tokens" in message and "kv_cache_bytes" in message
    assert not engine.has_work


def test_what_just_fits_is_served() -> None:
    """The last token is drawn and never stored: 81 tokens need 5 blocks of 16."""
    engine, _ = make_engine(num_blocks=5)
    engine.add("fits", [1] * 50, exactly(31))
    assert len(drive(engine).ids("fits")) == 31


def test_the_models_length_bounds_the_need() -> None:
    engine, _ = make_engine(num_blocks=5, max_len=81)
    engine.add("long", [1] * 50, exactly(10_000))
    assert len(drive(engine).ids("long")) == 31


def test_a_fork_that_could_outgrow_the_cache_is_refused() -> None:
    engine, _ = make_engine(num_blocks=5)
    engine.add("a", [1] * 50, exactly(20))
    engine.step()
    with pytest.raises(EngineError, match="'b' can grow to 50 prompt and 40 new tokens"):
        engine.fork("a", "b", exactly(40))
    engine.check_integrity()
    assert len(drive(engine).ids("a")) == 20


@pytest.mark.parametrize("max_step_tokens", [8, 64])
@pytest.mark.parametrize("num_requests", [2, 5])
def test_those_that_each_need_the_whole_cache_take_turns(num_requests: int, max_step_tokens: int) -> None:
    """Nobody is put aside for ever, and what is computed twice stays within reason."""
    engine, runner = make_engine(num_blocks=8, max_step_tokens=max_step_tokens)
    for i in range(num_requests):
        engine.add(str(i), [i + 1] * 20, exactly(108, seed=i))
    ended = drive(engine, max_steps=num_requests * 400)
    assert len(ended.outputs) == num_requests
    assert all(len(ended.ids(str(i))) == 108 for i in range(num_requests))
    useful = num_requests * 127
    assert runner.num_computed <= 3 * useful, f"{runner.num_computed} tokens computed for {useful} of use"


def test_requests_wait_for_room_and_the_first_of_them_is_never_passed_over_for_ever() -> None:
    """A large one waits behind small ones and small ones keep coming."""
    engine, _ = make_engine(num_blocks=8, max_running=4)
    engine.add("small 0", [1] * 30, exactly(10))
    engine.step()
    engine.add("large", [2] * 100, exactly(20))
    for turn in range(1, 200):
        engine.add(f"small {turn}", [3 + turn] * 30, exactly(10))
        if any(output.request.request_id == "large" and output.end for output in engine.step()):
            return
    raise AssertionError("the large request starved")


def test_idle_blocks_give_way_before_running_requests_do() -> None:
    """What finished requests left is young, and taken by force all the same: nobody is preempted for it."""
    engine, _ = make_engine(num_blocks=8)
    for i in range(3):
        engine.add(f"done {i}", [i + 1] * 32, exactly(1))
    drive(engine)
    assert engine._pool.num_idle == 6
    engine.add("a", [10] * 20, exactly(44))
    engine.add("b", [11] * 20, exactly(44))
    ended = drive(engine)
    assert ended.num_preempted == 0
    assert engine.kv_statistics.forced > 0


def test_a_fork_draws_what_a_request_of_its_own_would() -> None:
    """Siblings of a fork share their blocks, the last one too, until they write to it."""
    engine, runner = make_engine(num_blocks=16)
    engine.add("a", range(20), exactly(40, seed=1), "group")
    for _ in range(6):
        engine.step()
    computed = runner.num_computed
    for i in range(3):
        engine.fork("a", f"fork {i}", exactly(40, seed=i))
    engine.check_integrity()
    assert engine._pool.num_blocks - engine._pool.num_free == 2
    ended = drive(engine)
    first = ended.ids("a")
    for i in range(3):
        tokens = (*range(20), *first[:6])
        while len(tokens) < 60:
            tokens += (next_token(tokens, i),)
        assert ended.ids(f"fork {i}") == list(tokens[20:])
        assert ended.outputs[f"fork {i}"].request.group == "group"
    assert ended.ids("fork 1") == first  # the same seed
    assert runner.num_computed - computed == 4 * (59 - 25)  # nothing is computed twice, prompt or output
    assert engine.kv_statistics.copied == 3


@pytest.mark.parametrize("num_steps", [0, 1, 2])
def test_a_fork_of_one_that_is_not_under_way_waits(num_steps: int) -> None:
    engine, runner = make_engine(num_blocks=16, max_running=1, max_step_tokens=16)
    engine.add("a", range(40), exactly(5))
    for _ in range(num_steps):
        engine.step()
    engine.fork("a", "b", exactly(5))
    engine.check_integrity()
    ended = drive(engine)
    assert ended.ids("a") == ended.ids("b")
    assert runner.num_computed < 2 * 44  # what is in whole blocks is found


def test_a_fork_that_makes_no_sense_is_refused() -> None:
    engine, _ = make_engine(num_blocks=16)
    engine.add("a", [1], exactly(5))
    engine.step()
    with pytest.raises(EngineError, match="none that is unfinished"):
        engine.fork("b", "c", exactly(5))
    with pytest.raises(EngineError, match="in use"):
        engine.fork("a", "a", exactly(5))
    with pytest.raises(EngineError, match="no tokens left"):
        engine.fork("a", "c", exactly(1))
    with pytest.raises(EngineError, match="stop"):
        engine.fork("a", "c", SamplingParams(stop=("x",)))
    engine.check_integrity()
    drive(engine)


def test_a_turn_is_found_by_its_continuation_after_a_tool_call() -> None:
    engine, _ = make_engine(num_blocks=32)
    engine.add("turn 1", range(40), exactly(30), "group")
    first = drive(engine).ids("turn 1")
    prompt = [*range(40), *first, 7, 7, 7]
    for i in range(2):  # what goes on meanwhile
        engine.add(f"other {i}", [40 + i] * 60, exactly(5))
    drive(engine)
    engine.add("turn 2", prompt, exactly(3), "group")
    assert drive(engine).outputs["turn 2"].request.num_cached == 64  # 69 tokens were computed
