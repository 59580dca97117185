"""Same request, same seed: the same tokens, logprobs and entropies, bit for bit, in any company."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from driving import drive, load
from tiny_qwen import TinyModel
from token_walk import TokenWalk, looping

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.thinking import ThinkingTokens

THINKING = ThinkingTokens((280,), (281,), (20, 281, 21))
DIGITS = range(15, 25)


class Told(NamedTuple):
    """Everything that is told of a request's tokens."""

    ids: list[int]
    logprobs: list[float]
    entropies: list[float]
    top_means: list[float]
    top: list[object]


def told(request: EngineRequest) -> Told:
    top = [tuple(place) for place in request.top_logprobs]
    return Told(request.output_ids, request.logprobs, request.entropies, request.top_means, [*top])


def prompt_of(name: int) -> list[int]:
    """Siblings share long prompts; others have their own."""
    return [3 + name % 2] * 37 if name < 4 else [100 + name, *range(name, 20 + name), 280]


def add(engine: Engine, name: int) -> None:
    """One of eight requests: siblings, a constrained one, two that think, greedy, filters, top logprobs."""
    params = SamplingParams(
        temperature=0.0 if name == 4 else 1.0 + name / 10,
        top_p=0.9 if name % 3 == 0 else 1.0,
        min_p=0.01 if name == 5 else 0.0,
        max_tokens=24,
        seed=name,
        ignore_eos=True,
        num_logprobs=(0, 5, 20)[name % 3],
        thinking_budget=5 if name in (6, 7) else None,
    )
    held = TokenWalk(looping(DIGITS)) if name in (2, 5) else None
    engine.add(str(name), prompt_of(name), params, constraint=held, thinking=THINKING)


@pytest.fixture
def make(tiny_wide: TinyModel, engine_cache: Path, kernels: NativeKernels) -> Callable[..., Engine]:
    def made(num_blocks: int = 64, **config: object) -> Engine:
        if config["precision"] == "bf16" and not kernels.has_bf16:
            pytest.skip("this processor lacks avx512_bf16")
        loaded = load(tiny_wide.folder, engine_cache, num_blocks, **config)
        assert loaded.kernels == "native"
        return loaded.engine

    return made


def alone(engine: Engine) -> dict[str, Told]:
    """Each request with nobody else in the engine."""
    found = {}
    for name in range(8):
        add(engine, name)
        found[str(name)] = told(drive(engine).outputs[str(name)].request)
    return found


def in_company(engine: Engine, noise: random.Random) -> tuple[dict[str, Told], int]:
    """The same requests at random times among neighbours that come, go first and are aborted; how many were put
    aside on the way."""  # noqa: D205, D209
    found: dict[str, Told] = {}
    todo, num_neighbours, num_preempted = [*range(8)], 0, 0
    noise.shuffle(todo)
    while todo or engine.num_unfinished:
        while todo and noise.random() < 0.5:
            add(engine, todo.pop())
        if num_neighbours < 40 and noise.random() < 0.5:
            prompt = prompt_of(noise.randrange(8))[: noise.randint(1, 37)]
            params = SamplingParams(temperature=2.0, max_tokens=noise.randint(1, 30), seed=noise.randrange(99))
            held = TokenWalk(looping(range(200))) if noise.random() < 0.3 else None
            engine.add(f"x{num_neighbours}", prompt, params, priority=-1, constraint=held)
            num_neighbours += 1
        if num_neighbours and noise.random() < 0.1:
            engine.abort(request_id=f"x{noise.randrange(num_neighbours)}")
        if noise.random() < 0.05:
            for request in list(engine._scheduler.running):
                engine._scheduler._preempt(request)
                num_preempted += request.request_id.isdigit()
        if engine.has_work:
            for output in engine.step():
                if output.end is not None and output.request.request_id.isdigit():
                    assert output.end.reason == "length"
                    found[output.request.request_id] = told(output.request)
    engine.check_integrity()
    return found, num_preempted


@pytest.mark.parametrize(
    "config",
    [
        {"precision": "w8a8"},
        {"precision": "nf4"},
        {"precision": "w8a8", "kv_cache_dtype": "int8"},
        {"precision": "int4"},
        {"precision": "bf16"},
    ],
    ids=lambda config: "-".join(map(str, config.values())),
)
def test_any_company_gives_the_same(make: Callable[..., Engine], config: dict[str, object]) -> None:
    expected = alone(make(**config))
    assert all(len(found.ids) == 24 for found in expected.values())
    assert set(expected["2"].ids) <= set(DIGITS) and 281 in expected["6"].ids
    num_preempted = 0
    tight = {"num_blocks": 5}
    for seed, limits in enumerate([{}, {"max_running": 5}, {"max_step_tokens": 11}, tight]):
        found, preempted = in_company(make(**config, **limits), random.Random(seed))
        assert found == expected, f"company {seed} changed something"
        num_preempted += preempted
    assert num_preempted > 0, "some were put aside on the way"
