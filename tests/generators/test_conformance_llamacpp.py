"""The suite of all generators, over llama.cpp's own server: with a small random model, and with the 0.5B model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance import *  # noqa: F403
from conformance import Subject
from real_servers import free_port, llama_server_program, running
from tiny_qwen import make_tiny_model, write_tiny_gguf

from mathlete.core.generation import Message
from mathlete.generators.openai_server import ServerGenerator, connect
from mathlete.generators.server_settings import ServerSettings

pytestmark = [pytest.mark.llamacpp, pytest.mark.slow]


@pytest.fixture(scope="module", params=["tiny", pytest.param("0.5b", marks=pytest.mark.model)])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    program, folder, port = llama_server_program(), tmp_path_factory.mktemp("llamacpp"), free_port()
    is_tiny = request.param == "tiny"
    if is_tiny:
        model = folder / "tiny.gguf"
        write_tiny_gguf(make_tiny_model(folder, tie_word_embeddings=False, hidden_size=128), model)
    else:
        model = request.getfixturevalue("small_model_path")
    command = [
        program, "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-t", "1", "-tb", "2", "-np", "4",
        "-c", "2048", "--no-warmup",
    ]  # fmt: skip
    with running(command, port, folder / "log") as url:

        def make() -> ServerGenerator:
            return connect("a model", ServerSettings(url))

        made = Subject(
            make,
            hot=2.0 if is_tiny else 1.5,
            ending=None if is_tiny else (Message("user", "Say only: OK"),),
            too_long=(Message("user", "word " * 600),),
            wait_s=240.0,
            stop_ids=False,
            deterministic=False,  # what it finds in its cache was computed in another batch
            control_token="<|im_end|>",
            tells_end=False,
            num_long=400 if is_tiny else 40,
            num_requests=32 if is_tiny else 12,
        )
        assert isinstance(made.shared, ServerGenerator)
        assert made.shared.description.endswith("(llama.cpp, 512 tokens)")
        made.capabilities = made.shared.capabilities
        assert made.capabilities.continuation and made.capabilities.rewinding and made.capabilities.logprobs
        assert made.capabilities.top_k and not made.capabilities.token_ids and not made.capabilities.seeds
        yield made
        made.shared.close()
