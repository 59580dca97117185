"""Measuring an engine: what is asked of it, what is counted, and how figures follow from times."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from driving import load
from tiny_qwen import TinyModel

from mathlete.core.errors import EngineError
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.loading import LoadedEngine
from mathlete.ryanstream.measuring import Timing, Workload, run_prompts, summarise, time_start, workload_prompts
from mathlete.ryanstream.roofline import Ceilings, StepWork, num_product_weights
from mathlete.ryanstream.text_logits import text_logits

WORKLOAD = Workload(attempts=3, problems=2, prompt_tokens=150, new_tokens=5, num_logprobs=2)


@pytest.fixture(scope="module")
def loaded(tiny: TinyModel, engine_cache: Path) -> LoadedEngine:
    return load(tiny.folder, engine_cache, num_blocks=96, precision="fp32", max_model_len=256, max_step_tokens=64)


def test_each_problem_of_each_repeat_has_a_prompt_of_its_own_and_of_the_length_asked(loaded: LoadedEngine) -> None:
    prompts = [ids for repeat in range(3) for ids in workload_prompts(loaded.tokenizer, WORKLOAD, repeat)]
    assert [len(ids) for ids in prompts] == [150] * 6
    assert len({tuple(ids[:BLOCK_SIZE]) for ids in prompts}) == 6, "a repeat would find its prompt in the cache"
    with pytest.raises(ValueError, match="prompt_tokens must be at least"):
        workload_prompts(loaded.tokenizer, dataclasses.replace(WORKLOAD, prompt_tokens=64), 0)


def test_a_run_counts_tokens_steps_and_blocks(loaded: LoadedEngine) -> None:
    told: list[tuple[int, int]] = []
    prompts = workload_prompts(loaded.tokenizer, WORKLOAD, 0)
    timing = run_prompts(loaded, prompts, WORKLOAD, 0, lambda done, total: told.append((done, total)))
    assert told[-1] == (30, 30) and told == sorted(told)
    assert 0 < timing.first_token_s <= timing.all_begun_s < timing.seconds
    assert 0 < timing.num_decoded <= 6 * 4
    assert sum(timing.decode_step_s) == pytest.approx(timing.seconds - timing.all_begun_s)
    shared, own = 150 // BLOCK_SIZE, 1  # 154 tokens are computed: nine full blocks of the prompt, one of one's own
    assert timing.kv_blocks <= 2 * (shared + 3 * own)
    assert timing.kv_blocks >= 2 * shared
    loaded.engine.check_integrity()
    assert not loaded.engine.has_work


def test_an_interrupt_leaves_an_idle_engine(loaded: LoadedEngine) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    prompts = workload_prompts(loaded.tokenizer, WORKLOAD, 1)
    with pytest.raises(KeyboardInterrupt):
        run_prompts(loaded, prompts, WORKLOAD, 0, interrupt)
    assert not loaded.engine.has_work
    loaded.engine.check_integrity()


def test_an_attempt_that_ends_early_voids_the_measurement(loaded: LoadedEngine) -> None:
    workload = Workload(attempts=1, prompt_tokens=250, new_tokens=16)
    with pytest.raises(EngineError, match=r"ended \(length\) after 6 of 16 tokens"):
        run_prompts(loaded, workload_prompts(loaded.tokenizer, workload, 2), workload, 0)


def test_figures_are_medians_of_what_was_timed() -> None:
    workload = Workload(attempts=4, prompt_tokens=64, new_tokens=10)
    steps = tuple(0.1 * n for n in range(1, 10))
    timings = [Timing(seconds, 0.5, 1.0, 36, steps, kv_blocks=12) for seconds in (3.0, 5.0, 9.0)]
    work = StepWork(num_weights=10**9, weight_bytes=5 * 10**8, kv_block_bytes=1000, kind="int4")
    figures = summarise(workload, timings, work)
    assert figures.repeats == 3
    assert figures.tokens_per_s == pytest.approx(40 / 5)
    assert figures.decode_tokens_per_s == pytest.approx(36 / 4)
    assert (figures.step_s, figures.step_p95_s) == (pytest.approx(0.5), pytest.approx(0.9))
    assert figures.kv_bytes_per_attempt == 12 * 1000 / 4
    assert figures.weight_gb_per_s == pytest.approx(0.5 / 0.5)
    assert figures.gop_per_s == pytest.approx(2 * 4 / 0.5)


def test_the_work_of_a_step_is_that_of_the_tensors(loaded: LoadedEngine, tiny: TinyModel) -> None:
    runner = loaded.engine.runner
    work = StepWork.of(runner.model, runner.cache)
    state = tiny.model.state_dict()
    products = [t for name, t in state.items() if t.ndim == 2 and "embed_tokens" not in name]
    others = [t for name, t in state.items() if t.ndim == 1]
    assert work.num_weights == num_product_weights(loaded.config) == sum(t.numel() for t in products)
    assert work.weight_bytes == 4 * sum(t.numel() for t in [*products, *others])
    assert work.kv_block_bytes == 2 * 3 * 2 * 32 * BLOCK_SIZE * 4


def test_the_roofline_is_the_slower_of_reading_and_multiplying() -> None:
    work = StepWork(num_weights=10**9, weight_bytes=10**9, kv_block_bytes=1, kind="int8")
    ceilings = Ceilings(read_gb_per_s=10.0, peak_gop_per_s=200.0)
    assert ceilings.step_s(work, 1) == pytest.approx(0.1)
    assert ceilings.step_s(work, 30) == pytest.approx(0.3)
    assert Ceilings(10.0, None).step_s(work, 30) == pytest.approx(0.1)


@pytest.mark.parametrize("num_at_once", [1, 7, 128])
def test_the_logits_of_a_text_are_those_of_transformers(
    loaded: LoadedEngine, tiny: TinyModel, num_at_once: int
) -> None:
    ids = loaded.tokenizer.encode("Let a + b = 12, then the area is 36.")
    found = torch.cat(list(text_logits(loaded.engine.runner.model, torch.float32, ids, num_at_once)))
    torch.testing.assert_close(found, tiny.next_logits(ids), atol=2e-4, rtol=1e-4)


def test_text_logits_needs_a_text(loaded: LoadedEngine) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        next(text_logits(loaded.engine.runner.model, torch.float32, []))


def test_a_start_is_timed_to_its_first_token(tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATHLETE_NATIVE", "0")  # compiling them would be timed too

    config = EngineConfig(precision="fp32", max_model_len=512, num_threads=1, kv_cache_bytes=1 << 22)
    converted: list[str] = []
    cold = time_start(tiny.folder, tmp_path, config, lambda what, done, total: converted.append(what))
    assert converted and 0 < cold.load_s < cold.first_token_s
    warm = time_start(tiny.folder, tmp_path, config, lambda what, done, total: pytest.fail(what))
    assert 0 < warm.load_s < warm.first_token_s
