"""The suite of all generators, over an engine in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance import *  # noqa: F403
from conformance import CHAT, Subject

from mathlete.core.generation import Message
from mathlete.generators.child import ChildGenerator
from mathlete.generators.child_messages import Load
from mathlete.generators.scripted import CAPABILITIES


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    made: list[ChildGenerator] = []

    def make() -> ChildGenerator:
        made.append(ChildGenerator(Load("scripted_children:load_scripted", (0.005, CAPABILITIES))))
        return made[-1]

    yield Subject(
        make,
        CAPABILITIES,
        say=lambda text: (Message("user", f"say: {text}"),),
        ending=(*CHAT[:-1], Message("user", "say: It is two.")),
        ignores_eos=False,
    )
    for generator in made:
        generator.close()
