"""One request's output as text, token by token, for an engine that takes and tells ids: where it ends, what is put in.

Two ways to read: `ChatTurns` for models whose turns are text (the same rules as the embedded engine's, to the byte),
`FormatTurns` for those with a `TokenFormat` of their own. Knows no engine.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from mathlete.core.generation import GenerateRequest, Message
from mathlete.generators.turn_formats import TokenFormat, TokenPrompt, TokenReader
from mathlete.generators.turn_tokens import continuation_ids, thinking_tokens
from mathlete.ryanstream.model.tokenizer import EngineTokenizer
from mathlete.ryanstream.stopping import StopMatcher
from mathlete.ryanstream.thinking import ThinkingBudget

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Taken(NamedTuple):
    """What a token, or the end of an engine's output, amounts to.

    Attributes:
        text: what it adds, as far as it can be told already.
        ended: whether the turn is over, with the finish reason "stop".
        stop: the stop string that ended it.
        forced: ids that come next and are put in, not drawn.
    """

    text: str = ""
    ended: bool = False
    stop: str | None = None
    forced: tuple[int, ...] = ()


class TurnReader(Protocol):
    """Reads one request's output."""

    @property
    def text(self) -> str:
        """All that was said, cut where a stop string ended it."""
        ...

    def start(self) -> Taken:
        """What comes before the first token: ids that are put in, if the prompt already wants them."""
        ...

    def take(self, token_id: int, is_forced: bool) -> Taken:
        """What the next token adds; `is_forced` for one that was put in."""
        ...

    def finish(self, was_cut: bool) -> Taken:
        """The engine has ended and tells no more: what was held back, and whether it amounts to an end.

        `was_cut`: by a limit or an abort.
        """
        ...


class Turns(Protocol):
    """How a model takes its turns."""

    @property
    def turn_start(self) -> str:
        """What an assistant's turn begins with before the model writes."""
        ...

    def prompt(self, request: GenerateRequest) -> TokenPrompt:
        """Ids that the engine is given, and those at which it stops; they belong to the output."""
        ...

    def reader(self, request: GenerateRequest, prompt_ids: Sequence[int]) -> TurnReader:
        """Of what it says then."""
        ...


class ChatTurns:
    """Turns that are text between control tokens."""

    def __init__(
        self,
        tokenizer: EngineTokenizer,
        token_bytes: Sequence[bytes],
        chat: Callable[[Sequence[Message]], list[int]],
        turn_start: str = "",
    ) -> None:
        """Write chats with `chat`, which gives their ids up to the start of the assistant's turn."""
        self.turn_start = turn_start
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._chat = chat
        self._thinking = thinking_tokens(tokenizer)

    def prompt(self, request: GenerateRequest) -> TokenPrompt:
        """The chat, and the assistant's turn as far as it stands: what was sampled by its ids, the rest encoded.

        Raises:
            EngineError: the model's chat template does not take these messages.
        """
        ids = [*self._chat(request.messages), *continuation_ids(self._tokenizer, request.continuation)]
        ends = () if request.sampling.ignore_eos else self._tokenizer.eos_token_ids
        return TokenPrompt(tuple(ids), tuple(sorted({*ends, *request.sampling.stop_token_ids})))

    def reader(self, request: GenerateRequest, prompt_ids: Sequence[int]) -> TurnReader:
        """Stop strings, thinking budget and end of text as in the embedded engine."""
        return _ChatReader(request, self.prompt(request).stop_token_ids, self._token_bytes, self._budget, prompt_ids)

    def _budget(self, budget: int, prompt_ids: Sequence[int]) -> ThinkingBudget:
        return ThinkingBudget(self._thinking, self._token_bytes, budget, prompt_ids)


class _ChatReader:
    def __init__(
        self,
        request: GenerateRequest,
        ends: Sequence[int],
        token_bytes: Sequence[bytes],
        budget: Callable[[int, Sequence[int]], ThinkingBudget],
        prompt_ids: Sequence[int],
    ) -> None:
        sampling = request.sampling
        self._include_stop = sampling.include_stop
        self._ends = frozenset(ends)
        self._token_bytes = token_bytes
        self._matcher = StopMatcher(sampling.stop)
        self._decoder = _new_decoder("replace")
        self._raw = bytearray()
        self._num_bytes: int | None = None  # that count, where a stop string ended the text
        wanted = sampling.thinking_budget
        self._thinking = None if wanted is None else budget(wanted, prompt_ids)

    @property
    def text(self) -> str:
        """See `TurnReader.text`."""
        return self._raw[: self._num_bytes].decode("utf-8", errors="replace")

    def start(self) -> Taken:
        """See `TurnReader.start`."""
        return Taken(forced=self._forced())

    def take(self, token_id: int, is_forced: bool) -> Taken:
        """See `TurnReader.take`."""
        spelled = self._token_bytes[token_id] if token_id < len(self._token_bytes) else b""
        self._raw += spelled
        if self._thinking is not None:
            self._thinking.push(token_id)
        if token_id in self._ends:
            return Taken(ended=True)
        match = self._matcher.push(spelled)
        if match is not None:
            self._num_bytes = match.end if self._include_stop else match.start
            return Taken(ended=True, stop=match.stop)
        return Taken(self._decoder.decode(spelled), forced=self._forced())

    def finish(self, was_cut: bool) -> Taken:
        """See `TurnReader.finish`; nothing is held back here."""
        return Taken()

    def _forced(self) -> tuple[int, ...]:
        forced_id = None if self._thinking is None else self._thinking.forced_id
        return () if forced_id is None else (forced_id,)


class FormatTurns:
    """Turns as a `TokenFormat` takes them."""

    turn_start = ""

    def __init__(self, token_format: TokenFormat) -> None:
        """Follow `token_format`."""
        self._format = token_format

    def prompt(self, request: GenerateRequest) -> TokenPrompt:
        """See `TokenFormat.prompt`."""
        made = self._format.prompt(request)
        return TokenPrompt(made.token_ids, tuple(sorted({*made.stop_token_ids, *request.sampling.stop_token_ids})))

    def reader(self, request: GenerateRequest, prompt_ids: Sequence[int]) -> TurnReader:
        """See `TokenFormat.reader`."""
        return _FormatReader(self._format.reader(request), request.sampling.stop_token_ids)


class _FormatReader:
    def __init__(self, reader: TokenReader, ends: Sequence[int]) -> None:
        self._reader = reader
        self._ends = frozenset(ends)
        self._told: list[str] = []

    @property
    def text(self) -> str:
        """See `TurnReader.text`."""
        return "".join(self._told)

    def start(self) -> Taken:
        """See `TurnReader.start`."""
        return Taken()

    def take(self, token_id: int, is_forced: bool) -> Taken:
        """See `TurnReader.take`. What forced tokens say was told with the token before them."""
        if is_forced:
            return Taken()
        read = self._reader.take(token_id)
        self._told.append(read.text)
        return Taken(read.text, read.ended or token_id in self._ends, read.stop, read.forced)

    def finish(self, was_cut: bool) -> Taken:
        """See `TurnReader.finish`."""
        read = self._reader.finish(was_cut=was_cut)
        self._told.append(read.text)
        return Taken(read.text, read.ended, read.stop, read.forced)
