"""The embedded engine in a process of its own, killed in the middle: the same tokens as without."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from mathlete.core.generation import Completion, Finished, GenerateRequest, Message, SamplingParams
from mathlete.core.problem import AnswerKind
from mathlete.generators.child import ChildGenerator
from mathlete.model_store.progress import Progress
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.vocabulary import Vocabulary
from mathlete.run_config import EngineSpec, RunConfig
from mathlete.session.engine_loading import load_engine

pytestmark = [pytest.mark.model, pytest.mark.slow]

CHAT = (Message("user", "Janet has 3 boxes of 12 pencils and gives away 7. How many are left?"),)


def requests(vocabulary: Vocabulary, turn_start: str) -> list[GenerateRequest]:
    """Four siblings, one of them under constraints."""
    constraint = build_constraint(ConstraintSpec(), vocabulary, AnswerKind("integer", 0, 999), turn_start)
    sampling = [SamplingParams(temperature=0.8, max_tokens=48, seed=seed) for seed in range(4)]
    return [
        GenerateRequest(f"a{i}", CHAT, one, group="g", constraint=constraint if i == 3 else None)
        for i, one in enumerate(sampling)
    ]


def finish(generator: ChildGenerator, asked: list[GenerateRequest], kill_at: int | None) -> dict[str, Completion]:
    finished: dict[str, Completion] = {}
    num_told = 0
    for request in asked:
        generator.submit(request)
    end_s = time.monotonic() + 120
    while len(finished) < len(asked):
        assert time.monotonic() < end_s
        for event in generator.events(0.05):
            if isinstance(event, Finished):
                finished[event.request_id] = event.completion
            else:
                num_told += 1
        if kill_at is not None and num_told >= kill_at and generator.pid is not None:
            os.kill(generator.pid, signal.SIGKILL)
            kill_at = None
    return finished


def test_killed_in_the_middle_it_says_the_same(small_model_path: Path) -> None:
    config = RunConfig("evaluate", None, "unused", 600.0, max_tokens=64, max_in_flight=4, threads=1)
    spec = EngineSpec("small", "ryanstream", str(small_model_path), own_process=True)
    told: list[Progress] = []
    loaded = load_engine(spec, config, told.append)
    try:
        generator = loaded.generator
        assert isinstance(generator, ChildGenerator)
        assert loaded.tokens_per_s and loaded.description.endswith("in a process of its own")
        vocabulary = Vocabulary(loaded.vocabulary, loaded.eos_token_ids)
        whole = finish(generator, requests(vocabulary, loaded.turn_start), None)
        broken = finish(generator, requests(vocabulary, loaded.turn_start), 60)
        assert len(loaded.take_warnings()) == 1
        for name, done in whole.items():
            again = broken[name]
            assert (again.token_ids, again.text) == (done.token_ids, done.text), name
            assert again.logprobs == pytest.approx(done.logprobs)
        assert sum(done.usage.discarded for done in broken.values()) >= 60
    finally:
        loaded.close()
    assert generator.pid is None
