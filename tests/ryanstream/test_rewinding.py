"""Going back: with the seed it had, a request goes on bit for bit as it did before, whatever it carries."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import drive, load
from ledger_runner import EOS, LedgerRunner, next_token
from test_batch_invariance import Told, add, prompt_of, told
from tiny_qwen import TinyModel
from token_walk import TokenWalk, looping

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.request import EngineRequest, Status
from mathlete.ryanstream.scheduler import SchedulerConfig

NAMES = range(8)


@pytest.fixture
def make(tiny_wide: TinyModel, engine_cache: Path, kernels: NativeKernels) -> Callable[..., Engine]:
    return lambda num_blocks=64, **config: (
        load(tiny_wide.folder, engine_cache, num_blocks, precision="w8a8", **config).engine
    )


def forwards(engine: Engine) -> dict[str, Told]:
    """All eight requests, none of which goes back."""
    for name in NAMES:
        add(engine, name)
    return {name: told(output.request) for name, output in drive(engine).outputs.items()}


def drive_back_and_forth(engine: Engine, noise: random.Random, preempt: bool) -> dict[str, EngineRequest]:
    """Each step, now and then, somebody goes back, waiting ones too, each at most six times."""
    ended: dict[str, EngineRequest] = {}
    while engine.has_work:
        for output in engine.step():
            if output.end is not None:
                ended[output.request.request_id] = output.request
        engine.check_integrity()
        if preempt and noise.random() < 0.1 and engine._scheduler.running:
            engine._scheduler._preempt(noise.choice(engine._scheduler.running))
        for request in list(engine._requests.values()):
            if noise.random() < 0.15 and request.num_rewinds < 6:
                kept = noise.randint(0, len(request.output_ids))
                assert engine.rewind(request.request_id, kept, request.sampling) == tuple(request.output_ids)
                assert len(request.output_ids) == kept
                engine.check_integrity()
    return ended


@pytest.mark.parametrize(
    ("seed", "preempt", "guessed"), [(1, False, "off"), (2, True, "off"), (3, True, "ngram"), (4, False, "suffix")]
)
def test_a_checkpoint_restored_equals_the_state_before(
    make: Callable[..., Engine], seed: int, preempt: bool, guessed: str
) -> None:
    """Siblings, constraints, thinking, filters, drafts: tokens, logprobs and entropies are bit for bit the same."""
    straight = forwards(make())
    engine = make(speculative=guessed, adaptive_depth=False)
    for name in NAMES:
        add(engine, name)
    ended = drive_back_and_forth(engine, random.Random(seed), preempt)
    assert {name: told(request) for name, request in ended.items()} == straight
    assert sum(request.num_rewinds for request in ended.values()) > 15
    assert sum(request.num_discarded for request in ended.values()) > 50
    assert ended["6"].num_forced == 3 == ended["7"].num_forced, "closing a block is counted once"
    assert engine.num_free_blocks == engine.num_blocks


def test_another_seed_goes_another_way_from_there_on(make: Callable[..., Engine]) -> None:
    params = SamplingParams(temperature=1.5, top_p=1.0, max_tokens=24, seed=1, ignore_eos=True)
    engine = make()
    engine.add("a", prompt_of(5), params)
    straight = drive(engine).ids("a")
    engine.add("a", prompt_of(5), params)
    for _ in range(14):
        engine.step()
    engine.rewind("a", 9, SamplingParams(temperature=1.5, top_p=1.0, max_tokens=24, seed=2, ignore_eos=True))
    other = drive(engine).ids("a")
    assert other[:9] == straight[:9] and other[9:] != straight[9:] and len(other) == 24


def test_a_stop_string_across_the_place_is_found(make: Callable[..., Engine]) -> None:
    params = SamplingParams(temperature=1.0, max_tokens=24, seed=3, ignore_eos=True)
    engine = make()
    engine.add("a", [5, 6, 7], params)
    ids = drive(engine).ids("a")
    raw = b"".join(engine._token_bytes[token] for token in ids)
    text = raw.decode("latin-1")
    pair = next(text[i : i + 2] for i in range(6, 20) if text[i : i + 2].isascii() and text.index(text[i : i + 2]) == i)
    stopping = SamplingParams(temperature=1.0, max_tokens=24, seed=3, ignore_eos=True, stop=(pair,))
    engine.add("a", [5, 6, 7], stopping)
    straight = drive(engine).outputs["a"]
    engine.add("a", [5, 6, 7], stopping)
    for _ in range(len(straight.request.output_ids) - 1):
        engine.step()
    request = engine._requests["a"]
    engine.rewind("a", len(request.output_ids) - 1, stopping)
    again = drive(engine).outputs["a"]
    assert again.request.output_ids == straight.request.output_ids and again.end == straight.end


def test_what_is_refused_changes_nothing(make: Callable[..., Engine]) -> None:
    class Stuck(TokenWalk):
        def rollback(self, num_tokens: int) -> None:
            raise RuntimeError("no way back")

    engine = make(4)
    params = SamplingParams(temperature=1.0, max_tokens=20, seed=3, ignore_eos=True)
    engine.add("a", [5, 6, 7], params, constraint=Stuck(looping(range(15, 25))))
    for _ in range(6):
        engine.step()
    before = [*engine._requests["a"].output_ids]
    with pytest.raises(EngineError, match="its constraint raised RuntimeError: no way back"):
        engine.rewind("a", 2, params)
    with pytest.raises(EngineError, match="can grow to"):
        engine.rewind("a", 6, SamplingParams(max_tokens=5000, seed=3, ignore_eos=True))
    for kept, sampling, said in (
        (7, params, "has 6 output tokens: it cannot go back to 7"),
        (2, SamplingParams(max_tokens=2), "nothing is left to draw"),
        (2, SamplingParams(max_tokens=9, num_logprobs=3), "must keep its num_logprobs"),
        (2, SamplingParams(max_tokens=9, stop=("x",)), "must keep its stop"),
    ):
        with pytest.raises(EngineError, match=said):
            engine.rewind("a", kept, sampling)
    with pytest.raises(EngineError, match="'b' cannot go back: there is none"):
        engine.rewind("b", 0, params)
    assert engine._requests["a"].output_ids == before and engine._requests["a"].num_rewinds == 0
    assert len(drive(engine).ids("a")) == 20


def test_only_what_is_drawn_anew_is_charged() -> None:
    runner = LedgerRunner()
    engine = Engine(runner, 20, [EOS], config=SchedulerConfig(4, 64, 128))  # type: ignore[arg-type]
    engine.add("a", (1,) * 40, SamplingParams(max_tokens=60, seed=1, ignore_eos=True), "g")
    while len(engine._requests["a"].output_ids) < 30:
        engine.step()
    served = engine._scheduler.num_served("g")
    assert served == 69  # the last token is not computed yet
    engine.rewind("a", 23, SamplingParams(max_tokens=60, seed=2, ignore_eos=True))
    assert engine._requests["a"].num_computed == 48, "the block that was full is computed again"
    engine.step()
    assert engine._scheduler.num_served("g") == served, "what stands was charged before"
    engine.step()
    assert engine._scheduler.num_served("g") == served + 1


def test_siblings_keep_the_blocks_that_one_gives_back() -> None:
    """A fork shares the partly filled block; the ledger refuses whoever reads another's tokens."""
    runner = LedgerRunner()
    engine = Engine(runner, 20, [EOS], config=SchedulerConfig(4, 64, 128))  # type: ignore[arg-type]
    params = SamplingParams(max_tokens=60, seed=1, ignore_eos=True)
    engine.add("a", (1,) * 20, params)
    while len(engine._requests["a"].output_ids) < 20:
        engine.step()
    engine.fork("a", "b", params)
    engine.rewind("a", 15, SamplingParams(max_tokens=60, seed=2, ignore_eos=True))
    engine.rewind("b", 4, SamplingParams(max_tokens=60, seed=2, ignore_eos=True))
    ended = drive(engine).outputs
    for name, start in (("a", 15), ("b", 4)):
        tokens = (1,) * 20
        for place, drawn in enumerate(ended[name].request.output_ids):
            assert drawn == next_token(tokens, 1 if place < start else 2)
            tokens += (drawn,)


def test_one_that_waits_goes_back_too() -> None:
    engine = Engine(LedgerRunner(), 20, [EOS], config=SchedulerConfig(1, 64, 128))  # type: ignore[arg-type]
    params = SamplingParams(max_tokens=30, seed=1, ignore_eos=True)
    engine.add("a", (1,) * 20, params)
    for _ in range(10):
        engine.step()
    request = engine._requests["a"]
    engine._scheduler._preempt(request)
    assert request.status is Status.PREEMPTED
    engine.rewind("a", 3, params)
    engine.check_integrity()
    assert request.status is Status.PREEMPTED and not request.block_ids
    assert len(drive(engine).ids("a")) == 30
