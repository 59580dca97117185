"""The pure parts of the server's client: events out of bytes, what they say, waits, concurrency, turns."""

from __future__ import annotations

import json
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.generation import Completion, GenerateRequest, Message, SamplingParams, Span, Usage
from mathlete.generators.openai_server_dialects import DIALECTS, refused_field
from mathlete.generators.openai_server_events import MAX_LINE_BYTES, BrokenStream, EventLines
from mathlete.generators.openai_server_exact import ExactTurns
from mathlete.generators.openai_server_output import ServerOutput
from mathlete.generators.openai_server_retry import Concurrency, Failure, retry_after, wait_before
from mathlete.generators.openai_server_stream import Delta, error_text, read_delta
from mathlete.generators.openai_server_turns import ChatTurns, closed_turns, without_control_tokens
from mathlete.generators.server_settings import ServerSettings

CHAT = (Message("user", "go on"),)


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))), st.integers(1, 7))
def test_events_do_not_depend_on_how_bytes_arrive(texts: list[str], width: int) -> None:
    texts = [text.strip() for text in texts if text.strip()]
    raw = "".join(f": hello\r\nevent: x\ndata: {text}\r\n\r\n" for text in texts).encode()
    lines = EventLines()
    found = [data for i in range(0, len(raw), width) for data in lines.feed(raw[i : i + width])]
    assert [*found, *lines.finish()] == texts


def test_a_line_that_never_ends_is_given_up() -> None:
    lines = EventLines()
    with pytest.raises(BrokenStream, match="more than 4 MiB"):
        for _ in range(2 * MAX_LINE_BYTES // 65536):
            lines.feed(b"x" * 65536)


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "content", "logprobs", "token_ids", "usage", "top_logprobs", "logprob", "tool_calls",
             "text", "tokens", "token_logprobs", "finish_reason", "prompt_tokens", "function", "timings", "error"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(_json)
def test_whatever_an_event_says_is_read_or_refused(value: object) -> None:
    for told in (value, {"choices": [value]}, {"choices": [{"delta": value}]}, {"choices": [{"logprobs": value}]}):
        try:
            delta = read_delta(json.dumps(told))
        except BrokenStream:
            continue
        assert isinstance(delta.text, str) and all(token.logprob <= 0 for token in delta.tokens)


def test_what_servers_say_of_errors_is_told_shortly() -> None:
    for body in (
        {"error": {"message": "no  such\nmodel", "code": 404}},
        {"message": "no such model", "code": 404},
        {"detail": "no such model"},
        {"error": "no such model"},
    ):
        assert error_text(body) == "no such model"
    assert len(error_text("x" * 10_000)) == 300


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after({"retry-after": "2.5"}, 0) == 2.5
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40) == 60
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 40) == 0
    for told in ({}, {"retry-after": "soon"}, {"retry-after": "-3"}, {"retry-after": "9" * 400}):
        waits = retry_after(told, 0)
        assert waits is None or waits < 1e12


@given(st.integers(0, 200), st.none() | st.floats(0, 1e6), st.floats(0.1, 100), st.integers(0, 9))
def test_waits_grow_and_are_bounded(num_tries: int, told_s: float | None, most_s: float, seed: int) -> None:
    wait_s = wait_before(num_tries, Failure("busy", 429, told_s), most_s, Random(seed))
    assert 0 < wait_s <= most_s
    assert wait_s >= min(most_s, told_s or 0.0)
    assert wait_s >= min(most_s, 0.5 * 2**num_tries) / 2


def test_concurrency_is_halved_once_a_round_and_comes_back() -> None:
    held = Concurrency(16)
    assert held.on_overload(started_s=0.0, now_s=1.0, wait_s=2.0)
    assert not held.on_overload(started_s=0.5, now_s=1.1, wait_s=0.0), "sent before it was lowered"
    assert held.limit == 8 and held.resumes_s == 3.0
    for _ in range(8):
        held.on_answer()
    assert held.limit in (8, 9)
    for _ in range(200):
        held.on_answer()
    assert held.limit == 16
    for i in range(10):
        held.on_overload(10.0 * i + 10, 10.0 * i + 11, 0.0)
    assert held.limit == 1


def test_what_reads_like_a_control_token_is_none() -> None:
    for name in ("<|im_end|>", "<|start_header_id|>", "<\uff5cUser\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"):
        assert without_control_tokens(f"a{name}{name}b") == f"a< {name[1:]}< {name[1:]}b"
    for text in ("x <|y|> z | <| a |>", "|x|<|y|", "a < b > c", "<|>", "|<|a b|>|"):
        assert without_control_tokens(text) in (text, text.replace("<|y|>", "< |y|>"))


def test_a_begun_turn_is_closed_for_who_cannot_go_on() -> None:
    spans = (Span("We run:", by_model=True), Span(" print(1)", (5,)), Span("```output\n1\n```"), Span("So", (7,)))
    closed = closed_turns(CHAT, spans)
    assert [(message.role, message.content) for message in closed] == [
        ("user", "go on"),
        ("assistant", "We run: print(1)"),
        ("user", "```output\n1\n```"),
        ("assistant", "So"),
        ("user", "Go on exactly where you stopped."),
    ]


def test_a_turn_goes_on_by_the_ids_that_were_told_here() -> None:
    turns = ExactTurns(DIALECTS["vllm"])
    request = GenerateRequest("a", CHAT)
    assert turns.ask(request, None) == ChatTurns(DIALECTS["vllm"]).ask(request, None)
    output = ServerOutput()
    for text, token_id in (("We", 4), (" run", 5), ("", 6), ("\u221e```\nx", 7)):
        output.add(text, Delta(text, token_ids=(token_id,)))
    done = output.completion("stop", SamplingParams(), text="We run\u221e```\n", stop="```\n")
    assert output.covered(done.text, "stop") == Span("\u221e```\n", (4, 5))
    turns.remember(done, output.covered(done.text, "stop"))
    spans = (Span(done.text, done.token_ids), Span("2 <|im_end|>"), Span("of another model", (9, 9)))
    asked = turns.ask(GenerateRequest("b", CHAT, continuation=spans), Span("So", (8,)))
    assert asked.path == "/completions"
    assert asked.prompt == (
        {"messages": [{"role": "user", "content": "go on"}], "add_generation_prompt": True},
        (4, 5),
        {"prompt": "\u221e```\n", "add_special_tokens": False},
        {"prompt": "2 < |im_end|>", "add_special_tokens": False},
        {"prompt": "of another model", "add_special_tokens": False},
        (8,),
    )


def test_the_end_of_text_is_not_gone_on_with() -> None:
    output = ServerOutput()
    for text, token_id in (("It", 4), ("", 99)):
        output.add(text, Delta(text, token_ids=(token_id,)))
    assert output.covered("It", "stop") == Span("", (4,))
    assert output.covered("It", "length") == Span("", (4, 99)), "half a character"
    output.drop_unfinished()
    assert output.written == Span("It", (4,), by_model=True) and output.num_discarded == 1


def test_tokens_are_counted_where_ids_are_not_told() -> None:
    done = Completion("x", (), (), (), "stop", Usage(output=7))
    assert done.num_tokens == 7
    assert Completion("x", (1, 2), (), (), "stop", Usage()).num_tokens == 2


def test_the_field_that_a_refusal_names_is_found() -> None:
    body = {
        "model": "m",
        "messages": [],
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 2,
        "seed": 1,
        "stream": True,
    }
    for message, name in (
        ("Unrecognized request argument supplied: top_logprobs", "top_logprobs"),
        ("Unsupported parameter: 'max_tokens' is not supported with this model.", "max_tokens"),
        ("Extra inputs are not permitted: seed", "seed"),
        ("messages must not be empty", None),
        ("the stream is dry", None),
    ):
        assert refused_field(message, body) == name


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": "http://me:secret@host/v1"}, "base_url"),
        ({"dialect": "klingon"}, "dialect"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_retries": -1}, "max_retries"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"max_retry_wait_s": 0}, "max_retry_wait_s"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 5, "logprobs": False}, "top_logprobs"),
        ({"turn_format": "morse"}, "turn_format"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        ServerSettings(**settings)  # type: ignore[arg-type]
    assert "secret" not in str(refused.value)


def test_httpx_is_named_where_it_is_missing() -> None:
    program = (
        "import sys; sys.modules['httpx'] = None\n"
        "from mathlete.core.errors import EngineError\n"
        "try:\n    import mathlete.generators.openai_server\nexcept EngineError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'mathlete[server]'" in done.stdout
