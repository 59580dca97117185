"""The suite of all generators, over the embedded engine with a small random model."""

from __future__ import annotations

import pytest
from conformance import *  # noqa: F403
from conformance import Subject, boxed_constraint
from driving import load
from tiny_qwen import make_tiny_model

from mathlete.core.generation import Message, TokenConstraint
from mathlete.generators.ryanstream import RyanStreamGenerator


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder, cache = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("engines")
    make_tiny_model(folder, tie_word_embeddings=False)

    def make() -> RyanStreamGenerator:
        loaded = load(folder, cache, num_blocks=640, precision="fp32", max_model_len=512, max_running=32)
        return RyanStreamGenerator(loaded)

    def constraint() -> TokenConstraint:
        generator = made.shared
        assert isinstance(generator, RyanStreamGenerator)
        return boxed_constraint(generator.token_bytes, generator.eos_token_ids)

    made = Subject(
        make,
        hot=100.0,  # its weights are so wide that it would hardly ever waver
        too_long=(Message("user", "x" * 2000),),
        constraint=constraint,
        control_token="<|im_end|>",
    )
    return made
