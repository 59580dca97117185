"""What becomes of requests when a server does badly: retries, half streams, garbage, pressure, keys, wrong models."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fake_openai_server import MODEL, WORDS, FakeServer, Fault, saying

from mathlete.core.errors import EngineError
from mathlete.core.generation import (
    Completion,
    Finished,
    GenerateRequest,
    GeneratorEvent,
    Message,
    SamplingParams,
    Span,
)
from mathlete.generators.openai_server import ServerGenerator, connect
from mathlete.generators.openai_server_connect import explore
from mathlete.generators.server_settings import ServerSettings

CHAT = (Message("user", "go on"),)
FAST = {"max_retry_wait_s": 0.05, "timeout_s": 10.0}
KEY = "sk-very-secret-4711"


def ask(name: str = "a", group: str | None = None, priority: int = 0, **sampling: object) -> GenerateRequest:
    params = SamplingParams(**{"temperature": 0.0, "max_tokens": 12, **sampling})  # type: ignore[arg-type]
    return GenerateRequest(name, CHAT, params, group=group, priority=priority)


def listen(generator: ServerGenerator, num: int = 1, wait_s: float = 20.0) -> list[GeneratorEvent]:
    events: list[GeneratorEvent] = []
    end_s = time.monotonic() + wait_s
    while sum(isinstance(event, Finished) for event in events) < num:
        assert time.monotonic() < end_s, f"not ended: {events}"
        events += generator.events(0.05)
    return events


def answer(generator: ServerGenerator, request: GenerateRequest) -> Completion:
    generator.submit(request)
    event = listen(generator)[-1]
    assert isinstance(event, Finished)
    return event.completion


@pytest.fixture(params=["vllm", "llama.cpp", "openai"])
def server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    with FakeServer(request.param) as made:
        yield made


@pytest.fixture
def generator(server: FakeServer) -> Iterator[ServerGenerator]:
    made = connect(MODEL, ServerSettings(server.url, **FAST))  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.fixture
def plain() -> Iterator[FakeServer]:
    with FakeServer("vllm") as made:
        yield made


def first_words(num: int) -> str:
    return "".join(WORDS.split(" ")[0] if i == 0 else f" {WORDS.split(' ')[i]}" for i in range(num))


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(429), Fault(503), Fault(500)],
        [Fault(408), Fault(409), Fault(502, body=b"<html>Bad gateway</html>")],
        [Fault(after=0, how="reset"), Fault(after=0), Fault(after=0, how="say", body=b"<html>oops</html>\n")],
        [Fault(after=0, how="say", body=b'data: {"error": {"message": "CUDA out of memory", "code": 500}}\n\n')],
        [Fault(after=0, how="say", body=b"data: not json\n\n"), Fault(after=0, how="say", body=b"data: [1]\n\n")],
        [Fault(after=0, how="say", body=b"data: {}\n\n"), Fault(after=0, how="say", body=b"\xff\xfe\x00\n\n")],
        [Fault(after=0, how="say", body=b'data: {"choices": [{"delta": {"content": 3}}]}\n\n')],
        [Fault(after=0, how="say", body=b'data: {"choices": [{"delta": "x"}]}\n\n')],
        [Fault(after=0, how="say", body=b'data: {"choices": [{"delta": {}, "logprobs": {"content": [1]}}]}\n\n')],
        [Fault(after=0, how="say", body=b'data: {"choices": [], "usage": {"prompt_tokens": -1}}\n\n')],
        [Fault(after=0, how="say", body=b"data: " + b"[" * 100_000 + b"\n\n")],
        [Fault(after=0, how="say", body=b"data: " + b"x" * (5 << 20) + b"\n\n")],
    ],
)
def test_what_passes_is_tried_again(server: FakeServer, generator: ServerGenerator, faults: list[Fault]) -> None:
    server.faults = list(faults)
    done = answer(generator, ask())
    assert (done.text, done.finish_reason, done.error) == (first_words(12), "length", None)
    assert done.usage.output == 12 and done.usage.discarded == 0
    assert len(server.bodies) == 2 + len(faults), "one to get to know it, one for each fault, and the good one"
    assert generator.take_warnings() and generator.take_warnings() == ()


@pytest.mark.parametrize("how", ["reset", "end", "say"])
def test_a_stream_that_breaks_goes_on_where_it_can(server: FakeServer, generator: ServerGenerator, how: str) -> None:
    nan = b'data: {"choices": [{"delta": {"content": "?"}, "logprobs": {"content": [{"logprob": NaN}]}}]}\n\n'
    server.faults = [Fault(after=5, how=how, body=nan), Fault(500), Fault(after=3, how=how, body=nan)]  # type: ignore[arg-type]
    generator.submit(ask())
    events = listen(generator)
    done = events[-1].completion  # type: ignore[union-attr]
    assert (done.text, done.finish_reason) == (first_words(12), "length")
    told = "".join(event.text for event in events[:-1] if not hasattr(event, "num_kept"))
    if generator.capabilities.continuation:
        assert done.text.startswith(told) and done.usage.discarded == 0
        assert done.usage.output == 12
        last = server.bodies[-1]
        assert last["messages"][-1] == {"role": "assistant", "content": first_words(6)}
        assert last["max_tokens"] == 6
    else:
        dropped = [event for event in events if hasattr(event, "num_kept")]
        assert [(event.num_kept, event.num_dropped, event.reason) for event in dropped] == [  # type: ignore[union-attr]
            (0, 4, "broken"),
            (0, 2, "broken"),
        ]
        assert done.usage.discarded == 6


def test_a_stream_that_hangs_is_given_up(plain: FakeServer) -> None:
    plain.faults = [Fault(), Fault(after=4, how="hang")]
    generator = connect(MODEL, ServerSettings(plain.url, max_retry_wait_s=0.05, timeout_s=0.3))
    done = answer(generator, ask())
    assert done.text == first_words(12) and "not a byte for 0.3 s" in generator.take_warnings()[0]
    generator.close()


def test_a_slow_stream_is_waited_for(plain: FakeServer) -> None:
    plain.faults = [Fault(), Fault(drip_s=0.1)]
    generator = connect(MODEL, ServerSettings(plain.url, timeout_s=1.0))
    done = answer(generator, ask(max_tokens=16))
    assert done.num_tokens == 16 and len(plain.bodies) == 2
    generator.close()


def test_too_many_failures_are_an_error_that_says_all(server: FakeServer) -> None:
    generator = connect(MODEL, ServerSettings(server.url, max_retries=2, **FAST))  # type: ignore[arg-type]
    server.faults = [Fault(500, body=b'{"error": {"message": "engine is dead"}}')] * 9
    done = answer(generator, ask())
    assert (done.finish_reason, done.text, done.num_tokens) == ("error", "", 0)
    assert done.error == (
        f"{server.url}: HTTP 500: engine is dead after 3 tries; look at the server's own log, and whether it still runs"
    )
    server.faults = []
    assert answer(generator, ask()).finish_reason == "length", "the next one is none the worse for it"
    generator.close()


def test_what_was_written_before_an_error_is_kept(plain: FakeServer) -> None:
    generator = connect(MODEL, ServerSettings(plain.url, max_retries=0, **FAST))  # type: ignore[arg-type]
    plain.faults = [Fault(after=5, how="reset")]
    done = answer(generator, ask())
    assert done.finish_reason == "error" and done.text == first_words(4) and done.num_tokens == 4
    assert "broke off" in (done.error or "")
    generator.close()


@pytest.mark.parametrize(("status", "said"), [(400, ""), (401, "key"), (403, "key"), (404, "base_url"), (413, "")])
def test_what_is_wrong_for_good_is_not_tried_again(plain: FakeServer, status: int, said: str) -> None:
    generator = connect(MODEL, ServerSettings(plain.url, **FAST))  # type: ignore[arg-type]
    plain.faults = [Fault(status, body=b'{"detail": "no"}')]
    done = answer(generator, ask())
    assert done.finish_reason == "error" and f"HTTP {status}: no" in (done.error or "") and said in (done.error or "")
    assert len(plain.bodies) == 2
    generator.close()


def test_the_server_says_when_to_come_back(plain: FakeServer) -> None:
    generator = connect(MODEL, ServerSettings(plain.url, timeout_s=10.0))
    plain.faults = [Fault(429, headers=(("Retry-After", "1"),))]
    start_s = time.monotonic()
    assert answer(generator, ask()).num_tokens == 12
    assert 0.95 < time.monotonic() - start_s < 4
    plain.faults = [Fault(429, headers=(("Retry-After", "3600"),))]
    capped = connect(MODEL, ServerSettings(plain.url, max_retry_wait_s=0.2))
    assert answer(capped, ask()).num_tokens == 12
    for one in (generator, capped):
        one.close()


def test_no_more_are_under_way_than_may_be(plain: FakeServer) -> None:
    plain.piece_s = 0.002
    generator = connect(MODEL, ServerSettings(plain.url, max_concurrency=3, **FAST))  # type: ignore[arg-type]
    for i in range(12):
        generator.submit(ask(str(i)))
    assert len([event for event in listen(generator, 12) if isinstance(event, Finished)]) == 12
    assert 2 <= plain.most_at_once <= 3
    generator.close()


def test_an_overloaded_server_gets_less_to_do(plain: FakeServer) -> None:
    plain.piece_s = 0.002
    generator = connect(MODEL, ServerSettings(plain.url, max_concurrency=8, max_retries=9, **FAST))  # type: ignore[arg-type]
    plain.faults = [Fault(429)] * 8
    for i in range(16):
        generator.submit(ask(str(i)))
    events = listen(generator, 16)
    assert all(event.completion.finish_reason == "length" for event in events if isinstance(event, Finished))
    (warning,) = generator.take_warnings()
    assert "has too much to do (HTTP 429: told to fail)" in warning
    assert 4 <= generator._queue.concurrency.limit < 8, "halved once for the eight of one moment, and rising again"
    generator.close()


def test_the_urgent_go_first_and_groups_share(plain: FakeServer) -> None:
    generator = connect(MODEL, ServerSettings(plain.url, max_concurrency=1, **FAST))  # type: ignore[arg-type]
    for name in ("a0", "a1", "a2", "a3", "b0", "b1"):
        generator.submit(replace(ask(name, group=name[0]), messages=saying(name)))
    generator.submit(replace(ask("now", group="a", priority=-1), messages=saying("now")))
    listen(generator, 7)
    asked = [body["messages"][0]["content"].partition(": ")[2] for body in plain.bodies[1:]]
    order = [bytes.fromhex(text).decode() for text in asked]
    assert order == ["a0", "now", "b0", "a1", "b1", "a2", "a3"]
    generator.close()


def test_an_abort_closes_the_connection_and_drops_the_rest(plain: FakeServer) -> None:
    plain.piece_s = 0.02
    generator = connect(MODEL, ServerSettings(plain.url, **FAST))  # type: ignore[arg-type]
    generator.submit(ask(max_tokens=60))
    while not list(generator.events(0.05)):
        pass
    generator.abort(request_id="a")
    (event,) = generator.events(0.0)
    assert isinstance(event, Finished) and event.completion.finish_reason == "abort"
    assert WORDS.startswith(event.completion.text) and event.completion.text
    end_s = time.monotonic() + 5
    while not plain.num_broken_off and time.monotonic() < end_s:
        assert list(generator.events(0.02)) == []
    assert plain.num_broken_off == 1, "the server has seen that nobody listens"
    generator.close()


def test_a_key_comes_from_the_environment_and_is_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer("openai", key=KEY) as server:
        settings = ServerSettings(server.url, api_key_env="MY_SERVER_KEY", max_retries=0)
        monkeypatch.delenv("MY_SERVER_KEY", raising=False)
        with pytest.raises(EngineError, match="MY_SERVER_KEY .* is not set"):
            connect(MODEL, settings)
        monkeypatch.setenv("MY_SERVER_KEY", KEY + "x")
        with pytest.raises(EngineError, match=r"HTTP 401: .*\*\*\*.*MY_SERVER_KEY") as refused:
            connect(MODEL, settings)
        assert KEY not in str(refused.value)
        with pytest.raises(EngineError, match="HTTP 401.*api_key_env"):
            connect(MODEL, ServerSettings(server.url, max_retries=0))
        with pytest.raises(ValueError, match="must be the name") as misplaced:
            ServerSettings(server.url, api_key_env=KEY)
        assert KEY not in str(misplaced.value)
        monkeypatch.setenv("MY_SERVER_KEY", KEY)
        generator = connect(MODEL, settings)
        server.key = "another"  # it is taken away
        done = answer(generator, ask())
        assert done.finish_reason == "error" and "401" in (done.error or "") and KEY not in (done.error or "")
        assert KEY not in repr((generator.description, generator.warnings, settings))
        generator.close()


def test_what_is_wrong_at_first_is_said(plain: FakeServer) -> None:
    settings = ServerSettings(plain.url, **FAST)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=rf"no model 'gpt-9'; it has '{MODEL}'"):
        connect("gpt-9", settings)
    with pytest.raises(EngineError, match=r"no connection.*start the server, or look at base_url"):
        connect(MODEL, replace(settings, base_url="http://127.0.0.1:9/v1", max_retries=0))
    with pytest.raises(EngineError, match="no list of models|HTTP 404"):
        connect(MODEL, replace(settings, base_url=plain.url.removesuffix("/v1") + "/v2"))
    plain.model_faults = [Fault(200, body=b"<html>Welcome to nginx</html>")]
    with pytest.raises(EngineError, match="no JSON.*OpenAI-compatible"):
        connect(MODEL, settings)
    plain.model_faults = [Fault(200, body=b'{"data": 5}')]
    with pytest.raises(EngineError, match="lists no model"):
        connect(MODEL, settings)
    plain.model_faults = [Fault(503, body=b'{"error": {"message": "Loading model"}}')] * 3
    connect(MODEL, settings).close()


def test_fields_that_a_server_does_not_know_are_left_out() -> None:
    with FakeServer("openai", refuses=("logprobs", "seed", "max_tokens")) as server:
        generator = connect(MODEL, ServerSettings(server.url, **FAST))  # type: ignore[arg-type]
        assert sum("is left out" in warning for warning in generator.warnings) == 3
        assert not generator.capabilities.logprobs
        done = answer(generator, ask(num_logprobs=3))
        assert (done.num_tokens, done.logprobs, done.top_logprobs) == (12, (), ())
        last = server.bodies[-1]
        assert not {"logprobs", "top_logprobs", "seed", "max_tokens", "top_k", "min_p"} & set(last)
        assert last["max_completion_tokens"] == 12
        generator.close()


def test_thinking_that_is_told_apart_stands_between_its_marks() -> None:
    with FakeServer("openai", thinks="one and one") as server:
        generator = connect(MODEL, ServerSettings(server.url, **FAST))  # type: ignore[arg-type]
        done = answer(generator, replace(ask(max_tokens=30), messages=saying("It is 2.")))
        assert done.text == "<think>\none and one\n</think>\n\nIt is 2."
        generator.close()


def test_a_hosted_server_is_shown_closed_turns() -> None:
    with FakeServer("openai") as server:
        generator = connect(MODEL, ServerSettings(server.url, **FAST))  # type: ignore[arg-type]
        first = answer(generator, ask())
        spans = (Span(first.text, by_model=True), Span("\n```output\n2\n```\n"))
        answer(generator, replace(ask("b"), continuation=spans))
        assert [message["role"] for message in server.bodies[-1]["messages"]] == ["user", "assistant", "user"]
        answer(generator, replace(ask("b"), continuation=(Span("First,"),)))
        (message,) = server.bodies[-1]["messages"]
        assert message["role"] == "user" and message["content"].endswith("go on behind it:\nFirst,")
        generator.close()


def test_confidence_is_told_where_it_is_asked_for(plain: FakeServer) -> None:
    generator = connect(MODEL, ServerSettings(plain.url, top_logprobs=20, **FAST))  # type: ignore[arg-type]
    done = answer(generator, ask(num_logprobs=5))
    assert len(done.top_means) == 12 and all(-4 < mean < -0.25 for mean in done.top_means)
    assert {len(top) for top in done.top_logprobs} == {5}
    generator.close()


def test_priorities_are_sent_where_the_server_takes_them(plain: FakeServer) -> None:
    generator = connect(MODEL, ServerSettings(plain.url, priority_scheduling=True, **FAST))  # type: ignore[arg-type]
    answer(generator, ask(priority=-5))
    assert plain.bodies[-1]["priority"] == -5 and "priority" not in plain.bodies[0]
    generator.close()


def test_a_server_that_does_not_keep_to_the_limit_is_stopped(plain: FakeServer) -> None:
    generator = connect(MODEL, ServerSettings(plain.url, **FAST))  # type: ignore[arg-type]
    flood = b'data: {"choices": [{"delta": {"content": "' + b"x" * 100_000 + b'"}}]}\n\n'
    plain.faults = [Fault(after=1, how="say", body=flood * 3)]
    done = answer(generator, ask())
    assert done.finish_reason == "error" and "far more than 12 tokens" in (done.error or "")
    generator.close()


def test_a_model_without_a_list_is_taken_at_its_word(plain: FakeServer) -> None:
    plain.model_faults = [Fault(404)]
    known = explore(MODEL, ServerSettings(plain.url, dialect="vllm", **FAST))  # type: ignore[arg-type]
    assert known.model == MODEL and "no list of models" in known.warnings[0]


def test_nothing_is_taken_after_the_close(plain: FakeServer) -> None:
    generator = connect(MODEL, ServerSettings(plain.url, **FAST))  # type: ignore[arg-type]
    generator.close()
    with pytest.raises(EngineError, match="closed"):
        generator.submit(ask())


def test_connections_that_are_given_up_are_closed(plain: FakeServer) -> None:
    """A warning of an unclosed socket would fail this test."""
    generator = connect(MODEL, ServerSettings(plain.url, **FAST))  # type: ignore[arg-type]
    for i in range(40):
        generator.submit(ask(str(i), "g"))
        time.sleep(0.001 * (i % 4))
        generator.abort(request_id=str(i))
    generator.submit(ask("last"))
    listen(generator, 41)
    generator.close()
    gc.collect()
