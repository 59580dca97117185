"""Reads what a gpt-oss model says, token by token, into the text that pillars know.

Analysis becomes a `<think>` block, a call of python a fenced block that ends the turn, everything else plain text. A
model may say anything: a header that never ends, channels and tools that there are not, a message without an end.
Each of these has a reading here, and none is an error. Knows nothing of engines; what stands in front of a turn is
`harmony`'s.
"""

from __future__ import annotations

import codecs
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mathlete.core.generation import SamplingParams
from mathlete.generators.harmony_tokens import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    MESSAGE,
    RETURN,
    START,
    HarmonyTokens,
)
from mathlete.generators.tool_programs import NO_SUCH_TOOL, ONLY_PYTHON, PYTHON_NAME, program_in_call
from mathlete.generators.turn_formats import THINK_END, THINK_START, Read, Unfenced, program_block, stop_at_end
from mathlete.ryanstream.stopping import StopMatcher

Kind = Literal["thinking", "program", "refused", "text", "others"]

_MAX_HEADER_TOKENS = 48
_MAX_NAME_CHARACTERS = 64
_CHANNELS = frozenset({"analysis", "commentary", "final"})
_NO_TOOL = frozenset({"", "assistant", "user", "all"})
_ASK_FOR_ANSWER = (START, "assistant", CHANNEL, "final", MESSAGE)
_new_decoder = codecs.getincrementaldecoder("utf-8")


@dataclass(slots=True)
class _Header:
    """What stands between `<|start|>` and `<|message|>`; `channel` is what is behind `<|channel|>`."""

    role: bytes = b""
    channel: bytes | None = None
    num_tokens: int = 0

    def add(self, raw: bytes) -> None:
        """Take the next piece of it in."""
        if self.channel is None:
            self.role += raw
        else:
            self.channel += raw
        self.num_tokens += 1

    def words(self) -> tuple[list[str], list[str]]:
        """Those of the role's part and those of the channel's."""
        role, channel = (part.decode("utf-8", "replace").split() for part in (self.role, self.channel or b""))
        return role, channel


@dataclass(slots=True)
class _Message:
    """A message of the model's, as far as it was read."""

    kind: Kind
    channel: str = ""
    recipient: str = ""
    said: str = ""
    num_tokens: int = 0
    num_bytes: int = 0
    matcher: StopMatcher = field(default_factory=lambda: StopMatcher(()))
    unfenced: Unfenced = field(default_factory=Unfenced)


@dataclass(frozen=True, slots=True)
class Called:
    """A call of python that was not answered yet, and the channel it was made on."""

    recipient: str
    channel: str


class HarmonyReader:
    """A turn of the model's, as far as it was read.

    Attributes:
        text: what was read of the request's own output; of what `replay` is given, nothing.
        called: the call of python that is not answered yet.
    """

    def __init__(self, tokens: HarmonyTokens, sampling: SamplingParams, has_python: bool) -> None:
        """Begin behind a prompt that ends in `<|start|>assistant`.

        Args:
            tokens: the encoding.
            sampling: stop strings, which are looked for in plain text only, and the budget of thinking.
            has_python: whether a call of python ends the turn; else it is refused, as any other call is.
        """
        self._tokens = tokens
        self._names = {token_id: name for name, token_id in tokens.control.items()}
        self._sampling = sampling
        self._has_python = has_python
        self._decoder = _new_decoder("replace")
        self._header: _Header | None = None
        self._message: _Message | None = None
        self._last_kind: Kind | None = None
        self._asked_for_answer = False
        self._replaying = False
        self.text = ""
        self.called: Called | None = None
        self.begin_turn()

    def begin_turn(self) -> None:
        """What was called has been answered, and the prompt ends in `<|start|>assistant` again."""
        self.called, self._header, self._message = None, _Header(b"assistant"), None

    @property
    def open_message(self) -> Kind | None:
        """The kind of the message that is being written; None between messages."""
        return None if self._message is None else self._message.kind

    @property
    def header_begins(self) -> bool:
        """Whether nothing was said yet behind `<|start|>assistant`."""
        return self._header is not None and self._header.num_tokens == 0 and self._header.channel is None

    def take(self, token_id: int) -> Read:
        """What the next token of the output adds."""
        read = self._step(token_id)
        if self._is_thinking_too_long and not (read.ended or read.forced):
            read = self._force(read.text, (END, *_ASK_FOR_ANSWER))
        self.text += read.text
        if read.stop is not None and not self._sampling.include_stop:
            self.text = self.text.removesuffix(read.stop)
        return read

    def finish(self, *, was_cut: bool = True) -> Read:
        """The engine has ended by itself; see `TokenReader.finish`."""
        if was_cut:
            read = Read(self._rest())
        else:
            closed = self._close(CALL if self.open_message == "program" else RETURN)
            read = Read(closed.text, ended=True, stop=closed.stop)
        self.text += read.text
        return read

    def replay(self, token_ids: Sequence[int], text: str) -> list[int]:
        """Read again what was sampled for an earlier request of this turn, and tell what of it stays in the prompt.

        What goes beyond `text` is left out (a stop string ended inside a token); the rest of `text` is encoded anew.
        What ended the turn without a call is left out too: the turn goes on.
        """
        probe = copy.deepcopy(self, {id(self._tokens): self._tokens})
        probe._replaying = True
        kept: list[int] = []
        said, rest = "", ""
        for token_id in token_ids:
            read = probe._step(token_id)
            if read.ended and (probe.called is None or token_id == self._tokens.control[START]):
                break
            if probe.open_message == "text" and len(said) + len(read.text) > len(text):
                rest = text[len(said) :]
                break
            said += read.text
            kept.append(token_id)
        kept += self._tokens.encode(rest)
        self._pass_over(kept)
        return kept

    def put_in(self, *pieces: str) -> list[int]:
        """Add what the harness says: control tokens, by name, and plain text. Returns their ids."""
        ids = self._ids_of(pieces)
        self._pass_over(ids)
        return ids

    def put_in_text(self, text: str) -> list[int]:
        """Add plain text, whatever it says, to the open message. Returns its ids."""
        ids = self._tokens.encode(text)
        self._pass_over(ids)
        return ids

    def _ids_of(self, pieces: Sequence[str]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            control = self._tokens.control.get(piece)
            ids += self._tokens.encode(piece) if control is None else [control]
        return ids

    def _pass_over(self, token_ids: Sequence[int]) -> str:
        """Follow tokens that are not the request's own output: nothing ends at them. Returns what they say."""
        self._replaying = True
        said = "".join(self._step(token_id).text for token_id in token_ids)
        self._replaying = False
        return said

    def _force(self, said: str, pieces: Sequence[str]) -> Read:
        """Put tokens in; in a replay they follow by themselves."""
        if self._replaying:
            return Read(said)
        ids = self._ids_of(pieces)
        return Read(said + self._pass_over(ids), forced=tuple(ids))

    @property
    def _is_thinking_too_long(self) -> bool:
        budget, message = self._sampling.thinking_budget, self._message
        if message is None or budget is None or message.kind != "thinking":
            return False
        return message.num_tokens >= budget

    def _step(self, token_id: int) -> Read:
        name = self._names.get(token_id)
        if name is None:
            return self._ordinary(self._tokens.spelled(token_id))
        if name == START:
            read = self._close(name)
            self._header = _Header()
            return read
        if name == CHANNEL:
            read = self._close(name) if self._message is not None else Read()
            self._header = self._header or _Header(b"assistant")
            self._header.channel = b""
            return read
        if name == CONSTRAIN:
            if self._header is not None:
                self._header.add(b" ")
            return Read()
        if name == MESSAGE:
            return self._open() if self._message is None else Read()
        return self._close(name) if name in (END, CALL) and self._message is not None else self._end_turn()

    def _ordinary(self, raw: bytes) -> Read:
        message = self._message
        if message is None:
            return self._in_header(raw)
        message.num_tokens += 1
        text = self._decoder.decode(raw)
        if message.kind in ("program", "refused"):
            message.said += text
        if message.kind == "thinking":
            return Read(message.unfenced.take(text))
        if message.kind == "text" and self._replaying:
            return Read(text)
        return self._plain(message, text) if message.kind == "text" else Read()

    def _in_header(self, raw: bytes) -> Read:
        header = self._header = self._header or _Header()
        header.add(raw)
        if header.num_tokens <= _MAX_HEADER_TOKENS:
            return Read()
        self._header, self._message = None, _Message("text", matcher=StopMatcher(self._sampling.stop))
        said = (header.role.removeprefix(b"assistant") + (header.channel or b"")).decode("utf-8", "replace")
        return Read(said)

    def _plain(self, message: _Message, text: str) -> Read:
        piece = text.encode()
        message.num_bytes += len(piece)
        match = message.matcher.push(piece)
        if match is None:
            return Read(text)
        num_beyond = message.num_bytes - match.end
        return Read(piece[: len(piece) - num_beyond].decode(), ended=True, stop=match.stop)

    def _open(self) -> Read:
        """A header is complete."""
        role, channel = (self._header or _Header()).words()
        self._header = None
        if role and not role[0].startswith("assistant"):  # of a tool in a replay; else the model speaks for others
            self._message = _Message("others")
            return Read(ended=not self._replaying)
        recipient = next((word[3:] for word in (*role, *channel) if word.startswith("to=")), "")
        names = [word for word in channel if not word.startswith("to=")]
        name = names[0] if names else ""
        if recipient not in _NO_TOOL or "code" in names[1:]:
            is_python = not recipient or PYTHON_NAME.fullmatch(recipient) is not None
            kind: Kind = "program" if is_python and self._has_python else "refused"
        else:
            kind = "thinking" if name.startswith("analysis") else "text"
        known = name if name in _CHANNELS else ""  # it may stand in a header again: a model's word could be anything
        self._message = _Message(kind, known, recipient or "python", matcher=StopMatcher(self._sampling.stop))
        return Read(THINK_START if kind == "thinking" else "")

    def _close(self, by: str) -> Read:
        """The open message ends, if there is one, at the control token `by`."""
        message, self._message = self._message, None
        if message is None:
            return Read()
        self._header = None
        self._last_kind = message.kind
        rest = self._decoder.decode(b"", final=True)
        if message.kind == "thinking":
            return Read(rest + THINK_END)
        if message.kind == "text":
            is_last = by in (RETURN, CALL) or (by == END and message.channel == "final")
            return Read(rest if is_last else f"{rest}\n\n", ended=is_last)
        if message.kind == "program":
            self.called = Called(message.recipient, message.channel)
            text = program_block(program_in_call(message.said + rest))
            return Read(text, ended=True, stop=stop_at_end(text, self._sampling.stop))
        return self._refuse(message, rest) if message.kind == "refused" else Read()

    def _refuse(self, message: _Message, rest: str) -> Read:
        """Answer a call that nobody can answer, so that the model goes on without it."""
        name = message.recipient[:_MAX_NAME_CHARACTERS]
        shown = Unfenced().take(message.said + rest)
        said = f"{THINK_START}[call of {name}, which is no tool here]\n{shown}{THINK_END}"
        told = ONLY_PYTHON if self._has_python else NO_SUCH_TOOL
        header = (START, f"{name} to=assistant", CHANNEL, message.channel or "commentary", MESSAGE)
        return self._force(said, (*header, told, END, START, "assistant"))

    def _end_turn(self) -> Read:
        """The model has nothing more to say, or calls nobody. If it only thought, it is asked for its answer, once."""
        read = self._close(RETURN)
        if read.ended or read.forced:
            return read
        if self._last_kind == "thinking" and not self._asked_for_answer:
            self._asked_for_answer = True
            return self._force(read.text, _ASK_FOR_ANSWER)
        return Read(read.text, ended=True)

    def _rest(self) -> str:
        """What an output that was cut off still holds back."""
        rest = self._decoder.decode(b"", final=True)
        message = self._message
        if message is None or message.kind == "others":
            return ""
        if message.kind == "program":
            return f"```python\n{message.said}{rest}"
        return f"{THINK_START}{message.said}{rest}" if message.kind == "refused" else rest
