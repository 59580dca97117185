"""Turns over a server's API: what is sent for a request that has got so far, and the text that its stream amounts to.

Three ways: the server's chat template ("chat"); token ids over `/completions`, by a `turn_formats.TokenFormat`
("harmony"); and turns that the server writes and reads itself ("tool_calls"). Pure. Knows no connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mathlete.core.generation import GenerateRequest, Message, Span
from mathlete.generators.openai_server_dialects import Dialect
from mathlete.generators.openai_server_stream import Delta
from mathlete.generators.turn_formats import Read

_THINK, _END_THINK = "<think>", "</think>"
_CONTROL = re.compile(r"<(?=\|[^\s|<>]{1,40}\|>|\uff5c[^\s\uff5c<>]{1,40}\uff5c>)")


PromptPiece = tuple[int, ...] | Mapping[str, Any]
"""Ids, or what `/tokenize` is asked for them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sent.

    Attributes:
        path: of the API.
        fields: of the body, that say what to go on from.
        prompt: pieces of a prompt in ids, each given or to be asked `/tokenize` for; the field "prompt" comes of them.
    """

    path: str
    fields: Mapping[str, Any]
    prompt: tuple[PromptPiece, ...] = ()


class TurnReader(Protocol):
    """Reads one stream."""

    def take(self, delta: Delta) -> Read:
        """What an event adds."""
        ...

    def finish(self, *, was_cut: bool) -> Read:
        """The stream has ended, by a limit (`was_cut`) or by the model's own end: what was held back."""
        ...


class Turns(Protocol):
    """A way of taking turns over a server."""

    @property
    def looks_for_stops(self) -> bool:
        """Whether its reader looks for stop strings; else whoever asks does."""
        ...

    def ask(self, request: GenerateRequest, written: Span | None) -> Asked:
        """What to send for a request of which `written` has come already, from a stream before."""
        ...

    def reader(self, request: GenerateRequest, written: Span | None) -> TurnReader:
        """Of what comes then."""
        ...


class ChatTurns:
    """The server's chat template writes the turns; a turn that has begun is the last message, where that can be."""

    looks_for_stops = False

    def __init__(self, dialect: Dialect) -> None:
        """For such a server."""
        self._dialect = dialect

    def ask(self, request: GenerateRequest, written: Span | None) -> Asked:
        """See `Turns.ask`."""
        spans = (*request.continuation, *([written] if written is not None and written.text else []))
        text = "".join(span.text for span in spans)
        if not text:
            return Asked("/chat/completions", {"messages": chat_fields(request.messages)})
        if not self._dialect.continues:
            return Asked("/chat/completions", {"messages": chat_fields(closed_turns(request.messages, spans))})
        fields: dict[str, Any] = {"messages": chat_fields((*request.messages, Message("assistant", text)))}
        if self._dialect.name != "llama.cpp":  # which does so by itself
            fields |= {"continue_final_message": True, "add_generation_prompt": False}
        return Asked("/chat/completions", fields)

    def reader(self, request: GenerateRequest, written: Span | None) -> TurnReader:
        """See `Turns.reader`."""
        begun = "".join(span.text for span in request.continuation) + (written.text if written is not None else "")
        return _ChatReader(without_control_tokens(begun) if self._dialect.echoes else "", begun)


class _ChatReader:
    """Puts thinking that is told apart between its marks, and leaves out what was echoed."""

    def __init__(self, echo: str, begun: str) -> None:
        self._echo = echo
        self._was_thinking = begun.rfind(_THINK) > begun.rfind(_END_THINK)
        self._is_thinking = False

    def take(self, delta: Delta) -> Read:
        text = ""
        if delta.reasoning:
            text += ("" if self._is_thinking or self._was_thinking else _THINK + "\n") + delta.reasoning
            self._is_thinking = True
        if delta.text:
            said = self._without_echo(delta)
            if self._is_thinking and said:
                text += f"\n{_END_THINK}\n\n"
                self._is_thinking = self._was_thinking = False
            text += said
        return Read(text)

    def finish(self, *, was_cut: bool) -> Read:
        return Read()

    def _without_echo(self, delta: Delta) -> str:
        """llama.cpp's first event has all of the message it goes on with, and the first new token behind it."""
        echo, self._echo = self._echo, ""
        if not echo:
            return delta.text
        if delta.text.startswith(echo):
            return delta.text[len(echo) :]
        spelled = b"".join(token.text or b"" for token in delta.tokens).decode("utf-8", errors="replace")
        return spelled if spelled and delta.text.endswith(spelled) else delta.text


def closed_turns(messages: Sequence[Message], spans: Sequence[Span]) -> list[Message]:
    """A begun turn for a server that cannot go on with one.

    What the model wrote is a turn of its own, and what was put in is said by the user. What was put in before the model
    wrote anything is asked for as the answer's beginning.
    """
    chat = list(messages)
    for span in spans:
        role = "assistant" if span.is_sampled else "user"
        if not span.text:
            continue
        if chat and chat[-1].role == role and len(chat) > len(messages):
            chat[-1] = Message(chat[-1].role, chat[-1].content + span.text)
        elif role == "user" and len(chat) == len(messages) and chat and chat[-1].role == "user":
            begin = f"{chat[-1].content}\n\nBegin your answer with exactly this, and go on behind it:\n{span.text}"
            chat[-1] = Message("user", begin)
        else:
            chat.append(Message("assistant" if span.is_sampled else "user", span.text))
    if chat and chat[-1].role == "assistant" and len(chat) > len(messages):
        chat.append(Message("user", "Go on exactly where you stopped."))
    return chat


def without_control_tokens(text: str) -> str:
    """The text, with a space in whatever reads like a control token, such as `<|im_end|>`.

    Servers take such text for the control token itself, in whatever message it stands: a program's output could close
    the turn and speak as the user.
    """
    return _CONTROL.sub("< ", text)


def chat_fields(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The messages as they are sent."""
    return [{"role": message.role, "content": without_control_tokens(message.content)} for message in messages]
