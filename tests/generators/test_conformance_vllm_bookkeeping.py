"""The suite of all generators, over what Mathlete puts around vLLM, with a stand-in for vLLM itself."""

from __future__ import annotations

import pytest
from conformance import *  # noqa: F403
from conformance import Subject
from fake_vllm import FakeEngine
from test_vllm_generator import make_generator, tokenizer

from mathlete.core.generation import Message, TokenConstraint
from mathlete.core.problem import AnswerKind
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.vocabulary import Vocabulary


@pytest.fixture(scope="module", params=[1, 3], ids=["one-token-a-step", "several-tokens-a-step"])
def subject(request: pytest.FixtureRequest) -> Subject:
    def constraint() -> TokenConstraint:
        vocabulary = Vocabulary(tokenizer().token_bytes(288), tokenizer().eos_token_ids)
        built = build_constraint(ConstraintSpec(), vocabulary, AnswerKind("integer", 0, 999), "so \\boxed{")
        assert built is not None
        return built

    made = Subject(
        lambda: make_generator(FakeEngine(per_step=request.param), constraints=request.param == 1),
        hot=0.5,
        too_long=(Message("user", "x" * 2000),),
        constraint=constraint,
        control_token="<|im_end|>",
    )
    made.capabilities = made.shared.capabilities  # type: ignore[attr-defined]
    return made
