"""The suite of all generators, over the embedded engine with a small random model."""

from __future__ import annotations

import pytest
from conformance import *  # noqa: F403
from conformance import Subject
from driving import load
from tiny_qwen import make_tiny_model

from mathlete.core.generation import Message, TokenConstraint
from mathlete.core.problem import AnswerKind
from mathlete.generators.ryanstream import RyanStreamGenerator
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.vocabulary import Vocabulary


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
        vocabulary = Vocabulary(generator.token_bytes, generator.eos_token_ids)
        built = build_constraint(ConstraintSpec(), vocabulary, AnswerKind("integer", 0, 999), "so \\boxed{")
        assert built is not None
        return built

    made = Subject(
        make,
        hot=100.0,  # its weights are so wide that it would hardly ever waver
        too_long=(Message("user", "x" * 2000),),
        constraint=constraint,
        control_token="<|im_end|>",
    )
    return made
