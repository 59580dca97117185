"""Greedy output and logprobs of the engine against transformers, on small random models in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from driving import drive, greedy, load, run_all
from tiny_qwen import TinyModel

from mathlete.ryanstream.checkpoint.convert import open_source

NEW_TOKENS = 20
LENGTHS = (1, 5, 15, 16, 17, 33, 48, 70)
# float32 sums in another order; measured: 4e-6
LOGPROB_TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    noise = torch.Generator().manual_seed(1)
    return [torch.randint(0, 260, (length,), generator=noise).tolist() for length in LENGTHS]


@pytest.fixture(scope="module", params=["tiny", "tiny_tied"])
def model(request: pytest.FixtureRequest) -> TinyModel:
    chosen: TinyModel = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="module")
def expected(model: TinyModel, prompts: list[list[int]]) -> list[list[int]]:
    return [_greedy_of_transformers(model, prompt) for prompt in prompts]


def _greedy_of_transformers(tiny: TinyModel, prompt: list[int]) -> list[int]:
    """Without a cache and without `generate`: the whole text anew for each token."""
    ids = list(prompt)
    while len(ids) < len(prompt) + NEW_TOKENS:
        ids.append(int(tiny.next_logits(ids)[-1].argmax()))
        if ids[-1] == tiny.model.config.eos_token_id:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_step_tokens": 7},
        {"max_step_tokens": 1},
        {"max_running": 2},
        {"num_blocks": 9},
    ],
    ids=["at once", "chunks of 7", "one token a step", "two at a time", "few blocks"],
)
def test_greedy_equals_transformers(
    model: TinyModel, prompts: list[list[int]], expected: list[list[int]], limits: dict[str, int], engine_cache: Path
) -> None:
    loaded = load(model.folder, engine_cache, precision="fp32", **limits)
    ended = run_all(loaded.engine, prompts, [greedy(NEW_TOKENS)] * len(prompts))
    assert [ended.ids(str(i)) for i in range(len(prompts))] == expected
    assert (ended.num_preempted > 0) == ("num_blocks" in limits)


def test_the_random_model_says_different_things(expected: list[list[int]]) -> None:
    """A model that repeats one token would make the comparison empty."""
    assert len({tuple(ids) for ids in expected}) == len(expected)
    assert sum(len(set(ids)) for ids in expected) > sum(len(ids) for ids in expected) / 3


def test_siblings_equal_single_runs(model: TinyModel, prompts: list[list[int]], engine_cache: Path) -> None:
    """Six requests with a common prefix of 70 tokens and tails of their own."""
    tails = [prompts[5][:i] for i in range(6)]
    together = load(model.folder, engine_cache, precision="fp32").engine
    ended = run_all(together, [prompts[-1] + tail for tail in tails], [greedy(NEW_TOKENS)] * 6)
    assert [ended.outputs[str(i)].request.num_cached for i in range(6)] == [0, 64, 64, 64, 64, 64]
    for i, tail in enumerate(tails):
        assert ended.ids(str(i)) == _greedy_of_transformers(model, prompts[-1] + tail)


def test_a_second_turn_continues_from_the_cache(model: TinyModel, engine_cache: Path) -> None:
    engine = load(model.folder, engine_cache, precision="fp32").engine
    first = run_all(engine, [list(range(30))], [greedy(20)])
    prompt = [*range(30), *first.ids("0"), 65, 66]
    engine.add("next", prompt, greedy(8))
    second = drive(engine)
    assert second.outputs["next"].request.num_cached == 48
    assert second.ids("next") == _greedy_of_transformers(model, prompt)[:8]


def test_logprobs_and_entropies(model: TinyModel, prompts: list[list[int]], engine_cache: Path) -> None:
    """Of every drawn token, against log_softmax of transformers' logits over the whole text."""
    ended = run_all(
        load(model.folder, engine_cache, precision="fp32").engine, prompts, [greedy(NEW_TOKENS)] * len(prompts)
    )
    for i, prompt in enumerate(prompts):
        request = ended.outputs[str(i)].request
        logits = model.next_logits([*prompt, *request.output_ids])[len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1)
        chosen = logprobs.gather(1, torch.tensor(request.output_ids)[:, None]).squeeze(1)
        entropies = -(logprobs.exp() * logprobs).sum(-1)
        torch.testing.assert_close(torch.tensor(request.logprobs), chosen, atol=LOGPROB_TOLERANCE, rtol=0)
        torch.testing.assert_close(torch.tensor(request.entropies), entropies, atol=LOGPROB_TOLERANCE, rtol=0)


def test_the_tied_model_is_sharded(tiny_tied: TinyModel) -> None:
    assert len(list(tiny_tied.folder.glob("*.safetensors"))) > 2
    source = open_source(tiny_tied.folder)
    for name, tensor in tiny_tied.model.state_dict().items():
        if name != "lm_head.weight":
            assert torch.equal(source.read(name), tensor), name
