"""gpt-oss's turns around vLLM's engine in process, over a stand-in for it whose model speaks Harmony."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pytest
from fake_vllm import FakeEngine
from harmony_stand_in import StandInTokens, ids_of, mathematician, written_of
from rich.console import Console

from mathlete.compose import LoadedGenerator
from mathlete.core.generation import Finished, GenerateRequest, Message, SamplingParams
from mathlete.core.problem import Problem
from mathlete.generators.harmony import Harmony
from mathlete.generators.vllm_generator import VLLMFacts, VLLMGenerator
from mathlete.generators.vllm_turns import FormatTurns
from mathlete.lab.tasks import Task
from mathlete.run_config import RunConfig
from mathlete.session.run_session import start_run

TOKENS = StandInTokens()


@dataclass
class Speaker:
    """A model that says what `speaks` says behind a prompt, token by token."""

    speaks: Callable[[str], str]
    _prompt: list[int] = field(default_factory=list)
    _said: list[int] = field(default_factory=list)

    def __call__(self, known: Sequence[int]) -> list[int]:
        behind = list(known[len(self._prompt) :])
        is_same = list(known[: len(self._prompt)]) == self._prompt and self._said[: len(behind)] == behind
        if not self._prompt or not is_same or len(behind) >= len(self._said):
            self._prompt, behind = list(known), []
            self._said = ids_of(TOKENS, self.speaks(written_of(TOKENS, known)))
        return [self._said[len(behind)], *range(300, 319)]


def generator_of(speaks: Callable[[str], str], per_step: int) -> tuple[VLLMGenerator, FakeEngine]:
    engine = FakeEngine(Speaker(speaks), per_step, max_model_len=100_000)
    return VLLMGenerator(engine, FormatTurns(Harmony(TOKENS)), VLLMFacts()), engine


@pytest.mark.parametrize("per_step", [1, 7])
def test_a_problem_is_solved_with_two_programs(per_step: int, tmp_path: Path) -> None:
    generator, engine = generator_of(mathematician, per_step)
    config = RunConfig("evaluate", None, "gpt-oss-fake", 60.0, attempts=1, max_tokens=800, temperature=0.0)
    task = Task(Problem("p", "What is twice six times seven?"), "84", "p")
    loaded = LoadedGenerator(generator, "fake")
    result = start_run(config, [task], tmp_path, Console(file=StringIO()), load=lambda *_: loaded)
    (attempt,) = result.record.problems["p"].attempts
    assert (attempt.answer, attempt.failure) == ("84", None)
    assert [turn.result.stdout if turn.result else None for turn in attempt.turns] == ["42\n", "84\n", None]
    assert attempt.num_tokens == sum(len(turn.logprobs) for turn in attempt.turns)
    first, second, third = (segment for segment, _ in engine.asked)
    assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids
    assert third.prompt_ids[: len(second.prompt_ids)] == second.prompt_ids


@pytest.mark.parametrize("per_step", [1, 7])
def test_what_is_put_in_is_drawn_as_forced_tokens(per_step: int) -> None:
    def thinker(prompt: str) -> str:
        if prompt.endswith("<|channel|>final<|message|>"):
            return "\\boxed{7}<|return|>"
        if "to=assistant" in prompt:
            return "<|channel|>analysis<|message|>" + "on and on " * 50
        return "<|channel|>commentary to=browser.search<|message|>seven<|call|>"

    generator, _ = generator_of(thinker, per_step)
    sampling = SamplingParams(temperature=0.0, max_tokens=400, stop=("```\n",), thinking_budget=10)
    generator.submit(GenerateRequest("a", (Message("user", "How many?"),), sampling))
    events = [event for _ in range(600) for event in generator.events(0.0)]
    assert isinstance(events[-1], Finished)
    done = events[-1].completion
    told = "[call of browser.search, which is no tool here]\nseven"
    assert done.text == f"<think>\n{told}\n</think>\n\n<think>\non and on \n</think>\n\n\\boxed{{7}}"
    assert done.finish_reason == "stop" and done.usage.forced > 10
    assert len(done.logprobs) == len(done.token_ids) == done.usage.output
