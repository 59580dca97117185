"""Prefixes kept between runs, seen from the engine: what is computed, and that results do not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from driving import drive, load
from tiny_qwen import TinyModel

from mathlete.core.generation import Finished, GenerateRequest, Message, SamplingParams
from mathlete.generators.ryanstream import RyanStreamGenerator
from mathlete.ryanstream.loading import LoadedEngine
from mathlete.ryanstream.request import EngineRequest

SYSTEM = [(7 * i) % 250 for i in range(70)]  # 64 of them are whole blocks
PROMPT = [*SYSTEM, 1, 2, 3]
SAMPLING = SamplingParams(temperature=1.0, max_tokens=12, seed=5)


class Counted:
    """An engine and how many tokens it computed."""

    def __init__(self, loaded: LoadedEngine) -> None:
        self.loaded = loaded
        self.engine = loaded.engine
        self.num_computed = 0
        execute = self.engine._runner.execute

        def counting(plan):  # type: ignore[no-untyped-def]
            self.num_computed += sum(entry.end - entry.start for entry in plan.entries)
            return execute(plan)

        self.engine._runner.execute = counting  # type: ignore[method-assign]

    def run(self, prompt: list[int] = PROMPT, persist_prefix: int = len(SYSTEM), num: int = 1) -> list[EngineRequest]:
        for i in range(num):
            self.engine.add(str(i), prompt, replace(SAMPLING, seed=i), "group", persist_prefix)
        ended = drive(self.engine)
        return [ended.outputs[str(i)].request for i in range(num)]


@pytest.fixture
def start(tiny: TinyModel, engine_cache: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A new run: an engine of the tiny model, its prompts in a folder of this test."""

    def make(**config: object) -> Counted:
        for name in ("kernels", "checkpoints"):  # made once for all tests
            (engine_cache / name).mkdir(exist_ok=True)
            if not (tmp_path / name).exists():
                (tmp_path / name).symlink_to(engine_cache / name)
        return Counted(load(tiny.folder, tmp_path, **config))

    return make


def test_the_second_run_does_not_compute_the_prefix_and_says_the_same(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first, second = start(), start()
    (before,) = first.run()
    assert len(list((tmp_path / "prompts").iterdir())) == 1
    (after,) = second.run()
    assert first.num_computed - second.num_computed == 64
    assert (before.num_cached, after.num_cached) == (0, 64)
    assert before.output_ids == after.output_ids
    assert before.logprobs == after.logprobs and before.entropies == after.entropies  # bit by bit


@pytest.mark.parametrize("precision", ["w8a8", "bf16", "fp32"])
def test_what_comes_back_is_what_was_computed(start, precision: str) -> None:  # type: ignore[no-untyped-def]
    """Every tensor of the cache's blocks, whatever the precision."""
    first, second = start(precision=precision), start(precision=precision)
    first.run()
    second.engine.add("x", PROMPT, SAMPLING, persist_prefix=64)
    exported = []
    for counted in (first, second):
        found = counted.engine._pool.match_prefix(PROMPT[:64])
        assert found.num_tokens == 64
        exported.append(counted.engine._runner.export_blocks(found.block_ids))
    assert exported[0].keys() == exported[1].keys() and len(exported[0]) >= 6
    assert all(torch.equal(exported[0][name], exported[1][name]) for name in exported[0])
    assert any(tensor.any() for tensor in exported[0].values())
    second.engine.check_integrity()
    drive(second.engine)


def test_siblings_write_one_entry_and_read_it_once(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first, second = start(), start()
    requests = first.run(num=4)
    assert len(list((tmp_path / "prompts").iterdir())) == 1
    again = second.run(num=4)
    assert [r.output_ids for r in requests] == [r.output_ids for r in again]
    assert {r.num_cached for r in again} == {64}


def test_a_longer_prompt_is_computed_from_where_the_stored_one_ends(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    start().run()
    second, third = start(), start()
    longer = [*PROMPT[:64], *range(40)]
    (request,) = second.run(longer, persist_prefix=len(longer))
    assert request.num_cached == 64
    assert len(list((tmp_path / "prompts").iterdir())) == 2
    (request,) = third.run([*longer[:96], 5, 6], persist_prefix=96)
    assert request.num_cached == 96


def test_what_memory_holds_is_not_read_from_disk(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Found in the pool first; written all the same if it was computed by a request that did not ask for it."""
    first = start()
    first.run(persist_prefix=0)
    assert not (tmp_path / "prompts").exists()
    (request,) = first.run()
    assert request.num_cached == 64
    (path,) = (tmp_path / "prompts").iterdir()
    path.write_bytes(b"never read")
    first.run()
    assert first.engine.take_warnings() == ()


@pytest.mark.parametrize(
    ("prompt", "persist"),
    [(PROMPT, 63), (PROMPT[:60], 60), ([*PROMPT[:63], 250, *PROMPT[64:]], 70)],
    ids=["too few asked for", "too short", "another last token"],
)
def test_what_is_not_the_same_prefix_is_computed(start, prompt: list[int], persist: int) -> None:  # type: ignore[no-untyped-def]
    start().run()
    second = start()
    (request,) = second.run(prompt, persist)
    assert request.num_cached == 0
    assert second.num_computed == request.num_tokens - 1


def test_another_precision_does_not_use_it(start) -> None:  # type: ignore[no-untyped-def]
    start().run()
    (request,) = start(precision="fp32").run()
    assert request.num_cached == 0


def test_it_can_be_switched_off(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    start(prompt_cache=False).run()
    assert not (tmp_path / "prompts").exists()


def test_a_damaged_entry_is_computed_anew_and_told(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (before,) = start().run()
    (path,) = (tmp_path / "prompts").iterdir()
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    second = start()
    (after,) = second.run()
    assert after.num_cached == 0 and after.output_ids == before.output_ids
    assert "computed anew" in second.engine.take_warnings()[0]
    assert path.stat().st_size == size  # written anew


def test_tensors_that_do_not_fit_are_rejected(start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    start().run()
    second = start()
    monkeypatch.setattr(
        "mathlete.ryanstream.block_tensors.named_tensors", lambda caches: [("0.else", torch.zeros(64, 1))]
    )
    second.engine._prompts.expect(EngineRequest("x", tuple(PROMPT), SAMPLING, None, 0), 64)
    assert "do not fit" in second.engine.take_warnings()[0]
    assert not list((tmp_path / "prompts").iterdir())
    second.engine._pool.check_integrity([])


def test_an_abort_before_the_prefix_is_computed_leaves_nothing_due(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = start(max_step_tokens=16)
    first.engine.add("0", PROMPT, SAMPLING, persist_prefix=64)
    first.engine.step()
    first.engine.abort(request_id="0")
    drive(first.engine)
    first.run([1, 2, 3], persist_prefix=0)
    assert first.engine._prompts._due == {} and not (tmp_path / "prompts").exists()
    first.run()
    assert len(list((tmp_path / "prompts").iterdir())) == 1


def test_a_cache_without_room_for_the_prefix_still_serves(start) -> None:  # type: ignore[no-untyped-def]
    start().run()
    second = start(num_blocks=6)
    second.engine.add("big", list(range(60)), SamplingParams(max_tokens=30, ignore_eos=True))
    second.engine.step()
    second.engine.add("0", PROMPT, SAMPLING, persist_prefix=64)
    second.engine.check_integrity()
    assert drive(second.engine).outputs.keys() == {"big", "0"}


def test_the_generator_asks_for_its_system_message(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    system = Message("system", "Solve the problem step by step. " * 3)

    def run(*messages: Message) -> int:
        generator = RyanStreamGenerator(start(max_model_len=256).loaded)
        generator.submit(GenerateRequest("r", messages, SamplingParams(max_tokens=4)))
        ends = [event for _ in range(40) for event in generator.events(0.1) if isinstance(event, Finished)]
        assert generator.take_warnings() == ()
        return ends[0].completion.usage.cached

    assert run(system, Message("user", "1 + 1")) == 0
    cached = run(system, Message("user", "another one"))
    assert cached >= 64 and cached % 16 == 0
    assert run(Message("user", system.content * 2)) == 0
    assert len(list((tmp_path / "prompts").iterdir())) == 1
