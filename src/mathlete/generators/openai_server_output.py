"""What one request has got so far, over all its streams. Pure bookkeeping; knows no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from mathlete.core.generation import Completion, FinishReason, SamplingParams, Span, TokenLogprob, Usage
from mathlete.generators.openai_server_stream import Delta, ToldToken, ToldUsage

_NUM_LIKELIEST = 20  # of DeepConf's confidence: see `Completion.top_means`


@dataclass(slots=True)
class _Piece:
    """What one event added."""

    text: str
    num_tokens: int
    token_ids: tuple[int, ...]
    tokens: tuple[ToldToken, ...]


@dataclass(slots=True)
class ServerOutput:
    """Pieces in order, and the counts.

    Attributes:
        num_discarded: tokens that were written and taken back.
        num_forced: tokens that were put in.
    """

    num_discarded: int = 0
    num_forced: int = 0
    _pieces: list[_Piece] = field(default_factory=list)
    _num_before: int = 0  # tokens of streams before this one
    _usage: ToldUsage | None = None  # of this stream

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(piece.text for piece in self._pieces)

    @property
    def num_tokens(self) -> int:
        """All that were counted; the servers' own count where there is one."""
        return sum(piece.num_tokens for piece in self._pieces)

    @property
    def written(self) -> Span:
        """As the beginning of a turn."""
        return Span(self.text, tuple(i for piece in self._pieces for i in piece.token_ids), by_model=True)

    def add(self, text: str, delta: Delta) -> int:
        """Take an event in, which says `text`; how many tokens it is counted as."""
        num = self._num_new(delta)
        self._usage = delta.usage or self._usage
        if text or num or delta.tokens:
            self._pieces.append(_Piece(text, num, delta.token_ids, delta.tokens))
        return num

    def put_in(self, token_ids: tuple[int, ...]) -> None:
        """Tokens that the model did not draw; nothing is told of them but that they count."""
        self.num_forced += len(token_ids)
        self._pieces.append(_Piece("", len(token_ids), token_ids, ()))

    def covered(self, text: str, reason: FinishReason) -> Span:
        """The ids that spell the beginning of `text`, and the rest of it, which only a part of a token spells.

        What ended the text by itself spells nothing, and does not belong to it.
        """
        ids: list[int] = []
        told, pending = "", list[int]()
        for piece in self._pieces:
            if not text.startswith(told + piece.text):
                break
            pending += piece.token_ids
            told += piece.text
            if piece.text:
                ids, pending = ids + pending, []
        if reason != "stop" and told == text:
            ids += pending  # parts of a character
        return Span(text[len(told) :], tuple(ids))

    def drop_unfinished(self) -> None:
        """Take back tokens at the end that have spelled nothing yet: parts of a character that broke off."""
        while self._pieces and not self._pieces[-1].text:
            self.num_discarded += self._pieces.pop().num_tokens

    def settle(self) -> None:
        """The stream has ended: what the server counted beyond what it told (an end of text) is counted too."""
        if self._usage is not None and not any(piece.token_ids for piece in self._pieces):
            missing = self._num_before + self._usage.output - self.num_tokens
            if missing and self._pieces:
                self._pieces[-1].num_tokens = max(0, self._pieces[-1].num_tokens + missing)
            elif missing > 0:
                self._pieces.append(_Piece("", missing, (), ()))

    def begin_stream(self) -> None:
        """Another stream goes on with what there is."""
        self._num_before = self.num_tokens
        self._usage = None

    def keep(self, num_tokens: int) -> str | None:
        """Go back to the first `num_tokens`; the text that is left, or None where no piece ends there."""
        counted = 0
        for i, piece in enumerate([*self._pieces, None]):
            if counted == num_tokens:
                self.num_discarded += self.num_tokens - num_tokens
                del self._pieces[i:]
                return self.text
            if piece is not None:
                counted += piece.num_tokens
        return None

    def completion(
        self,
        reason: FinishReason,
        sampling: SamplingParams,
        *,
        text: str | None = None,
        stop: str | None = None,
        error: str | None = None,
    ) -> Completion:
        """What the request gave; `text` where a stop string cut it."""
        ids = tuple(i for piece in self._pieces for i in piece.token_ids)
        tokens = [token for piece in self._pieces for token in piece.tokens]
        usage = self._usage or ToldUsage(0, 0, 0)
        return Completion(
            text=self.text if text is None else text,
            token_ids=ids,
            logprobs=tuple(token.logprob for token in tokens),
            entropies=(),
            finish_reason=reason,
            usage=Usage(
                usage.prompt, usage.cached, self.num_tokens, forced=self.num_forced, discarded=self.num_discarded
            ),
            stop=stop,
            error=error,
            top_means=_top_means(tokens),
            top_logprobs=_likeliest(tokens, sampling.num_logprobs),
        )

    def _num_new(self, delta: Delta) -> int:
        if delta.token_ids:
            return len(delta.token_ids)
        if delta.usage is not None and delta.says_something:
            return max(0, self._num_before + delta.usage.output - self.num_tokens)
        if delta.tokens:
            return len(delta.tokens)
        return int(delta.says_something)


def _top_means(tokens: Sequence[ToldToken]) -> tuple[float, ...]:
    if not tokens or any(len(token.top) < _NUM_LIKELIEST for token in tokens):
        return ()
    return tuple(fmean(item.logprob for item in token.top[:_NUM_LIKELIEST]) for token in tokens)


def _likeliest(tokens: Sequence[ToldToken], num: int) -> tuple[tuple[TokenLogprob, ...], ...]:
    if not num or not all(token.top for token in tokens):
        return ()
    return tuple(token.top[:num] for token in tokens)
