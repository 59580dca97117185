"""What is told of every token beside its id, against the same model in transformers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from driving import drive, load
from tiny_qwen import TinyModel, control_tokens

from mathlete.core.generation import MAX_LOGPROBS, Finished, GenerateRequest, Message, SamplingParams, TokenLogprob
from mathlete.generators.ryanstream import RyanStreamGenerator
from mathlete.ryanstream.model.native.kernels import NUM_LIKELIEST
from mathlete.ryanstream.runner import SampledToken
from mathlete.ryanstream.scheduler import StepPlan

PROMPTS = {"none": [40, 41, 42], "three": [43, 44], "all": [45, 46, 47, 48]}
ASKED = {"none": 0, "three": 3, "all": 20}


def test_every_value_is_the_models_own(tiny: TinyModel, engine_cache: Path) -> None:
    engine = load(tiny.folder, engine_cache, precision="fp32").engine
    execute, tokens = engine._runner.execute, dict[str, list[SampledToken]]()

    def listening(plan: StepPlan) -> list[tuple[SampledToken, ...]]:
        drawn = execute(plan)
        for entry, token in zip(plan.entries, drawn, strict=True):
            tokens.setdefault(entry.request.request_id, []).extend(token)
        return drawn

    engine._runner.execute = listening  # type: ignore[method-assign]
    for name, prompt in PROMPTS.items():
        params = SamplingParams(1.0, 1.0, max_tokens=9, seed=4, ignore_eos=True, num_logprobs=ASKED[name])
        engine.add(name, prompt, params)
    ended = drive(engine)
    for name, prompt in PROMPTS.items():
        request = ended.outputs[name].request
        own = tiny.next_logits([*prompt, *request.output_ids])[len(prompt) - 1 : -1].log_softmax(-1)
        likeliest = own.topk(20)
        for place, token in enumerate(tokens[name]):
            assert token.token_id == request.output_ids[place]
            assert token.logprob == pytest.approx(float(own[place, token.token_id]), abs=1e-4)
            assert token.entropy == pytest.approx(float(-(own[place].exp() * own[place]).sum()), abs=1e-4)
            ends = [float(own[place, i]) for i in engine._runner._eos_token_ids]
            assert token.eos_logprob == pytest.approx(float(torch.tensor(ends).logsumexp(0)), abs=1e-4)
            assert token.top_mean == pytest.approx(float(likeliest.values[place].mean()), abs=1e-4)
            assert [top.token_id for top in token.top] == likeliest.indices[place, : ASKED[name]].tolist()
        assert request.top_means == [token.top_mean for token in tokens[name]]
        assert request.top_logprobs == ([token.top for token in tokens[name]] if ASKED[name] else [])
    assert control_tokens()["<|im_end|>"] in engine._runner._eos_token_ids
    assert NUM_LIKELIEST == MAX_LOGPROBS


def test_the_completion_tells_it_and_is_json(tiny: TinyModel, engine_cache: Path) -> None:
    generator = RyanStreamGenerator(load(tiny.folder, engine_cache, precision="fp32"))
    for name, asked in (("a", 2), ("b", 0)):
        sampling = SamplingParams(max_tokens=5, ignore_eos=True, num_logprobs=asked)
        generator.submit(GenerateRequest(name, (Message("user", "?"),), sampling))
    ends = {e.request_id: e.completion for _ in range(9) for e in generator.events(0.0) if isinstance(e, Finished)}
    assert ends["b"].top_logprobs == () and len(ends["b"].top_means) == 5
    top = ends["a"].top_logprobs
    assert [len(place) for place in top] == [2] * 5 and all(isinstance(t, TokenLogprob) for place in top for t in place)
    assert all(first.logprob >= second.logprob for first, second in top)
    written = json.loads(json.dumps(asdict(ends["a"]), allow_nan=False))
    assert written["top_logprobs"][0][0] == list(top[0][0]) and written["usage"]["forced"] == 0
