"""Turns that a server writes and reads: calls and answers there and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from mathlete.core.generation import GenerateRequest, Message, SamplingParams, Span
from mathlete.generators.harmony_tokens import CONTROL_NAMES
from mathlete.generators.openai_server_dialects import DIALECTS
from mathlete.generators.openai_server_stream import Delta, ToolCallPart, read_delta
from mathlete.generators.tool_calls import ToolCallTurns
from mathlete.generators.tool_programs import NOT_RUN, ONLY_PYTHON
from mathlete.generators.turn_formats import Read, TurnSettings
from mathlete.triad.code_blocks import program_at_end

CODE = SamplingParams(stop=("```\n",))
CHAT = (Message("system", "Be careful."), Message("user", "How many?"))
THOUGHT = "<think>\nLet me count.\n</think>\n\n"
PROGRAM = "```python\nprint(6*7)\n```\n"


def turns(dialect: str = "vllm", model: str = "qwen3", **settings: Any) -> ToolCallTurns:
    return ToolCallTurns(DIALECTS[dialect], TurnSettings("tool_calls", **settings), model)


def request(spans: Sequence[Span] = (), sampling: SamplingParams = CODE, chat: Sequence[Message] = CHAT) -> Any:
    return GenerateRequest("p#0/0", tuple(chat), sampling, tuple(spans))


def said(text: str) -> Span:
    return Span(text, by_model=True)


def read(deltas: Sequence[Delta], asked: GenerateRequest | None = None, **kwargs: Any) -> tuple[str, Read]:
    """The text of a stream, and what its last event was read as."""
    reader = turns(**kwargs).reader(asked or request(), None)
    text, last = "", Read()
    for delta in deltas:
        last = reader.take(delta)
        text += last.text
        if last.ended:
            return text, last
    last = reader.finish(was_cut=True)
    return text + last.text, last


def call(arguments: str, name: str = "python", reason: str = "tool_calls") -> list[Delta]:
    """A call as servers stream it: name first, arguments bit by bit."""
    middle = len(arguments) // 2
    return [
        Delta(tool_calls=(ToolCallPart(0, name, ""),)),
        Delta(tool_calls=(ToolCallPart(0, "", arguments[:middle]),)),
        Delta(tool_calls=(ToolCallPart(0, "", arguments[middle:]),)),
        Delta(finish_reason=reason),
    ]


def test_a_request_that_runs_programs_is_given_the_tool() -> None:
    asked = turns(reasoning_effort="high").ask(request(), None)
    assert asked.path == "/chat/completions"
    assert asked.fields["messages"] == [{"role": m.role, "content": m.content} for m in CHAT]
    assert [tool["function"]["name"] for tool in asked.fields["tools"]] == ["python"]
    assert asked.fields["reasoning_effort"] == "high" and "stop" not in asked.fields
    assert "tools" not in turns().ask(request(sampling=SamplingParams()), None).fields
    assert "tools" not in turns(tools=()).ask(request(), None).fields
    llama = turns("llama.cpp", reasoning_effort="low").ask(request(), None)
    assert llama.fields["chat_template_kwargs"] == {"reasoning_effort": "low"}


def test_thinking_and_a_call_become_text_that_ends_at_a_fence() -> None:
    text, last = read(
        [Delta(reasoning="Let me"), Delta(reasoning=" count."), *call(json.dumps({"code": "print(6*7)"}))]
    )
    assert text == THOUGHT + PROGRAM
    assert last.ended and last.stop == "```\n" and program_at_end(text) == "print(6*7)\n"


def test_an_event_of_a_real_server() -> None:
    parts = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "python", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"code": "print(1)"}'}},
    ]
    deltas = [
        read_delta(json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None}]}))
        for part in parts
    ]
    deltas.append(read_delta(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})))
    assert read(deltas)[0] == "```python\nprint(1)\n```\n"


def test_what_was_called_and_came_back_are_messages_again() -> None:
    spans = [
        said(THOUGHT + "First.\n\n" + PROGRAM),
        Span("```output\n42\n```\n"),
        said(PROGRAM),
        Span("```output\n1\n```\n"),
    ]
    messages = turns().ask(request(spans), None).fields["messages"][len(CHAT) :]
    function = {"name": "python", "arguments": json.dumps({"code": "print(6*7)\n"})}
    first, answer, second, other = messages
    assert first["reasoning_content"] == "Let me count." and first["content"] == "First.\n\n"
    assert [item["function"] for item in first["tool_calls"]] == [function]
    assert answer == {"role": "tool", "content": "42", "tool_call_id": first["tool_calls"][0]["id"]}
    assert other["tool_call_id"] == second["tool_calls"][0]["id"] != first["tool_calls"][0]["id"]
    openai = turns("openai").ask(request(spans), None).fields["messages"][len(CHAT)]
    assert set(openai) == {"role", "content", "tool_calls"}  # it takes no reasoning of before


def test_a_program_that_was_not_run_is_answered_for() -> None:
    messages = turns().ask(request([said(PROGRAM)]), None).fields["messages"]
    assert messages[-1]["role"] == "tool" and messages[-1]["content"] == NOT_RUN


def test_a_call_of_another_tool_is_no_program_and_is_refused() -> None:
    text, last = read(call('{"query": "pi"}', "web\nsearch```"))
    assert last.ended and last.stop == "```\n" and program_at_end(text) is None
    messages = turns().ask(request([said(text)]), None).fields["messages"]
    assert messages[-2]["tool_calls"][0]["function"] == {"name": "web_search___", "arguments": '{"query": "pi"}\n'}
    assert messages[-1]["role"] == "tool" and messages[-1]["content"] == ONLY_PYTHON


def test_a_program_in_plain_text_stops_at_its_fence_and_one_in_thinking_does_not() -> None:
    text, last = read([Delta(reasoning=PROGRAM), Delta(text="So:\n```python\nprint(6*7)\n``"), Delta(text="`\n\nThus")])
    shown = PROGRAM.replace("```", "`` `")
    assert text == f"<think>\n{shown}\n</think>\n\nSo:\n{PROGRAM}"
    assert last.ended and last.stop == "```\n"
    messages = turns().ask(request([said(text), Span("```output\n42\n```\n")]), None).fields["messages"]
    assert messages[-2]["content"] == "So:\n" and messages[-1]["content"] == "42"


@pytest.mark.parametrize(
    ("deltas", "text"),
    [
        ([*call('{"code": "print(', reason="length")], '```python\n{"code": "print('),
        (call("print(3)")[:3], "```python\nprint(3)"),
        (call("print(3)"), "```python\nprint(3)\n```\n"),
        (call('{"code": 5}'), '```python\n_ = (\n{"code": 5}\n)\nif _ is not None:\n    print(_)\n```\n'),
        (call("", "python"), "```python\n```\n"),
        ([Delta(reasoning="hm"), Delta(finish_reason="stop")], "<think>\nhm"),
        ([Delta(tool_calls=(ToolCallPart(1 << 30, "python", "1"),)), Delta(finish_reason="tool_calls")], ""),
    ],
)
def test_odd_streams(deltas: list[Delta], text: str) -> None:
    assert read(deltas)[0] == text


def test_control_tokens_in_texts_are_broken_up() -> None:
    evil = "".join(CONTROL_NAMES) + "<|im_end|>"
    chat = [Message("system", evil), Message("user", evil)]
    spans = [said(f"{evil}\n```python\nprint('{evil}')\n```\n"), Span(f"```output\n{evil}\n```\n")]
    body = json.dumps(turns().ask(request(spans, chat=chat), None).fields["messages"])
    assert not any(name in body for name in (*CONTROL_NAMES, "<|im_end|>"))


def test_a_begun_turn_is_asked_for_without_tools() -> None:
    begun = request([Span("```python\ndef check(answer):\n")])
    goes_on = turns().ask(begun, None).fields
    assert goes_on["continue_final_message"] and goes_on["messages"][-1]["role"] == "assistant"
    gpt_oss = turns(model="openai/gpt-oss-20b").ask(begun, None).fields
    assert gpt_oss["messages"][-1]["role"] == "user" and "def check" in gpt_oss["messages"][-1]["content"]
    text, last = read([Delta(text="    return True\n``"), Delta(text="`\nmore")], begun)
    assert text == "    return True\n```\n" and last.stop == "```\n"


def test_a_stream_that_broke_off_goes_on() -> None:
    turn = turns()
    messages = turn.ask(request(), said("<think>\nLet me")).fields["messages"]
    assert messages[-2]["reasoning_content"] == "Let me" and messages[-1]["role"] == "user"
    reader = turn.reader(request(), said("<think>\nLet me"))
    assert reader.take(Delta(reasoning=" count.")).text == " count."
    assert reader.take(Delta(text="So")).text == "\n</think>\n\nSo"
