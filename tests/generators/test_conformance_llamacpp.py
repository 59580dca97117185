"""The suite of all generators, over llama.cpp's own server with the 0.5B model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance import *  # noqa: F403
from conformance import Subject
from real_servers import free_port, llama_server_program, running

from mathlete.core.generation import Message
from mathlete.generators.openai_server import ServerGenerator, connect
from mathlete.generators.server_settings import ServerSettings

pytestmark = [pytest.mark.llamacpp, pytest.mark.model, pytest.mark.slow]


@pytest.fixture(scope="module")
def subject(small_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    port = free_port()
    command = [
        llama_server_program(), "-m", str(small_model_path), "--host", "127.0.0.1", "--port", str(port),
        "-t", "2", "-np", "4", "-c", "4096",
    ]  # fmt: skip
    with running(command, port, tmp_path_factory.mktemp("llamacpp") / "log") as url:

        def make() -> ServerGenerator:
            return connect("0.5b", ServerSettings(url))

        made = Subject(
            make,
            hot=1.5,
            ending=(Message("user", "Say only: OK"),),
            too_long=(Message("user", "word " * 3000),),
            stop_ids=False,
            deterministic=False,  # what is found in its cache was computed in another batch
            control_token="<|im_end|>",
            tells_end=False,
        )
        assert isinstance(made.shared, ServerGenerator)
        assert made.shared.description.endswith("(llama.cpp, 1024 tokens)")
        made.capabilities = made.shared.capabilities
        assert made.capabilities.continuation and made.capabilities.rewinding and made.capabilities.logprobs
        assert made.capabilities.top_k and not made.capabilities.token_ids and not made.capabilities.seeds
        yield made
        made.shared.close()
