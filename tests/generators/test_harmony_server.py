"""The code pillar over a server whose model speaks Harmony, from problem to answer; and what may happen on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from fake_harmony_server import MODEL, FakeHarmonyServer
from harmony_stand_in import StandInTokens, mathematician, real_tokens, written_of
from rich.console import Console

from mathlete import compose
from mathlete.core.errors import EngineError
from mathlete.core.generation import Completion, Finished, GenerateRequest, Message, SamplingParams, TokenChunk
from mathlete.core.problem import Problem
from mathlete.generators.harmony import Harmony
from mathlete.generators.harmony_tokens import HarmonyTokens
from mathlete.generators.openai_server import ServerGenerator, connect
from mathlete.generators.server_settings import ServerSettings
from mathlete.generators.turn_formats import TurnSettings
from mathlete.lab.tasks import Task
from mathlete.run_config import EngineSpec, RunConfig
from mathlete.session.run_session import start_run

ASKED = GenerateRequest("a", (Message("user", "How many?"),), SamplingParams(max_tokens=400, stop=("```\n",)))


@pytest.fixture(params=["stand-in", "gpt-oss"])
def tokens(request: pytest.FixtureRequest) -> HarmonyTokens:
    return StandInTokens() if request.param == "stand-in" else real_tokens()


@pytest.fixture
def server(tokens: HarmonyTokens) -> Iterator[FakeHarmonyServer]:
    with FakeHarmonyServer(tokens, mathematician) as running:
        yield running


def connected(server: FakeHarmonyServer, **settings: object) -> ServerGenerator:
    chosen = ServerSettings(server.url, max_retries=2, max_retry_wait_s=0.05, **settings)  # type: ignore[arg-type]
    return connect(MODEL, chosen, lambda: Harmony(server.tokens, chosen.turns()))


def answer_to(generator: ServerGenerator, request: GenerateRequest) -> tuple[Completion, list[TokenChunk]]:
    chunks = []
    generator.submit(request)
    while True:
        for event in generator.events(1.0):
            if isinstance(event, Finished):
                generator.close()
                return event.completion, chunks
            assert isinstance(event, TokenChunk)
            chunks.append(event)


def test_a_problem_is_solved_with_two_programs(
    server: FakeHarmonyServer, tokens: HarmonyTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "_load_harmony", lambda model, turns: Harmony(tokens, turns))
    engine = EngineSpec("main", "openai_server", MODEL, settings={"base_url": server.url, "reasoning_effort": "high"})
    config = RunConfig("evaluate", None, MODEL, 60.0, attempts=1, max_tokens=800, engines=(engine,))
    task = Task(Problem("p", "What is twice six times seven?"), "84", "p")
    result = start_run(config, [task], tmp_path, Console(file=StringIO()))

    problem = result.record.problems["p"]
    (attempt,) = problem.attempts
    assert (attempt.answer, attempt.failure) == ("84", None)
    assert [turn.result.stdout if turn.result else None for turn in attempt.turns] == ["42\n", "84\n", None]
    assert "<think>\nFirst `` `python\nnot this\n`` `\n a product.\n</think>" in attempt.turns[0].text
    assert attempt.turns[2].text == "<think>\nDone.\n</think>\n\nSo it is \\boxed{84}."
    assert attempt.num_tokens == sum(len(turn.logprobs) for turn in attempt.turns)  # control tokens count

    assert len(server.prompts) == 3
    assert "Reasoning: high" in written_of(tokens, server.prompts[0])
    said = [mathematician(written_of(tokens, prompt)) for prompt in server.prompts]
    for before, after, words in zip(server.prompts, server.prompts[1:], said, strict=False):
        assert after[: len(before)] == before, "the prefix cache serves all of the first turn's prompt"
        assert written_of(tokens, after[len(before) :]).startswith(words)


def test_thinking_is_closed_by_force_and_goes_on_in_the_same_request(tokens: HarmonyTokens) -> None:
    def thinker(prompt: str) -> str:
        if prompt.endswith("<|channel|>final<|message|>"):
            return "\\boxed{7}<|return|>"
        return "<|channel|>analysis<|message|>" + "on and on " * 50

    with FakeHarmonyServer(tokens, thinker) as server:
        asked = replace(ASKED, sampling=replace(ASKED.sampling, thinking_budget=10))
        completion, chunks = answer_to(connected(server), asked)
    assert completion.text.endswith("\n</think>\n\n\\boxed{7}") and completion.finish_reason == "stop"
    assert completion.text.startswith("".join(chunk.text for chunk in chunks))
    forced = written_of(tokens, completion.token_ids).partition("<|end|>")[2]
    assert forced.startswith("<|start|>assistant<|channel|>final<|message|>")
    assert completion.usage.forced >= 6 and completion.usage.output == len(completion.token_ids)
    assert len(server.prompts) == 2 and server.prompts[1][: len(server.prompts[0])] == server.prompts[0]
    num_answered = len(tokens.encode("\\boxed{7}")) + 1
    assert tuple(server.prompts[1][len(server.prompts[0]) :]) == completion.token_ids[:-num_answered]


def test_a_stream_that_breaks_off_goes_on_from_the_ids_that_came(tokens: HarmonyTokens) -> None:
    whole = "<|channel|>analysis<|message|>Let me count.<|end|><|start|>assistant<|channel|>final<|message|>It is 5."

    def speaker(prompt: str) -> str:
        return whole.removeprefix(prompt.partition("How many?<|end|><|start|>assistant")[2]) + "<|return|>"

    with FakeHarmonyServer(tokens, speaker, breaks_after=3) as server:
        completion, _ = answer_to(connected(server), ASKED)
    assert completion.text == "<think>\nLet me count.\n</think>\n\nIt is 5." and completion.finish_reason == "stop"
    assert len(server.prompts) == 2
    assert completion.usage.output == len(completion.token_ids) == len(completion.logprobs)


def test_a_limit_in_the_middle_of_thinking(server: FakeHarmonyServer) -> None:
    asked = replace(ASKED, sampling=replace(ASKED.sampling, max_tokens=8))
    completion, _ = answer_to(connected(server, tools=()), asked)
    assert completion.finish_reason == "length" and len(completion.token_ids) == 8


def test_a_server_that_tells_no_ids(tokens: HarmonyTokens) -> None:
    with FakeHarmonyServer(tokens, mathematician, tells_ids=False) as server:
        with pytest.raises(EngineError, match="turn_format harmony needs a server.*tool_calls"):
            connected(server, turn_format="harmony")


def test_the_settings_of_a_server_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="turn_format"):
        ServerSettings(turn_format="openai")  # type: ignore[arg-type]
    assert ServerSettings(tools=[]).turns() == TurnSettings(tools=())  # type: ignore[arg-type]
