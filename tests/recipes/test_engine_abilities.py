"""What an engine cannot do is not asked of it: refused at once where a person asked, left out where nobody did."""

from __future__ import annotations

from typing import Any

import pytest

from mathlete.compose import LoadedGenerator, add_step_checks, build_driver, join_engines
from mathlete.core.errors import EngineError
from mathlete.core.generation import Capabilities, GenerateRequest
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeDone
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import ScriptedGenerator
from mathlete.run_config import EngineSpec, RunConfig

PLAIN = Capabilities(thinking_budget=False, top_k=False, rewinding=False)


class Watched(ScriptedGenerator):
    """Answers 42, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda request: r"\boxed{42}")
        self.asked: list[GenerateRequest] = []
        self.is_closed = False

    def submit(self, request: GenerateRequest) -> None:
        self.asked.append(request)
        super().submit(request)

    def close(self) -> None:
        self.is_closed = True
        super().close()


class NoRunner:
    def submit(self, *given: Any, **told: Any) -> None:
        raise AssertionError("no program is written here")

    def end_session(self, session: str) -> None:
        pass

    def poll(self) -> tuple[CodeDone, ...]:
        return ()


class Sink:
    def append(self, event: TraceEvent) -> None:
        pass

    def append_many(self, events: Any) -> None:
        list(events)


def config(**given: Any) -> RunConfig:
    return RunConfig("solve", None, "m", 20.0, **{"attempts": 2, "pillars": ("reasoning",), **given})


def asked_of(loaded: LoadedGenerator, config: RunConfig) -> None:
    driver = build_driver(config, loaded, NoRunner(), Sink(), lambda progress: None)  # type: ignore[arg-type]
    driver.run([Problem("p", "How many?")], 10.0, {}, 0.0)


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"thinking_budget": 100}, "--thinking-budget"),
        ({"min_p": 0.02}, "--top-k and --min-p"),
        ({"top_k": 5}, "--top-k and --min-p"),
        ({"backtracking": "on"}, "--backtracking"),
    ],
)
def test_what_a_person_asks_for_in_vain_is_refused_before_the_run(given: dict[str, Any], flag: str) -> None:
    generator = Watched()
    loaded = LoadedGenerator(generator, "a plain server", capabilities=PLAIN)
    with pytest.raises(EngineError, match=f"a plain server cannot do {flag}: leave it out"):
        add_step_checks(config(**given), loaded)
    assert generator.is_closed
    assert add_step_checks(config(), loaded) is loaded


@pytest.mark.parametrize(("capabilities", "budget"), [(Capabilities(), 768), (PLAIN, None)])
def test_a_budget_of_thinking_is_made_up_only_for_who_can_keep_to_it(
    capabilities: Capabilities, budget: int | None
) -> None:
    generator = Watched()
    asked_of(LoadedGenerator(generator, "scripted", capabilities=capabilities), config(max_tokens=1024))
    assert [request.sampling.thinking_budget for request in generator.asked] == [budget, budget]


def test_each_engine_is_asked_for_what_it_can() -> None:
    able, plain = Watched(), Watched()
    specs = (EngineSpec("able", "vllm", "a", ("reasoning",)), EngineSpec("plain", "openai_server", "b"))
    loaded = {
        "able": LoadedGenerator(able, "vLLM"),
        "plain": LoadedGenerator(plain, "a server", capabilities=PLAIN),
    }
    asked_of(join_engines(specs, loaded), config(pillars=("reasoning", "code"), attempts=2, max_tokens=1024))
    assert [request.sampling.thinking_budget for request in able.asked] == [768]
    assert [request.sampling.thinking_budget for request in plain.asked] == [None]
    swapped = {"able": loaded["plain"], "plain": loaded["able"]}
    plain.asked.clear()
    asked_of(join_engines(specs, swapped), config(pillars=("reasoning", "code"), attempts=2, max_tokens=1024))
    assert [request.sampling.thinking_budget for request in plain.asked] == [None], "it reasons now"
