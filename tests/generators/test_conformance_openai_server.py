"""The suite of all generators, over servers: a fake one of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance import *  # noqa: F403
from conformance import CHAT, Subject
from fake_openai_server import MODEL, FakeServer, saying

from mathlete.core.generation import Message
from mathlete.generators.openai_server import connect
from mathlete.generators.openai_server_dialects import DIALECTS
from mathlete.generators.server_settings import ServerSettings


@pytest.fixture(scope="module", params=["vllm", "llama.cpp", "openai"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    dialect = DIALECTS[request.param]
    with FakeServer(request.param, piece_s=0.002) as server:
        made = Subject(
            lambda: connect(MODEL, ServerSettings(server.url, max_concurrency=16)),
            dialect.capabilities,
            say=saying,
            ending=(*CHAT[:-1], *saying("It is two.")),
            too_long=(Message("user", "x " * 3000),),
            ignores_eos=True if dialect.ignores_eos else None,
            stop_ids=dialect.takes_stop_ids,
            control_token="<|im_end|>" if dialect.name == "vllm" else None,
            tells_prompt=dialect.name != "openai",
            tells_end=dialect.name == "vllm",
        )
        yield made
        made.shared.close()
