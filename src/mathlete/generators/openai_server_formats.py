"""Turn formats over a server: which one it is asked in, and what a generator can do then.

Token ids go over `/completions`, by a `turn_formats.TokenFormat` ("harmony"); turns that the server writes and reads
itself are `tool_calls`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mathlete.core.errors import EngineError
from mathlete.core.generation import Capabilities, GenerateRequest, Span
from mathlete.generators.openai_server_dialects import Dialect
from mathlete.generators.openai_server_events import BrokenStream
from mathlete.generators.openai_server_exact import ExactTurns
from mathlete.generators.openai_server_stream import Delta
from mathlete.generators.openai_server_turns import Asked, ChatTurns, TurnReader, Turns
from mathlete.generators.tool_calls import ToolCallTurns
from mathlete.generators.turn_formats import Read, TokenFormat, TokenReader, TurnFormatName, TurnSettings

LoadFormat = Callable[[], TokenFormat]
"""Loads the Harmony format; called where it is needed only."""


def no_harmony() -> TokenFormat:
    """For whoever has no vocabulary to offer. Raises `EngineError`."""
    raise EngineError("turn_format harmony needs gpt-oss's vocabulary, and none was given: see docs/turn-formats.md")


def format_of(settings: TurnSettings, dialect: Dialect, model: str) -> TurnFormatName:
    """The turn format that is used: of "auto", Harmony only where the server tells the ids of tokens.

    Raises:
        EngineError: Harmony was asked for, and the server does not tell them.
    """
    resolved = settings.resolved(model)
    if resolved != "harmony" or dialect.tells_ids:
        return resolved
    if settings.turn_format == "auto":
        return "tool_calls"
    raise EngineError(
        f"turn_format harmony needs a server that takes token ids and tells them, as vLLM does, and this one "
        f"({dialect.name}) does not: set turn_format to tool_calls, with which the server itself speaks Harmony"
    )


def turns_of(name: TurnFormatName, settings: TurnSettings, dialect: Dialect, model: str, load: LoadFormat) -> Turns:
    """The way of taking turns of that name. Raises what `load` does."""
    if name == "harmony":
        return TokenTurns(load())
    if name == "tool_calls":
        return ToolCallTurns(dialect, settings, model)
    return ExactTurns(dialect) if dialect.tokenizes and dialect.tells_ids else ChatTurns(dialect)


def capabilities_with(name: TurnFormatName, capabilities: Capabilities) -> Capabilities:
    """What a generator does with a format, of what it does with chats."""
    if name == "harmony":
        return replace(capabilities, rewinding=False, thinking_budget=True, continuation=True)
    if name == "tool_calls":
        return replace(capabilities, rewinding=False, token_ids=False, continuation=False)
    return capabilities


class TokenTurns:
    """Token ids in and out; the format writes and reads the turns, and looks for stop strings."""

    looks_for_stops = True

    def __init__(self, token_format: TokenFormat) -> None:
        """Turns of that format."""
        self._format = token_format

    def ask(self, request: GenerateRequest, written: Span | None) -> Asked:
        """See `Turns.ask`."""
        prompt = self._format.prompt(request)
        so_far = () if written is None else written.token_ids
        fields = {
            "prompt": [*prompt.token_ids, *so_far],
            "stop": [],
            "stop_token_ids": [*prompt.stop_token_ids, *request.sampling.stop_token_ids],
            "skip_special_tokens": False,
            "add_special_tokens": False,
        }
        return Asked("/completions", fields)

    def reader(self, request: GenerateRequest, written: Span | None) -> TurnReader:
        """See `Turns.reader`."""
        reader = self._format.reader(request)
        forced: list[int] = []  # they stand where they were put in, and are read already
        for token_id in () if written is None else written.token_ids:
            forced = forced[1:] if forced else list(reader.take(token_id).forced)
        return _TokenTurnReader(reader)


class _TokenTurnReader:
    """Hands the ids of each event to a format's reader."""

    def __init__(self, reader: TokenReader) -> None:
        self._reader = reader

    def take(self, delta: Delta) -> Read:
        if delta.text and not delta.token_ids:
            raise BrokenStream("it does not tell the ids of its tokens, and turn_format harmony needs them")
        text = ""
        for place, token_id in enumerate(delta.token_ids, 1):
            read = self._reader.take(token_id)
            text += read.text
            if read.ended or read.forced:
                return replace(read, text=text, num_beyond=len(delta.token_ids) - place)
        return Read(text)

    def finish(self, *, was_cut: bool) -> Read:
        return self._reader.finish(was_cut=was_cut)
