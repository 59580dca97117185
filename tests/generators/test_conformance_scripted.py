"""The suite of all generators, over the one without a model."""

from __future__ import annotations

import pytest
from conformance import *  # noqa: F403
from conformance import CHAT, Subject

from mathlete.core.generation import GenerateRequest, Message
from mathlete.generators.scripted import CAPABILITIES, Reply, ScriptedGenerator

WORDS = "Let us see: one and one is two, naïve 😀 as that may be; so the answer must be \\boxed{2}. " * 2


def script(request: GenerateRequest) -> Reply:
    """Says what the user says behind "say: ", else always the same; goes on where the turn so far has ended."""
    _, told, text = request.messages[-1].content.partition("say: ")
    whole = text if told else WORDS
    begun = "".join(span.text for span in request.continuation)
    return Reply.saying(whole[len(begun) :] if whole.startswith(begun) else whole)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(
        lambda: ScriptedGenerator(script, capabilities=CAPABILITIES),
        CAPABILITIES,
        say=lambda text: (Message("user", f"say: {text}"),),
        ending=(*CHAT[:-1], Message("user", "say: It is two.")),
        ignores_eos=False,
    )
