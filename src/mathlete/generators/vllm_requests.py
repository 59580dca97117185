"""A request under way in vLLM: what it has written, and what vLLM is asked for next.

vLLM knows neither going back nor tokens that are put in. So a request is a row of *segments*: requests of vLLM's, one
after the other, each of which goes on behind all that stands so far. Prefix caching makes the next one cheap. A token
that is put in is a segment of its own, which may draw that token only: its log-probability is the model's own.

Pure: knows tokens, limits and constraints; knows neither vLLM's classes nor a tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mathlete.core.errors import EngineError
from mathlete.core.generation import (
    Completion,
    FinishReason,
    GenerateRequest,
    SamplingParams,
    TokenConstraint,
    TokenLogprob,
    Usage,
)
from mathlete.generators.turn_formats import TokenPrompt
from mathlete.generators.vllm_turns import TurnReader

# A request goes back in the middle of these: they belong to the text so far, not to what is drawn next.
_FIXED = ("stop", "include_stop", "thinking_budget", "num_logprobs")


class DrawnToken(NamedTuple):
    """A token that vLLM has drawn.

    Attributes:
        token_id: which.
        logprob: of it; None where vLLM does not tell.
        top: the likeliest tokens at its place, likeliest first.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """What vLLM is asked for.

    Attributes:
        segment_id: unique over the life of a generator.
        prompt_ids: all that stands.
        sampling: of the request.
        max_tokens: that are left to draw.
        stop_token_ids: that end it.
        forced_id: the only token that may come; None for free choice.
        priority: lower goes first.
        constraint: which tokens may be drawn; None for any, or where one is forced.
        accepted_ids: the output so far, which the constraint has read.
    """

    segment_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    forced_id: int | None
    priority: int
    constraint: TokenConstraint | None
    accepted_ids: tuple[int, ...]


class SegmentOutput(NamedTuple):
    """News of a segment.

    Attributes:
        segment_id: of which.
        tokens: drawn since the last news.
        finish_reason: vLLM's word for why it ended; None while it runs.
        num_cached: prompt tokens that were found in the cache.
        num_drafted: tokens guessed for it, told at its end.
        num_accepted: of these, what was right.
    """

    segment_id: str
    tokens: tuple[DrawnToken, ...]
    finish_reason: str | None = None
    num_cached: int = 0
    num_drafted: int = 0
    num_accepted: int = 0


class End(NamedTuple):
    """Why a request has ended."""

    reason: FinishReason
    stop: str | None = None
    error: str | None = None


class Step(NamedTuple):
    """What a token amounts to: text that can be told, and the end, if it is that."""

    text: str = ""
    end: End | None = None


class RunningRequest:
    """One request from its prompt to its end."""

    def __init__(
        self,
        request: GenerateRequest,
        prompt: TokenPrompt,
        reader: Callable[[GenerateRequest], TurnReader],
        max_model_len: int,
    ) -> None:
        """Begin.

        Args:
            request: what is asked for.
            prompt: what vLLM is given.
            reader: makes one that has read nothing; asked again when the request goes back.
            max_model_len: tokens of prompt and output at most.
        """
        self.request = request
        self.prompt = prompt
        self._make_reader = reader
        self._reader = reader(request)
        self._max_model_len = max_model_len
        self._output: list[DrawnToken] = []
        self._forced_places: set[int] = set()
        self._pending = list(self._reader.start().forced)  # ids to be put in next
        self._num_cached: int | None = None
        self._num_drafted = self._num_accepted = self._num_discarded = 0

    @property
    def num_output(self) -> int:
        """Output tokens so far."""
        return len(self._output)

    @property
    def forced_id(self) -> int | None:
        """The token that must come next; None for free choice."""
        return self._pending[0] if self._pending else None

    def next_segment(self, number: int) -> Segment:
        """What vLLM is to be asked for now; `number` is unique over the life of a generator."""
        request, forced_id = self.request, self.forced_id
        ids = tuple(token.token_id for token in self._output)
        return Segment(
            segment_id=f"{request.request_id}#{number}",
            prompt_ids=(*self.prompt.token_ids, *ids),
            sampling=request.sampling,
            max_tokens=1 if forced_id is not None else request.sampling.max_tokens - len(ids),
            stop_token_ids=self.prompt.stop_token_ids,
            forced_id=forced_id,
            priority=request.priority,
            constraint=request.constraint if forced_id is None else None,
            accepted_ids=ids,
        )

    def note(self, output: SegmentOutput) -> None:
        """Keep what was told beside tokens."""
        if self._num_cached is None:
            self._num_cached = min(output.num_cached, len(self.prompt.token_ids))
        self._num_drafted += output.num_drafted
        self._num_accepted += output.num_accepted

    def take(self, token: DrawnToken) -> Step:
        """Append a token."""
        is_forced = bool(self._pending)
        if is_forced and self._pending.pop(0) != token.token_id:
            return Step(end=End("error", error=f"vLLM drew token {token.token_id} where another was to be put in"))
        refused = self._tell_constraint(token.token_id, is_forced)
        if refused is not None and refused.reason == "error":
            return Step(end=refused)
        if is_forced:
            self._forced_places.add(len(self._output))
        self._output.append(token)
        taken = self._reader.take(token.token_id, is_forced)
        self._pending += taken.forced
        if taken.ended:
            return Step(taken.text, End("stop", taken.stop))
        return Step(taken.text, refused or self._too_long())

    def finish(self, reason: str) -> Step:
        """A segment that drew freely has been ended by vLLM, and no token of it has ended the request."""
        if reason == "length":
            return Step(end=End("length"))
        if reason != "stop":
            return Step(end=End("error", error=f"vLLM has ended the request: {reason}"))
        taken = self._reader.finish(was_cut=False)
        self._pending += taken.forced
        if taken.forced and not taken.ended:
            return Step(taken.text)
        return Step(taken.text, End("stop", taken.stop))

    def require_rewindable(self, num_tokens: int, sampling: SamplingParams) -> None:
        """Raise `EngineError` unless it can go back to its first `num_tokens` and go on with `sampling`."""
        name = self.request.request_id
        if not 0 <= num_tokens <= len(self._output):
            raise EngineError(f"request {name!r} has {len(self._output)} output tokens: no way back to {num_tokens}")
        for field in _FIXED:
            if getattr(sampling, field) != getattr(self.request.sampling, field):
                raise EngineError(f"request {name!r} must keep its {field} when it goes back")
        if sampling.max_tokens <= num_tokens:
            raise EngineError(
                f"request {name!r} would keep {num_tokens} tokens and may have {sampling.max_tokens}: nothing is left "
                "to draw. Raise its max_tokens, or go back further"
            )

    def rewind(self, num_tokens: int, sampling: SamplingParams) -> str:
        """Go back, as `require_rewindable` allows; gives what the tokens that stand have told.

        Raises:
            EngineError: its constraint cannot go back. Nothing has changed then.
        """
        num_dropped = len(self._output) - num_tokens
        constraint, name = self.request.constraint, self.request.request_id
        if constraint is not None and num_dropped:
            try:
                constraint.rollback(num_dropped)
            except Exception as error:  # constraints are other people's code
                raise EngineError(f"request {name!r} cannot go back: its constraint: {_told(error)}") from error
        self.request = replace(self.request, sampling=sampling)
        del self._output[num_tokens:]
        self._num_discarded += num_dropped
        self._reader = self._make_reader(self.request)
        self._pending = list(self._reader.start().forced)
        places, self._forced_places = self._forced_places, set()
        said = []
        for place, token in enumerate(self._output):
            if is_forced := place in places:
                self._forced_places.add(place)
                self._pending.pop(0)
            taken = self._reader.take(token.token_id, is_forced)
            self._pending += taken.forced
            said.append(taken.text)
        return "".join(said)

    def completion(self, end: End) -> Completion:
        """All of it; nothing follows."""
        if end.reason != "stop":
            self._reader.finish(was_cut=True)  # what it held back belongs to the text
        tokens, wanted = self._output, self.request.sampling.num_logprobs
        tells = bool(tokens) and all(token.logprob is not None for token in tokens)
        return Completion(
            text=self._reader.text,
            token_ids=tuple(token.token_id for token in tokens),
            logprobs=tuple(token.logprob for token in tokens if token.logprob is not None) if tells else (),
            entropies=(),
            finish_reason=end.reason,
            usage=Usage(
                prompt=len(self.prompt.token_ids),
                cached=self._num_cached or 0,
                output=len(tokens),
                forced=len(self._forced_places),
                drafted=self._num_drafted,
                accepted=self._num_accepted,
                discarded=self._num_discarded,
            ),
            stop=end.stop,
            error=end.error,
            top_means=tuple(mean_logprob(token.top) for token in tokens) if tells else (),
            top_logprobs=tuple(token.top[:wanted] for token in tokens) if tells and wanted else (),
        )

    def _tell_constraint(self, token_id: int, is_forced: bool) -> End | None:
        constraint, place = self.request.constraint, len(self._output)
        if constraint is None:
            return None
        try:
            if constraint.accept((token_id,)):
                return End("stop") if constraint.terminated else None
            source = "which is put in" if is_forced else "which vLLM drew all the same"
            what = f"it refused token {token_id}, {source}"
        except Exception as error:  # constraints are other people's code
            what = _told(error)
        return End("error", error=f"the request's constraint failed at output token {place}: {what}")

    def _too_long(self) -> End | None:
        num = len(self._output)
        full = num >= self.request.sampling.max_tokens or num + len(self.prompt.token_ids) >= self._max_model_len
        return End("length") if full else None


def mean_logprob(top: Sequence[TokenLogprob]) -> float:
    """Mean log-probability of the likeliest tokens (`Completion.top_means`)."""
    return sum(token.logprob for token in top) / len(top)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
