"""gpt-oss models' turns (Harmony): a request as the ids of messages in channels, with a python tool to call.

What stands in messages is encoded as plain text, so neither a statement nor what a program printed can hold a control
token. A turn that goes on begins with exactly the ids of its earlier requests. See docs/turn-formats.md.
"""

from __future__ import annotations

from mathlete.core.generation import GenerateRequest, Message
from mathlete.generators.harmony_reader import HarmonyReader
from mathlete.generators.harmony_tokens import CALL, CHANNEL, END, END_OF_TEXT, MESSAGE, RETURN, START, HarmonyTokens
from mathlete.generators.tool_programs import NOT_RUN, PYTHON_TOOL
from mathlete.generators.turn_formats import (
    THINK_END,
    THINK_START,
    ReasoningEffort,
    TokenPrompt,
    TurnSettings,
    output_in,
    waits_for_program,
)

CURRENT_DATE = "2025-08-05"
"""What the model is told, whatever the day: a run repeats. (The day these models came out.)"""

_DEFAULT_EFFORT: ReasoningEffort = "medium"
_SYSTEM = """\
You are ChatGPT, a large language model trained by OpenAI.
Knowledge cutoff: 2024-06
Current date: {date}

Reasoning: {effort}

{tools}# Valid channels: analysis, commentary, final. Channel must be included for every message."""
_PYTHON = """\
# Tools

## python

{description}

"""


class Harmony:
    """The `TokenFormat` of gpt-oss models."""

    name = "harmony"

    def __init__(self, tokens: HarmonyTokens, settings: TurnSettings | None = None) -> None:
        """Speak through an encoding, as `settings` say."""
        self._tokens = tokens
        self._settings = settings or TurnSettings("harmony")
        control = tokens.control
        self._stop_token_ids = (control[RETURN], control[CALL], control[END_OF_TEXT])

    def prompt(self, request: GenerateRequest) -> TokenPrompt:
        """The chat, the turn so far, and where the engine stops."""
        ids = self._opening(request)
        ids += self._continued(self._new_reader(request), request)
        return TokenPrompt(tuple(ids), self._stop_token_ids)

    def reader(self, request: GenerateRequest) -> HarmonyReader:
        """One that has read the turn so far."""
        reader = self._new_reader(request)
        self._continued(reader, request)
        return reader

    def _new_reader(self, request: GenerateRequest) -> HarmonyReader:
        return HarmonyReader(self._tokens, request.sampling, self._has_python(request))

    def _has_python(self, request: GenerateRequest) -> bool:
        return "python" in self._settings.tools and waits_for_program(request)

    def _opening(self, request: GenerateRequest) -> list[int]:
        tools = _PYTHON.format(description=PYTHON_TOOL) if self._has_python(request) else ""
        effort = self._settings.reasoning_effort or _DEFAULT_EFFORT
        ids = self._message(START, "system", MESSAGE, _SYSTEM.format(date=CURRENT_DATE, effort=effort, tools=tools))
        for message in request.messages:
            ids += self._closed_turn(message)
        return [*ids, self._tokens.control[START], *self._tokens.encode("assistant")]

    def _closed_turn(self, message: Message) -> list[int]:
        if message.role == "system":
            return self._message(START, "developer", MESSAGE, f"# Instructions\n\n{message.content}")
        if message.role == "user":
            return self._message(START, "user", MESSAGE, message.content)
        said = message.content.rpartition("</think>")[2].lstrip("\n")  # these models see no earlier thinking
        return self._message(START, "assistant", CHANNEL, "final", MESSAGE, said)

    def _message(self, *pieces: str) -> list[int]:
        """The ids of a closed message: control tokens and names in turn, and what it says, which is plain text."""
        *header, content = pieces
        ids: list[int] = []
        for piece in header:
            control = self._tokens.control.get(piece)
            ids += self._tokens.encode(piece) if control is None else [control]
        return [*ids, *self._tokens.encode(content), self._tokens.control[END]]

    def _continued(self, reader: HarmonyReader, request: GenerateRequest) -> list[int]:
        """The turn so far, as ids; `reader` reads it."""
        ids: list[int] = []
        for span in request.continuation:
            if span.token_ids:
                ids += reader.replay(span.token_ids, span.text)
                if reader.open_message == "program":  # an engine that does not tell the token at which it stopped
                    ids += reader.put_in(CALL)
            elif span.is_sampled:
                ids += self._written_again(reader, span.text)
            elif reader.called is not None:
                ids += self._tool_message(reader, output_in(span.text))
            elif span.text:
                ids += self._inserted(reader, span.text)
        if reader.called is not None:  # whoever asks has not run the program, and wants the turn to go on
            ids += self._tool_message(reader, NOT_RUN)
        return ids

    def _tool_message(self, reader: HarmonyReader, output: str) -> list[int]:
        """What came back of a call, on the channel of the call."""
        called = reader.called
        assert called is not None, "there is a call to answer"
        header = (START, f"{called.recipient} to=assistant", CHANNEL, called.channel or "commentary")
        ids = [*self._message(*header, MESSAGE, output), self._tokens.control[START], *self._tokens.encode("assistant")]
        reader.begin_turn()
        return ids

    def _inserted(self, reader: HarmonyReader, text: str) -> list[int]:
        """What the harness says in the model's place: in the open message, else in a final one."""
        ids = [] if reader.open_message is not None else self._begun(reader, "final")
        return [*ids, *reader.put_in_text(text)]

    def _begun(self, reader: HarmonyReader, channel: str) -> list[int]:
        start = () if reader.header_begins else (START, "assistant")
        return reader.put_in(*start, CHANNEL, channel, MESSAGE)

    def _written_again(self, reader: HarmonyReader, text: str) -> list[int]:
        """What the model wrote, of an engine that has lost the ids (it was started again): thinking and plain text."""
        ids: list[int] = []
        while text:
            if reader.open_message is None and text.startswith(THINK_START):
                ids += self._begun(reader, "analysis")
                text = text.removeprefix(THINK_START)
            if reader.open_message == "thinking":
                said, end, text = text.partition(THINK_END)
                ids += [*reader.put_in_text(said), *(reader.put_in(END) if end else ())]
            else:
                said, start, rest = text.partition(f"\n\n{THINK_START}")
                ids += [*self._inserted(reader, said), *(reader.put_in(END) if start else ())]
                text = THINK_START + rest if start else ""
        return ids
