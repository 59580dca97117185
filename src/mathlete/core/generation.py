"""A request for text and what comes back. Generators speak these types and nothing else.

Glossary: a *request* is one call of a model. Its prompt is a chat (`messages`) followed by a
*continuation*: the assistant's own turn as far as it has been written, in spans, some sampled by
the model and some inserted by the harness (tool output). A *group* is a set of sibling requests
(the attempts of one problem): they share a prompt and can be aborted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "abort", "error"]

MAX_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn.

    Attributes:
        temperature: 0 means greedy.
        top_p: nucleus mass in (0, 1].
        top_k: 0 means no limit.
        min_p: smallest probability kept, relative to the most likely token, in [0, 1].
        max_tokens: completion tokens at most.
        seed: the request's own noise; the same seed and prompt give the same tokens.
        stop: strings that end the completion. The matched string is kept in the text when
            `include_stop` is set.
        stop_token_ids: token ids that end the completion, besides the model's own end of text.
        include_stop: keep the matched stop string in `Completion.text`.
        ignore_eos: go on after the model's end of text, up to `max_tokens` (for benchmarks).
        num_logprobs: how many of the likeliest tokens are reported at each place, with their log-probabilities.
        thinking_budget: tokens inside a `<think>` block before it is closed by force; None for no limit. What
            closes it counts towards `max_tokens`, and may complete a stop string.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 768
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = True
    ignore_eos: bool = False
    num_logprobs: int = 0
    thinking_budget: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be >= 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, not {self.top_k}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], not {self.min_p}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be >= 1, not {self.max_tokens}")
        if not 0 <= self.num_logprobs <= MAX_LOGPROBS:
            raise ValueError(f"num_logprobs must be in [0, {MAX_LOGPROBS}], not {self.num_logprobs}")
        if self.thinking_budget is not None and self.thinking_budget < 0:
            raise ValueError(f"thinking_budget must be >= 0, not {self.thinking_budget}")
        if any(not stop for stop in self.stop):
            raise ValueError("stop must not contain an empty string")


@dataclass(frozen=True, slots=True)
class Message:
    """One closed turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the assistant's open turn.

    Attributes:
        text: what it says.
        token_ids: the ids the generator sampled for (a prefix of) `text`. A generator that
            knows them continues from exactly these; what they do not cover is encoded anew.
        by_model: whether the model wrote it, of generators that tell no ids.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    by_model: bool = False

    @property
    def is_sampled(self) -> bool:
        """Whether the model wrote it; else the harness put it in."""
        return self.by_model or bool(self.token_ids)


class TokenConstraint(Protocol):
    """Which tokens may come next, along one text. Meets an engine only through these six.

    After vLLM's `StructuredOutputGrammar` (structured_output/backend_types.py).
    """

    @property
    def terminated(self) -> bool:
        """Whether nothing but the end of text may follow."""
        ...

    def accept(self, token_ids: Sequence[int]) -> bool:
        """Take tokens in; False, and no change, when one of them is not allowed."""
        ...

    def validate(self, token_ids: Sequence[int]) -> int:
        """How many of the tokens, from the first, would be accepted. Changes nothing."""
        ...

    def rollback(self, num_tokens: int) -> None:
        """Take back the last `num_tokens` accepted ones. Raises `ValueError` beyond what was accepted."""
        ...

    def fill_mask(self, mask: memoryview) -> None:
        """Write which ids may come next: bit `i % 32` of word `i // 32` (format "I") is set for an allowed id i."""
        ...

    def copy(self) -> TokenConstraint:
        """One in the same state, which goes its own way: for a fork, or as a checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Ask for one completion.

    Attributes:
        request_id: unique among the requests in flight.
        messages: the chat before the assistant's turn.
        continuation: the assistant's turn so far.
        sampling: how to draw.
        group: siblings share it; `abort(group)` ends them all.
        priority: lower goes first, as in vLLM; equals share fairly over groups.
        constraint: which tokens may be drawn; belongs to this request alone, which changes its state.
        pillar: the way of working that asks, for whoever shares pillars out over several engines.
    """

    request_id: str
    messages: tuple[Message, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    continuation: tuple[Span, ...] = ()
    group: str | None = None
    priority: int = 0
    constraint: TokenConstraint | None = None
    pillar: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a generator does of what a request may ask for. What it does not, it refuses at `submit`, or leaves empty.

    Attributes:
        constraints: keeps to a request's constraint; else such a request is refused.
        rewinding: `Generator.rewind` works; else it raises.
        seeds: the same seed and prompt give the same tokens, whatever runs beside them.
        token_ids: tells the ids of what it sampled, and goes on from exactly these.
        logprobs: tells the log-probability of each token, and the likeliest at each place.
        entropies: tells the entropy over the whole vocabulary.
        thinking_budget: closes a block of thinking in time; else a request with a budget is refused.
        continuation: goes on with an assistant's turn that has begun; else it is closed, and what was put in said by
            the user.
        top_k: and `min_p` too: these filters are applied; else a request with them is refused.
    """

    constraints: bool = True
    rewinding: bool = True
    seeds: bool = True
    token_ids: bool = True
    logprobs: bool = True
    entropies: bool = True
    thinking_budget: bool = True
    continuation: bool = True
    top_k: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request.

    Attributes:
        prompt: given.
        cached: of these, not computed anew.
        output: of the completion.
        forced: of these, put in instead of being drawn, to close a block of thinking.
        drafted: guessed and computed along with others by speculation.
        accepted: of these, what the model would have drawn itself, and so part of the output.
        discarded: drawn, then taken back (`Generator.rewind`); not part of the output.
    """

    prompt: int = 0
    cached: int = 0
    output: int = 0
    forced: int = 0
    drafted: int = 0
    accepted: int = 0
    discarded: int = 0


class TokenLogprob(NamedTuple):
    """A token (-1 where its id is not told) and its natural log-probability under the model's own distribution."""

    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Completion:
    """What one request gave.

    Attributes:
        text: the completion, cut at the end of the stop string when one ended it.
        token_ids: ids of the output, all of them; empty when the generator does not tell. What they spell starts
            with `text` and goes beyond it only where a stop string ended it: by the rest of a token, or by the stop
            string itself when it is not kept. When end of text ended it, that id is the last and spells nothing.
            Bytes that are no UTF-8 stand in `text` as U+FFFD.
        logprobs: natural log-probability of each of these tokens under the model's own
            distribution (temperature 1, before any filter or constraint); empty when the generator does not tell.
        entropies: entropy of that distribution, nats, at each of them; empty when the generator does not tell.
        finish_reason: "stop" (end of text or a stop), "length", "abort" or "error".
        stop: the stop string that ended it, or None.
        usage: token counts.
        error: what went wrong when `finish_reason` is "error".
        top_means: mean log-probability of that distribution's 20 likeliest tokens, at each of them; empty when the
            generator does not tell. Its negative is DeepConf's token confidence (arXiv 2508.15260).
        top_logprobs: the `num_logprobs` likeliest tokens at each of them, likeliest first; empty when not asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    finish_reason: FinishReason
    usage: Usage
    stop: str | None = None
    error: str | None = None
    top_means: tuple[float, ...] = ()
    top_logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens of the output, as counted by a generator that does not tell their ids too."""
        return len(self.token_ids) or self.usage.output


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Newly sampled text of a running request.

    Attributes:
        request_id: which.
        text: what the tokens add to it; a character comes with the token that completes it.
        num_tokens: how many tokens.
        entropies: see `Completion.entropies`, at each of them; empty when the generator tells them at the end only.
    """

    request_id: str
    text: str
    num_tokens: int
    entropies: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """A request has ended."""

    request_id: str
    completion: Completion


@dataclass(frozen=True, slots=True)
class Rewound:
    """A running request went back and goes on from there with other noise.

    Attributes:
        request_id: which.
        num_kept: output tokens that stand.
        num_dropped: output tokens that were taken back; 0 for a dead end that was let through, all tries spent.
        reason: why, in one word: "refuted", "contradiction", "repetition", "entropy", or "broken" (a stream broke off).
        detail: what was found, for a person.
        text: what the tokens said that were taken back.
    """

    request_id: str
    num_kept: int
    num_dropped: int
    reason: str
    detail: str = ""
    text: str = ""


GeneratorEvent = TokenChunk | Finished | Rewound
