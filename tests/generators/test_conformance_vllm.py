"""The suite of all generators, over vLLM in process with a small random model. Run by `make test-vllm`."""

from __future__ import annotations

import importlib.util

import pytest
from conformance import *  # noqa: F403
from conformance import Subject, boxed_constraint

from mathlete.core.generation import Message, TokenConstraint

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of vLLM's own making
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: `make test-vllm`"),
]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    from tiny_vllm import MAX_MODEL_LEN, load_tiny, make_folder

    from mathlete.generators.vllm import VLLMGenerator

    folder = tmp_path_factory.mktemp("tiny")
    make_folder(folder)

    def make() -> VLLMGenerator:
        return load_tiny(folder, constraints=True, distributed_executor_backend=None)  # as it is by itself

    def constraint() -> TokenConstraint:
        generator = made.shared
        assert isinstance(generator, VLLMGenerator)
        return boxed_constraint(generator.token_bytes, generator.eos_token_ids)

    made = Subject(
        make,
        hot=0.5,  # a random model wavers; vLLM takes 2 at most
        too_long=(Message("user", "x" * 4 * MAX_MODEL_LEN),),
        constraint=constraint,
        control_token="<|im_end|>",
        remakes=False,
    )
    made.capabilities = made.shared.capabilities  # type: ignore[attr-defined]
    return made
