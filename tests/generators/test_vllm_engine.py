"""The `vllm` generator inside vLLM, on a small random model, beside the embedded engine. Run by `make test-vllm`."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mathlete.core.errors import EngineError
from mathlete.core.generation import Completion, Finished, GenerateRequest, Message, SamplingParams, Span
from mathlete.core.protocols import Generator

if TYPE_CHECKING:
    from mathlete.generators.vllm import VLLMGenerator

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of vLLM's own making
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: `make test-vllm`"),
]
CHAT = (Message("system", "Answer briefly."), Message("user", "Count from 1 to 30, with commas between the numbers."))
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2, "prompt_lookup_min": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_vllm import make_folder

    made = tmp_path_factory.mktemp("tiny")
    make_folder(made)
    return made


@pytest.fixture(scope="module")
def generator(folder: Path) -> Iterator[VLLMGenerator]:
    from tiny_vllm import load_tiny

    loaded = load_tiny(folder, max_num_seqs=2)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def embedded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    from driving import load

    from mathlete.generators.ryanstream import RyanStreamGenerator

    cache = tmp_path_factory.mktemp("engines")
    return RyanStreamGenerator(load(folder, cache, num_blocks=640, precision="fp32", max_model_len=512, max_running=8))


def ask(name: str = "a", continuation: tuple[Span, ...] = (), priority: int = 0, **sampling: Any) -> GenerateRequest:
    params = SamplingParams(**{"temperature": 0.0, "max_tokens": 40, **sampling})
    return GenerateRequest(name, CHAT, params, continuation, priority=priority)


def ends(generator: Generator, num: int) -> dict[str, Completion]:
    done: dict[str, Completion] = {}
    for _ in range(3000):
        for event in generator.events(0.1):
            if isinstance(event, Finished):
                done[event.request_id] = event.completion
        if len(done) == num:
            return done
    raise AssertionError(f"only {len(done)} of {num} ended")


def answers(generator: Generator, *requests: GenerateRequest) -> dict[str, Completion]:
    for request in requests:
        generator.submit(request)
    return ends(generator, len(requests))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"max_model_len": 1_000_000}, "max_model_len"),
        ({"kv_cache_memory_bytes": 4096}, "not enough memory.*mathlete plan"),
        ({"quantization": "no-such"}, "could not load"),
    ],
)
def test_what_vllm_refuses_is_told_at_once(folder: Path, settings: dict[str, Any], complaint: str) -> None:
    from tiny_vllm import load_tiny

    with pytest.raises(EngineError, match=complaint):
        load_tiny(folder, **settings)


def test_it_says_what_the_embedded_engine_says(generator: VLLMGenerator, embedded: Generator) -> None:
    """Greedy, on the same weights in float32: ids, log-probabilities, stop strings and thinking closed in time."""
    text = answers(embedded, ask())["a"].text
    at = next(i for i in range(8, 30) if "\ufffd" not in text[i : i + 3] and text.index(text[i : i + 3]) == i)
    cases = [
        ask("whole", num_logprobs=4),
        ask("stop", stop=("never", text[at : at + 3])),
        ask("cut", stop=(text[at : at + 3],), include_stop=False),
        ask("thinking", (Span("<think>\nSo"),), thinking_budget=7),
        ask("closed at once", (Span("<think>\nSo"),), thinking_budget=0),
        ask("closed by a stop", (Span("<think>"),), thinking_budget=3, stop=("</think>",)),
        ask("short", max_tokens=2),
        ask("no end", ignore_eos=True, stop_token_ids=(5,)),
    ]
    one, other = answers(generator, *cases), answers(embedded, *cases)
    for name, ours in other.items():
        theirs = one[name]
        assert (theirs.token_ids, theirs.text) == (ours.token_ids, ours.text), name
        assert (theirs.finish_reason, theirs.stop) == (ours.finish_reason, ours.stop), name
        assert (theirs.usage.prompt, theirs.usage.forced) == (ours.usage.prompt, ours.usage.forced), name
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=2e-3), name
        assert theirs.top_means == pytest.approx(ours.top_means, abs=2e-3), name
        assert theirs.entropies == ()
    for theirs, ours in zip(one["whole"].top_logprobs, other["whole"].top_logprobs, strict=True):
        assert [top.logprob for top in theirs] == pytest.approx([top.logprob for top in ours], abs=2e-3)


def test_log_probabilities_are_those_before_temperature_and_filters(generator: VLLMGenerator) -> None:
    cold = answers(generator, ask(num_logprobs=1))["a"]
    hot = answers(generator, ask(temperature=1.7, top_k=1, top_p=0.3, min_p=0.9))["a"]
    assert hot.token_ids == cold.token_ids and hot.logprobs == pytest.approx(cold.logprobs, abs=1e-3)


def test_what_siblings_share_is_computed_once_and_going_back_is_cheap(generator: VLLMGenerator) -> None:
    long = Message("user", "How many primes are there below one hundred? " * 6)
    request = GenerateRequest("a", (long,), SamplingParams(temperature=0.0, max_tokens=30))
    first = answers(generator, request)["a"].usage
    again = answers(generator, request)["a"].usage
    assert first.prompt > 130 and again.cached >= 128, (first, again)
    generator.submit(request)
    while generator._running["a"].num_output < 10:
        list(generator.events(0.1))
    generator.rewind("a", 4, request.sampling)
    done = ends(generator, 1)["a"]
    assert done.usage.discarded >= 6 and done.usage.cached >= 128


def test_lower_priorities_go_first(generator: VLLMGenerator) -> None:
    """Two run at once here: what waits is taken in the order of its priority, whatever came first."""
    for place, priority in enumerate((0, 0, 7, 3, -1)):
        generator.submit(ask(str(place), max_tokens=12, priority=priority))
    order: list[str] = []
    while len(order) < 5:
        order += [event.request_id for event in generator.events(0.1) if isinstance(event, Finished)]
    assert order.index("4") < order.index("3") < order.index("2")


def test_speed_is_measured(generator: VLLMGenerator) -> None:
    assert generator.measure_speed(2) > 1


def test_a_second_engine_needs_a_process_of_its_own(folder: Path, generator: VLLMGenerator) -> None:
    from tiny_vllm import load_tiny

    with pytest.raises(EngineError, match="own_process"):
        load_tiny(folder)
    assert answers(generator, ask(max_tokens=3))["a"].usage.output == 3


def test_guessing_changes_no_word_and_refuses_what_would_be_wrong(folder: Path, generator: VLLMGenerator) -> None:
    from tiny_vllm import load_tiny

    chat = (Message("user", "one two three one two three one two three"),)
    request = GenerateRequest("a", chat, SamplingParams(temperature=0.0, max_tokens=48, seed=3))
    plain, stop = answers(generator, request)["a"], answers(generator, ask())["a"].text[6:9]
    thinking, stopping = ask(continuation=(Span("<think>"),), thinking_budget=5), ask(stop=(stop,))
    closed, stopped = answers(generator, thinking)["a"], answers(generator, stopping)["a"]
    generator.close()  # one at a time in a process
    with pytest.raises(EngineError, match="no constraints? while it guesses"):
        load_tiny(folder, constraints=True, speculative_config=NGRAM)
    guessing = load_tiny(folder, speculative_config=NGRAM)
    try:
        done = answers(guessing, request)["a"]
        assert done.token_ids == plain.token_ids
        if guessing.capabilities.logprobs:
            assert done.logprobs == pytest.approx(plain.logprobs, abs=5e-3)
        else:
            assert done.logprobs == () and any("log-probabilities" in warning for warning in guessing.warnings)
        assert done.usage.drafted > 0 and guessing.guesses() is not None
        assert not guessing.capabilities.top_k
        with pytest.raises(EngineError, match="min_p"):
            guessing.submit(ask(min_p=0.1))
        again = answers(guessing, thinking)["a"]
        assert again.token_ids == closed.token_ids and again.usage.forced == closed.usage.forced > 0
        assert answers(guessing, stopping)["a"].text == stopped.text
    finally:
        guessing.close()


@pytest.mark.parametrize("what", ["interrupt", "kill"])
def test_interrupts_and_dead_workers(folder: Path, what: str) -> None:
    """In a session of its own, with a worker in a process of its own, as on several GPUs.

    "interrupt": Ctrl-C, which reaches all processes, changes nothing. "kill": the worker dies, and it is told.
    """
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "vllm_worker_child.py"), str(folder), what],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    assert child.returncode == 0, err[-4000:]
    told = json.loads(out)  # nothing else stands on stdout
    assert told["left_behind"] == [] and told["num_workers"] >= 1
    if what == "interrupt":
        assert told["reasons"] == {"a": "length", "b": "length"} and told["interrupts"] == 1
    else:
        assert told["reasons"] == {"a": "error", "b": "error"} and "has died" in told["error"]
        assert "has died" in told["refused"] and told["num_tokens"] > 0
