"""A generator without a model: says what a script tells it to. The test double for everything above it.

Keeps the whole contract of `core.protocols.Generator`: tokens one at a time, stop strings, token limits,
aborts of one request or a group, errors, time. Knows nothing of problems.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mathlete.core.errors import EngineError
from mathlete.core.generation import (
    Capabilities,
    Completion,
    Finished,
    FinishReason,
    GenerateRequest,
    GeneratorEvent,
    SamplingParams,
    TokenChunk,
    TokenLogprob,
    Usage,
)
from mathlete.core.protocols import Clock
from mathlete.ryanstream.stopping import StopMatch, StopMatcher

__all__ = ["CAPABILITIES", "END_OF_TEXT_ID", "Reply", "Script", "ScriptedGenerator", "replies_in_order"]

END_OF_TEXT_ID = 0

# What a script is good for by itself: it is followed to the letter, so nothing is masked, and no thinking closed.
CAPABILITIES = Capabilities(constraints=False, thinking_budget=False)

_LOGPROB, _ENTROPY = -0.25, 0.5


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request is answered.

    Attributes:
        pieces: the tokens' texts, in order. A request whose limits cut none of them ends with an end-of-text token.
        logprobs: of the pieces and the end-of-text token; the last given is repeated, -0.25 when none is.
        entropies: at each of them, nats; likewise, 0.5 when none is given.
        ends: "stop", or "error" to fail with `error` after the last piece.
        error: the message of a failure.
        delay_s: seconds before the first token.
        token_s: seconds a token takes.
    """

    pieces: tuple[str, ...]
    logprobs: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()
    ends: Literal["stop", "error"] = "stop"
    error: str | None = None
    delay_s: float = 0.0
    token_s: float = 0.0

    @classmethod
    def saying(cls, text: str, *, delay_s: float = 0.0, token_s: float = 0.0) -> Reply:
        """A reply of words, each with the white space before it."""
        return cls(tuple(re.findall(r"\s*\S+|\s+", text)), delay_s=delay_s, token_s=token_s)

    @classmethod
    def failing(cls, message: str) -> Reply:
        """A request that ends with an error and without a token."""
        return cls((), ends="error", error=message)


Script = Callable[[GenerateRequest], Reply | str]


def replies_in_order(replies: Mapping[str, Sequence[Reply | str]]) -> Script:
    """A script of lists: each request takes the next reply under its own id, else under its group's name.

    The script raises `EngineError` when there is none left, so a test sees the request it did not expect.
    """
    left = {name: list(items) for name, items in replies.items()}

    def script(request: GenerateRequest) -> Reply | str:
        for name in (request.request_id, request.group):
            if name is not None and left.get(name):
                return left[name].pop(0)
        raise EngineError(f"the script has no reply left for request {request.request_id!r} (group {request.group!r})")

    return script


@dataclass(slots=True)
class _Running:
    """A request on its way."""

    request: GenerateRequest
    reply: Reply
    matcher: StopMatcher
    due_s: float
    token_ids: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    num_discarded: int = 0


class ScriptedGenerator:
    """A `Generator` that follows a script. Each `events()` gives every request at most one token, when it is due."""

    def __init__(
        self,
        script: Script,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        capabilities: Capabilities | None = None,
    ) -> None:
        """Follow a script.

        Args:
            script: says what to answer.
            clock: replies with delays go by it.
            sleep: waits for it to move.
            capabilities: requests for a constraint or a thinking budget that it lacks are refused. By default they
                are taken, and left to the script.
        """
        self.capabilities = capabilities or Capabilities()
        self._script = script
        self._clock = clock
        self._sleep = sleep
        self._running: dict[str, _Running] = {}
        self._ended: list[Finished] = []
        self._id_of: dict[str, int] = {}
        self.requests: list[GenerateRequest] = []

    def submit(self, request: GenerateRequest) -> None:
        """Queue a request. Raises `EngineError` for an id in use, for what it cannot do, or when the script does."""
        if request.request_id in self._running or any(e.request_id == request.request_id for e in self._ended):
            raise EngineError(f"request id {request.request_id!r} is in use")
        for name, is_refused in (
            ("constraint", request.constraint is not None and not self.capabilities.constraints),
            (
                "thinking_budget",
                request.sampling.thinking_budget is not None and not self.capabilities.thinking_budget,
            ),
        ):
            if is_refused:
                raise EngineError(f"request {request.request_id!r} has a {name}, which a script does not keep to")
        self.requests.append(request)
        reply = self._script(request)
        reply = Reply.saying(reply) if isinstance(reply, str) else reply
        due_s = self._clock() + reply.delay_s + reply.token_s
        self._running[request.request_id] = _Running(request, reply, StopMatcher(request.sampling.stop), due_s)

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """What has come due; waits for it at most `timeout_s` when there is something to wait for."""
        events: list[GeneratorEvent] = [*self._ended]
        self._ended = []
        if self._running and not events:
            wait_s = min(running.due_s for running in self._running.values()) - self._clock()
            if wait_s > 0:
                self._sleep(min(wait_s, timeout_s))
        now = self._clock()
        for running in list(self._running.values()):
            if running.due_s <= now:
                running.due_s += running.reply.token_s
                events += self._advance(running)
        return events

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request or all of a group; each gives a `Finished` with reason "abort"."""
        for running in list(self._running.values()):
            request = running.request
            if request.request_id == request_id or (group is not None and request.group == group):
                self._ended.append(self._finish(running, "abort"))

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Take a running request back; the script is asked again, with the new sampling, and says its reply from there.

        Raises:
            EngineError: as the protocol says, or when the script does.
        """
        running = self._running.get(request_id)
        if running is None or not 0 <= num_tokens <= len(running.token_ids):
            num = "none that runs" if running is None else f"only {len(running.token_ids)} tokens"
            raise EngineError(f"request {request_id!r} cannot go back to {num_tokens} tokens: there is {num}")
        if sampling.stop != running.request.sampling.stop or sampling.max_tokens <= num_tokens:
            raise EngineError(f"request {request_id!r} must keep its stop strings and have tokens left to draw")
        running.request = replace(running.request, sampling=sampling)
        reply = self._script(running.request)
        running.reply = Reply.saying(reply) if isinstance(reply, str) else reply
        running.num_discarded += len(running.token_ids) - num_tokens
        del running.token_ids[num_tokens:], running.said[num_tokens:]
        running.matcher = StopMatcher(sampling.stop)
        running.matcher.push("".join(running.said).encode())

    def close(self) -> None:
        """Forget everything. Safe to call twice."""
        self._running.clear()
        self._ended.clear()

    def _advance(self, running: _Running) -> Iterator[GeneratorEvent]:
        place, sampling = len(running.token_ids), running.request.sampling
        if place >= len(running.reply.pieces):
            if running.reply.ends == "stop":
                running.token_ids.append(END_OF_TEXT_ID)
            yield self._finish(running, running.reply.ends)
            return
        piece = running.reply.pieces[place]
        token_id = self._id_of.setdefault(piece, len(self._id_of) + END_OF_TEXT_ID + 1)
        running.token_ids.append(token_id)
        running.said.append(piece)
        match = running.matcher.push(piece.encode())
        if match is not None or token_id in sampling.stop_token_ids:
            yield self._finish(running, "stop", match)
        elif len(running.token_ids) >= sampling.max_tokens:
            yield self._finish(running, "length")
        else:
            entropies = _repeated(running.reply.entropies, place + 1, _ENTROPY)[place:]
            yield TokenChunk(running.request.request_id, piece, 1, entropies)

    def _finish(self, running: _Running, reason: FinishReason, match: StopMatch | None = None) -> Finished:
        request, text, num_tokens = running.request, "".join(running.said), len(running.token_ids)
        del self._running[request.request_id]
        if match is not None:
            text = text.encode()[: match.end if request.sampling.include_stop else match.start].decode()
        said = [*(message.content for message in request.messages), *(span.text for span in request.continuation)]
        logprobs = _repeated(running.reply.logprobs, num_tokens, _LOGPROB)
        tops = [(TokenLogprob(*one),) for one in zip(running.token_ids, logprobs, strict=True)]
        completion = Completion(
            text=text,
            token_ids=tuple(running.token_ids),
            logprobs=logprobs,
            entropies=_repeated(running.reply.entropies, num_tokens, _ENTROPY),
            finish_reason=reason,
            usage=Usage(
                prompt=sum(len(text.split()) for text in said) or 1, output=num_tokens, discarded=running.num_discarded
            ),
            stop=None if match is None else match.stop,
            error=running.reply.error if reason == "error" else None,
            top_logprobs=tuple(tops) if request.sampling.num_logprobs else (),
        )
        return Finished(request.request_id, completion)


def _repeated(values: tuple[float, ...], count: int, default: float) -> tuple[float, ...]:
    """The first `count` values, the last one repeated as often as needed."""
    return (*values, *[values[-1] if values else default] * (count - len(values)))[:count]
