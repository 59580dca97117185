"""Several engines as one generator: who gets which request, and that none is starved, lost or closed twice."""

from __future__ import annotations

import pytest

from mathlete.compose import LoadedGenerator, join_engines
from mathlete.core.errors import EngineError
from mathlete.core.generation import Capabilities, Finished, GenerateRequest, Message, SamplingParams, TokenChunk
from mathlete.generators.routed import RoutedGenerator
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.run_config import EngineSpec


def request(name: str, pillar: str | None = None, group: str | None = None) -> GenerateRequest:
    return GenerateRequest(name, (Message("user", "2+2?"),), SamplingParams(), group=group, pillar=pillar)


def finished(generator: RoutedGenerator, num: int) -> dict[str, str]:
    texts: dict[str, str] = {}
    for _ in range(200):
        for event in generator.events(0.05):
            if isinstance(event, Finished):
                texts[event.request_id] = event.completion.text
        if len(texts) == num:
            break
    return texts


def test_a_request_goes_to_the_engine_of_its_pillar_and_all_others_to_the_rest() -> None:
    coder, rest = ScriptedGenerator(lambda r: "coder"), ScriptedGenerator(lambda r: "rest")
    routed = RoutedGenerator({"code": coder, "sympy_check": coder}, rest)
    for name, pillar in (("a", "code"), ("b", "reasoning"), ("c", "sympy_check"), ("d", None)):
        routed.submit(request(name, pillar))
    assert finished(routed, 4) == {"a": "coder", "b": "rest", "c": "coder", "d": "rest"}


def test_a_slow_engine_holds_up_no_other() -> None:
    slow = ScriptedGenerator(lambda r: Reply.saying("late", delay_s=0.3))
    quick = ScriptedGenerator(lambda r: "at once")
    routed = RoutedGenerator({"code": slow}, quick)
    routed.submit(request("slow", "code"))
    routed.submit(request("quick"))
    assert list(finished(routed, 2)) == ["quick", "slow"]


def test_a_group_ends_at_all_engines() -> None:
    coder, rest = (ScriptedGenerator(lambda r: Reply.saying("never", delay_s=60)) for _ in range(2))
    routed = RoutedGenerator({"code": coder}, rest)
    routed.submit(request("a/0", "code", group="a"))
    routed.submit(request("a/1", group="a"))
    routed.submit(request("b/0", group="b"))
    routed.abort(group="a")
    ends = [event for event in routed.events(0.05) if isinstance(event, Finished)]
    assert sorted(end.request_id for end in ends) == ["a/0", "a/1"]
    assert {end.completion.finish_reason for end in ends} == {"abort"}


def test_a_request_goes_back_at_its_own_engine() -> None:
    coder, rest = ScriptedGenerator(lambda r: "one two three four"), ScriptedGenerator(lambda r: "rest")
    routed = RoutedGenerator({"code": coder}, rest)
    routed.submit(request("a", "code"))
    told = [event for _ in range(2) for event in routed.events(0.0) if isinstance(event, TokenChunk)]
    assert len(told) == 2
    routed.rewind("a", 1, SamplingParams(seed=7))
    assert finished(routed, 1) == {"a": "one two three four"}
    with pytest.raises(EngineError, match="'a' cannot go back"):
        routed.rewind("a", 0, SamplingParams())


def test_ids_are_unique_over_all_engines() -> None:
    routed = RoutedGenerator({"code": ScriptedGenerator(lambda r: "x")}, ScriptedGenerator(lambda r: "y"))
    routed.submit(request("a", "code"))
    with pytest.raises(EngineError, match="in use"):
        routed.submit(request("a"))


def test_engines_are_joined_with_what_all_of_them_can_do_and_their_models_named() -> None:
    specs = (
        EngineSpec("reasoner", "openai_server", "r1"),
        EngineSpec("coder", "openai_server", "math", pillars=("code",)),
    )
    loaded = {
        "reasoner": LoadedGenerator(ScriptedGenerator(lambda r: "r"), "a server", ("slow",), tokens_per_s=10.0),
        "coder": LoadedGenerator(
            ScriptedGenerator(lambda r: "c"),
            "another",
            tokens_per_s=5.0,
            capabilities=Capabilities(seeds=False),
        ),
    }
    joined = join_engines(specs, loaded)
    assert joined.description == "reasoner: a server; coder: another"
    assert joined.warnings == ("reasoner: slow",)
    assert joined.tokens_per_s == 15.0
    assert joined.capabilities == Capabilities(seeds=False)
    assert [joined.model_of(pillar) for pillar in ("code", "reasoning", "sympy_check")] == ["math", "r1", "r1"]


def test_one_engine_is_itself() -> None:
    loaded = LoadedGenerator(ScriptedGenerator(lambda r: "r"), "a server")
    assert join_engines((EngineSpec("only", "openai_server", "m"),), {"only": loaded}) is loaded
