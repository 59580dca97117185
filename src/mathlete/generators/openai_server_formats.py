"""Which way of taking turns a server is asked in, and what a generator can do then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mathlete.core.errors import EngineError
from mathlete.core.generation import Capabilities
from mathlete.generators.openai_server_dialects import Dialect
from mathlete.generators.openai_server_turns import ChatTurns, TokenTurns, Turns
from mathlete.generators.tool_calls import ToolCallTurns
from mathlete.generators.turn_formats import TokenFormat, TurnFormatName, TurnSettings

LoadFormat = Callable[[], TokenFormat]
"""Loads the Harmony format; called where it is needed only."""


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
    return ToolCallTurns(dialect, settings, model) if name == "tool_calls" else ChatTurns(dialect)


def capabilities_with(name: TurnFormatName, capabilities: Capabilities) -> Capabilities:
    """What a generator does with a format, of what it does with chats."""
    if name == "harmony":
        return replace(capabilities, rewinding=False, thinking_budget=True, continuation=True)
    if name == "tool_calls":
        return replace(capabilities, rewinding=False, token_ids=False, continuation=False)
    return capabilities
