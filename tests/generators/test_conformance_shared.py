"""The suite of all generators, over a client of a shared one, while another client has requests of the same names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from conformance import *  # noqa: F403
from conformance import CHAT, Subject
from test_conformance_scripted import script

from mathlete.core.generation import GenerateRequest, Message, SamplingParams
from mathlete.core.protocols import Generator
from mathlete.generators.scripted import CAPABILITIES, Reply, ScriptedGenerator
from mathlete.generators.shared import SharedGenerator

ENDLESS = "of the other client"
TOKEN_S = 0.004  # it goes on while its clients look away; at once, it would be over before they look again


def with_others(request: GenerateRequest) -> Reply:
    if request.messages[-1].content == ENDLESS:
        return Reply.saying("on and on " * 1000, token_s=0.01)
    return replace(script(request), token_s=TOKEN_S)


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    made: list[SharedGenerator] = []

    def make() -> Generator:
        shared = SharedGenerator(ScriptedGenerator(with_others, capabilities=CAPABILITIES))
        made.append(shared)
        other = shared.client()
        for number in range(3):
            chat = (Message("user", ENDLESS),)
            other.submit(GenerateRequest(f"r{number}", chat, SamplingParams(max_tokens=5000), group="g"))
        return shared.client()

    yield Subject(
        make,
        replace(CAPABILITIES, rewinding=False),
        say=lambda text: (Message("user", f"say: {text}"),),
        ending=(*CHAT[:-1], Message("user", "say: It is two.")),
        ignores_eos=False,
    )
    for shared in made:
        shared.close()
