"""How a model takes its turns: what an engine is given for a request, and what the text is that pillars read.

A pillar knows one kind of turn: text, in which thinking stands between `<think>` and `</think>` and a program in a
fenced block; the harness stops it at the closing fence, puts an ```output block behind it and lets it go on. Models
that speak in channels and call tools do none of that. A `TurnFormat` stands between the two. It is pure: it knows
requests, ids and messages, and neither an engine nor a connection. What no format changes is the account: every token
that was sampled counts, control tokens included, and a turn that goes on begins with exactly the ids that were sampled.

Glossary: a *call* is a message of the model's to a tool. *Forced* tokens are put in, not sampled: to end thinking whose
budget is spent, to refuse a call of a tool that does not exist, to ask for the answer that was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from mathlete.core.generation import GenerateRequest

TurnFormatName = Literal["auto", "chat", "harmony", "tool_calls"]
ReasoningEffort = Literal["low", "medium", "high"]

TOOLS = ("python",)
"""What a model can be given to call."""

THINK_START, THINK_END = "<think>\n", "\n</think>\n\n"
"""What stands around thinking."""

_FENCE_END = "\n```\n"
_OUTPUT_START, _OUTPUT_END = "```output\n", "\n```"


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """What an engine's settings say of turns.

    Attributes:
        turn_format: "chat" (the model's chat template, programs as fenced blocks), "harmony" (gpt-oss: token ids in and
            out), "tool_calls" (the server writes and reads the turns: OpenAI's `tools` and `tool_calls`), or "auto":
            "harmony" where the model's name has "gpt-oss" in it ("tool_calls" over a server that tells no ids), else
            "chat".
        reasoning_effort: how much the model is told to think; None leaves it to the model. Not for "chat".
        tools: what it may call; () for none. Not for "chat".
    """

    turn_format: TurnFormatName = "auto"
    reasoning_effort: ReasoningEffort | None = None
    tools: tuple[str, ...] = TOOLS

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name, known in (("turn_format", TurnFormatName), ("reasoning_effort", ReasoningEffort)):
            value = getattr(self, name)
            if value is not None and value not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")
        if self.turn_format is None:
            raise ValueError(f"turn_format must be one of {', '.join(get_args(TurnFormatName))}")
        if isinstance(self.tools, str) or (unknown := sorted(set(self.tools) - set(TOOLS))):
            told = self.tools if isinstance(self.tools, str) else ", ".join(unknown)
            raise ValueError(f"tools must be a list of {', '.join(TOOLS)}, and has {told!r}")
        if self.turn_format == "chat" and self.reasoning_effort is not None:
            raise ValueError("reasoning_effort is for turn_format harmony and tool_calls: a chat template knows none")

    def resolved(self, model: str) -> TurnFormatName:
        """The format for a model: what "auto" stands for, else as it was set."""
        if self.turn_format != "auto":
            return self.turn_format
        return "harmony" if is_gpt_oss(model) else "chat"


def is_gpt_oss(model: str) -> bool:
    """Whether a model, by its name or path, is one of gpt-oss."""
    return "gpt-oss" in model.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """What an engine is given that takes and tells token ids.

    Attributes:
        token_ids: the prompt.
        stop_token_ids: at which it stops; they belong to the output. Stop strings are looked for by the reader: the
            engine is given none.
    """

    token_ids: tuple[int, ...]
    stop_token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """What a piece of an engine's output adds to the text.

    Attributes:
        text: what it adds.
        ended: whether the turn is over: whatever the engine says behind it is dropped. The finish reason is "stop".
        stop: the stop string that ended it, as the request has it.
        forced: token ids to be put in behind this piece: the engine is stopped, and goes on behind them. `text` has
            what they say.
        num_beyond: tokens of the piece that came behind the end, or behind where tokens are put in: they do not stand.
    """

    text: str = ""
    ended: bool = False
    stop: str | None = None
    forced: tuple[int, ...] = ()
    num_beyond: int = 0


class TokenReader(Protocol):
    """Reads one request's output, token by token."""

    def take(self, token_id: int) -> Read:
        """What the next sampled token adds."""
        ...

    def finish(self, *, was_cut: bool = True) -> Read:
        """The engine has ended by itself: what was held back.

        `was_cut`: by a limit or an abort, so that what is open stays open. Else the turn is over, though the engine
        did not tell the token that ended it.
        """
        ...


class TokenFormat(Protocol):
    """Turns of an engine that takes and tells token ids."""

    @property
    def name(self) -> str:
        """For messages to people."""
        ...

    def prompt(self, request: GenerateRequest) -> TokenPrompt:
        """What the engine is given."""
        ...

    def reader(self, request: GenerateRequest) -> TokenReader:
        """Of what it says then."""
        ...


def waits_for_program(request: GenerateRequest) -> bool:
    """Whether whoever asks runs programs: it stops at closing fences, and has not begun the turn itself."""
    began = bool(request.continuation) and not request.continuation[0].is_sampled
    return not began and any(_FENCE_END.endswith(stop) for stop in request.sampling.stop)


class Unfenced:
    """Shows thinking, which comes in pieces, with its fences broken up: half a block would hide a program behind it."""

    def __init__(self) -> None:
        """Begin a block of thinking."""
        self._num_backticks = 0

    def take(self, text: str) -> str:
        """The next piece, with a space wherever there would be three backticks in a row."""
        if "`" not in text:
            self._num_backticks = 0 if text else self._num_backticks
            return text
        shown = []
        for char in text:
            self._num_backticks = self._num_backticks + 1 if char == "`" else 0
            if self._num_backticks == 3:
                shown.append(" ")
                self._num_backticks = 1
            shown.append(char)
        return "".join(shown)


def program_block(code: str) -> str:
    """A program as the code pillar waits for it. Its fences are longer than any that stands in the program."""
    runs = [len(line.strip()) - len(line.strip().lstrip("`")) for line in code.splitlines()]
    fence = "`" * max(3, *(run + 1 for run in runs if run >= 3), 3)
    body = code if code.endswith("\n") or not code else code + "\n"
    return f"{fence}python\n{body}{fence}\n"


def stop_at_end(text: str, stops: Sequence[str]) -> str | None:
    """The longest of the stop strings that a text ends with."""
    return max((stop for stop in stops if text.endswith(stop)), key=len, default=None)


def output_in(inserted: str) -> str:
    """What a program printed, of the block in which the harness shows it; all of the text when it is no such block."""
    text = inserted.removeprefix("\n")
    if not text.startswith(_OUTPUT_START):
        return inserted
    return text.removeprefix(_OUTPUT_START).rstrip("\n").removesuffix(_OUTPUT_END.strip("\n")).rstrip("\n")
