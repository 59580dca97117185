"""Turns that a server writes and reads itself: OpenAI's `tools`, `tool_calls` and messages of the role "tool".

For hosted servers, and for vLLM, SGLang and llama.cpp with a parser of tool calls. A program stands in the text as a
fenced block, and goes back to the server as a call with its answer. Nothing here knows what tokens were sampled: the
server's template writes a turn anew each time. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mathlete.core.generation import GenerateRequest, SamplingParams, Span
from mathlete.generators.openai_server_dialects import Dialect
from mathlete.generators.openai_server_stream import Delta
from mathlete.generators.openai_server_turns import Asked, ChatTurns, TurnReader, without_control_tokens
from mathlete.generators.tool_programs import NOT_RUN, ONLY_PYTHON, PYTHON_NAME, PYTHON_TOOL, program_in_call
from mathlete.generators.turn_formats import (
    THINK_END,
    THINK_START,
    Read,
    TurnSettings,
    Unfenced,
    is_gpt_oss,
    output_in,
    program_block,
    stop_at_end,
    waits_for_program,
)
from mathlete.ryanstream.stopping import StopMatcher

_PATH = "/chat/completions"
_GO_ON = "Go on exactly where you stopped."
_PYTHON = {
    "type": "function",
    "function": {
        "name": "python",
        "description": PYTHON_TOOL,
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The program, as it is."}},
            "required": ["code"],
        },
    },
}
_MAX_NAME_CHARACTERS = 64
_MAX_CALLS = 128
_THINKING = re.compile(rf"{re.escape(THINK_START)}(.*?)(?:{re.escape(THINK_END)}|\Z)", re.DOTALL)
# A program, or what is told of a call of another tool, at the end of what was written.
_CALL = re.compile(
    r"^(?P<fence>`{3,})(?:python|py|call of (?P<name>\S+))[ \t]*\n(?P<said>.*?)^(?P=fence)\n?\Z",
    re.MULTILINE | re.DOTALL,
)


class ToolCallTurns:
    """The server writes and reads the turns; requests that run no programs are asked without tools."""

    looks_for_stops = True

    def __init__(self, dialect: Dialect, settings: TurnSettings, model: str) -> None:
        """For such a server and model."""
        self._dialect = dialect
        self._settings = settings
        # gpt-oss takes turns as messages in channels: no server goes on with a half of one.
        self._plain = ChatTurns(replace(dialect, continues=False) if is_gpt_oss(model) else dialect)

    def ask(self, request: GenerateRequest, written: Span | None) -> Asked:
        """See `Turns.ask`."""
        if not self._has_python(request):
            asked = self._plain.ask(request, written)
            return Asked(asked.path, {**asked.fields, **self._effort()})
        spans = (*request.continuation, *([written] if written is not None and written.text else ()))
        opening = [_message(message.role, message.content) for message in request.messages]
        messages = [*opening, *_turns(spans, tells_thinking=self._dialect.name != "openai")]
        return Asked(_PATH, {"messages": messages, "tools": [_PYTHON], "parallel_tool_calls": False, **self._effort()})

    def reader(self, request: GenerateRequest, written: Span | None) -> TurnReader:
        """See `Turns.reader`."""
        if not self._has_python(request):
            return _StoppedReader(self._plain.reader(request, written), request.sampling)
        return ToolCallReader(request.sampling, "" if written is None else written.text)

    def _has_python(self, request: GenerateRequest) -> bool:
        return "python" in self._settings.tools and waits_for_program(request)

    def _effort(self) -> Mapping[str, Any]:
        effort = self._settings.reasoning_effort
        if effort is None:
            return {}
        fields: dict[str, Any] = {"reasoning_effort": effort}
        if self._dialect.name == "llama.cpp":  # which knows it as the template's own word
            fields["chat_template_kwargs"] = {"reasoning_effort": effort}
        return fields


@dataclass(slots=True)
class _Call:
    """A call, as far as it came."""

    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class _PlainText:
    """Text in which stop strings end the turn."""

    stops: tuple[str, ...]
    include_stop: bool = True
    _num_bytes: int = 0
    _matcher: StopMatcher = field(init=False)

    def __post_init__(self) -> None:
        self._matcher = StopMatcher(self.stops)

    def take(self, text: str) -> Read:
        piece = text.encode("utf-8", "replace")
        self._num_bytes += len(piece)
        match = self._matcher.push(piece)
        if match is None:
            return Read(text)
        end = match.end if self.include_stop else match.start
        return Read(piece[: max(0, len(piece) - (self._num_bytes - end))].decode("utf-8", "replace"), True, match.stop)


class ToolCallReader:
    """Reads one stream of deltas: thinking, plain text, and a call, which ends the turn."""

    def __init__(self, sampling: SamplingParams, written: str = "") -> None:
        """Go on behind what was `written` in streams before."""
        self._stops = sampling.stop
        self._plain = _PlainText(sampling.stop, sampling.include_stop)
        self._is_thinking = written.rfind(THINK_START) > written.rfind(THINK_END)
        self._unfenced = Unfenced()
        self._calls: dict[int, _Call] = {}

    def take(self, delta: Delta) -> Read:
        """What an event adds."""
        text = ""
        if delta.reasoning:
            text += ("" if self._is_thinking else THINK_START) + self._unfenced.take(delta.reasoning)
            self._is_thinking = True
        if delta.text:
            text += self._thinking_ends()
            read = self._plain.take(delta.text)
            if read.ended:
                return replace(read, text=text + read.text)
            text += read.text
        for part in delta.tool_calls[:_MAX_CALLS]:
            if part.index < _MAX_CALLS:
                call = self._calls.setdefault(part.index, _Call())
                call.name += part.name
                call.arguments += part.arguments
        if delta.finish_reason is not None and delta.finish_reason != "length" and self._calls:
            text += self._thinking_ends() + self._shown_call()
            return Read(text, ended=True, stop=stop_at_end(text, self._stops))
        return Read(text)

    def finish(self, *, was_cut: bool) -> Read:
        """The stream has ended: of a call that was cut off, what came."""
        if not self._calls:
            return Read()
        return Read(f"{self._thinking_ends()}```python\n{self._first_call().arguments}")

    def _thinking_ends(self) -> str:
        was_thinking, self._is_thinking = self._is_thinking, False
        return THINK_END if was_thinking else ""

    def _first_call(self) -> _Call:
        return self._calls[min(self._calls)]

    def _shown_call(self) -> str:
        """The first call: servers are asked for no more than one at once."""
        call = self._first_call()
        if PYTHON_NAME.fullmatch(call.name):
            return program_block(program_in_call(call.arguments))
        name = re.sub(r"[^\w.:-]", "_", call.name[:_MAX_NAME_CHARACTERS]) or "nothing"
        return program_block(call.arguments).replace("python", f"call of {name}", 1)


class _StoppedReader:
    """Looks for stop strings in what another reader reads, thinking included."""

    def __init__(self, reader: TurnReader, sampling: SamplingParams) -> None:
        self._reader = reader
        self._plain = _PlainText(sampling.stop, sampling.include_stop)

    def take(self, delta: Delta) -> Read:
        read = self._reader.take(delta)
        return read if read.ended else self._plain.take(read.text)

    def finish(self, *, was_cut: bool) -> Read:
        return self._reader.finish(was_cut=was_cut)


def _turns(spans: Sequence[Span], *, tells_thinking: bool) -> list[dict[str, Any]]:
    """The turn so far as messages: what the model said and called, what came back, what was put in by the user."""
    messages: list[dict[str, Any]] = []
    for num, span in enumerate(_joined(spans)):
        calls = messages[-1] if messages and "tool_calls" in messages[-1] else None
        if span.is_sampled:
            if calls is not None:
                messages.append(_answer(calls, _unanswered(calls)))
            messages.append(_said(span.text, f"call{num:05d}", tells_thinking))
        elif calls is not None:
            messages.append(_answer(calls, output_in(span.text)))
        elif span.text:
            messages.append(_message("user", span.text))
    if messages and "tool_calls" in messages[-1]:
        messages.append(_answer(messages[-1], _unanswered(messages[-1])))
    elif messages and messages[-1]["role"] == "assistant":
        messages.append(_message("user", _GO_ON))
    return messages


def _joined(spans: Sequence[Span]) -> list[Span]:
    """What the model wrote in several pieces, none of which ends in a call, is one message."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.is_sampled and joined[-1].is_sampled and _CALL.search(joined[-1].text) is None:
            joined[-1] = Span(joined[-1].text + span.text, by_model=True)
        else:
            joined.append(span)
    return joined


def _said(text: str, call_id: str, tells_thinking: bool) -> dict[str, Any]:
    """The message of what the model wrote."""
    thinking = "\n\n".join(_THINKING.findall(text))
    plain = _THINKING.sub("", text)
    call = _CALL.search(plain)
    message = _message("assistant", plain[: call.start()] if call is not None else plain)
    if thinking and tells_thinking:
        message["reasoning_content"] = without_control_tokens(thinking)
    if call is not None:
        told = call["said"] if call["name"] else json.dumps({"code": call["said"]}, ensure_ascii=False)
        function = {"name": call["name"] or "python", "arguments": without_control_tokens(told)}
        message["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
    return message


def _unanswered(message: Mapping[str, Any]) -> str:
    """What is answered to a call that nobody has run."""
    return NOT_RUN if message["tool_calls"][0]["function"]["name"] == "python" else ONLY_PYTHON


def _answer(message: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {**_message("tool", text), "tool_call_id": message["tool_calls"][0]["id"]}


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": without_control_tokens(content)}
