"""The suite of all generators, over the embedded engine (a small random model) in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance import *  # noqa: F403
from conformance import Subject, boxed_constraint
from tiny_qwen import make_tiny_model

from mathlete.core.generation import Message, TokenConstraint
from mathlete.generators.child import ChildGenerator
from mathlete.generators.child_messages import Load


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    folder, cache = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("engines")
    make_tiny_model(folder, tie_word_embeddings=False)
    generators: list[ChildGenerator] = []

    def make() -> ChildGenerator:
        generators.append(ChildGenerator(Load("tiny_children:load_tiny", (str(folder), str(cache)))))
        return generators[-1]

    def constraint() -> TokenConstraint:
        generator = made.shared
        assert isinstance(generator, ChildGenerator)
        return boxed_constraint(generator.facts.vocabulary, generator.facts.eos_token_ids)

    made = Subject(
        make,
        hot=100.0,  # its weights are so wide that it would hardly ever waver
        too_long=(Message("user", "x" * 2000),),
        constraint=constraint,
        control_token="<|im_end|>",
        remakes=False,
    )
    yield made
    for generator in generators:
        generator.close()
