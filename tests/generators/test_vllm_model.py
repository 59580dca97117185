"""The 0.5B model under vLLM in bf16, as a run is wired: engine by `compose`, chats, programs' stops, constraints."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mathlete.compose import LoadedGenerator, build_constraints, build_engine
from mathlete.core.generation import Completion, Finished, GenerateRequest, Message, SamplingParams, Span
from mathlete.core.problem import AnswerKind, Problem
from mathlete.run_config import EngineSpec, RunConfig

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of vLLM's own making
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: `make test-vllm`"),
]
PROBLEM = Problem("sum", "What is 17 + 25?", AnswerKind("integer", 0, 999))


@pytest.fixture(scope="module")
def spec(small_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    folder = tmp_path_factory.mktemp("hf")
    script = Path(__file__).parents[2] / "benchmarks" / "hf_folder.py"
    subprocess.run([sys.executable, str(script), str(small_model_path), str(folder)], check=True, capture_output=True)
    settings = {"dtype": "bfloat16", "enforce_eager": True, "kv_cache_memory_bytes": 1 << 29}
    return EngineSpec("main", "vllm", str(folder), settings=settings)


@pytest.fixture(scope="module")
def config(spec: EngineSpec) -> RunConfig:
    return RunConfig(
        "solve", None, spec.model, 60.0, max_tokens=256, max_in_flight=4, constraints=True, engines=(spec,)
    )


@pytest.fixture(scope="module")
def loaded(spec: EngineSpec, config: RunConfig) -> Iterator[LoadedGenerator]:
    engine = build_engine(spec, config)
    yield engine
    engine.close()


def answer(loaded: LoadedGenerator, request: GenerateRequest) -> Completion:
    loaded.generator.submit(request)
    for _ in range(600):
        for event in loaded.generator.events(1.0):
            if isinstance(event, Finished):
                return event.completion
    raise AssertionError("it never ended")


def test_a_chat_is_answered(loaded: LoadedGenerator, small_model_path: Path) -> None:
    from mathlete.generators.chat_format import chat_ids
    from mathlete.ryanstream.checkpoint.gguf_source import GGUFSource
    from mathlete.ryanstream.model.tokenizer import EngineTokenizer

    chat = (Message("system", "You are a calculator."), Message("user", PROBLEM.statement))
    done = answer(loaded, GenerateRequest("a", chat, SamplingParams(temperature=0.0, max_tokens=40)))
    assert "42" in done.text and (done.finish_reason, done.stop) == ("stop", None)
    spec = GGUFSource(small_model_path).tokenizer()
    tokenizer = EngineTokenizer(spec.tokenizer_json, spec.control_tokens, spec.eos_token_ids, spec.spoken_ids)
    assert done.usage.prompt == len(chat_ids(tokenizer, chat))
    assert tokenizer.decode(done.token_ids) == done.text and loaded.eos_token_ids == spec.eos_token_ids
    assert len(done.top_means) == len(done.logprobs) == done.usage.output and done.entropies == ()
    assert loaded.tokens_per_s is not None and loaded.tokens_per_s > 0
    assert any("seed" in warning for warning in loaded.warnings) and not loaded.capabilities.seeds


def test_a_program_is_stopped_at_its_fence_and_its_output_read(loaded: LoadedGenerator) -> None:
    chat = (Message("user", f"Write Python that prints the answer, in a ```python block. {PROBLEM.statement}"),)
    sampling = SamplingParams(temperature=0.0, max_tokens=120, stop=("```output", "\n```"))
    begun = Span("```python\n")
    first = answer(loaded, GenerateRequest("a", chat, sampling, (begun,)))
    assert first.stop == "\n```" and first.text.endswith("\n```") and "17" in first.text
    spans = (begun, Span(first.text, first.token_ids), Span("\n```output\n42\n```\nThe answer is \\boxed{"))
    second = answer(loaded, GenerateRequest("b", chat, sampling, spans))
    assert "42" in second.text


def test_constraints_of_a_run_are_kept_to(loaded: LoadedGenerator, config: RunConfig) -> None:
    constraints = build_constraints(config, loaded)
    assert constraints is not None
    chat, begun = (Message("user", "Say hello, in words only."),), "Hello: \\boxed{"
    for seed in range(3):
        request = GenerateRequest(
            f"c{seed}", chat, SamplingParams(temperature=1.5, max_tokens=12, seed=seed), (Span(begun),),
            constraint=constraints(PROBLEM, begun),
        )  # fmt: skip
        done = answer(loaded, request)
        inside = done.text.partition("}")[0].strip()
        assert done.error is None and inside.isdigit() and int(inside) <= 999, done.text
