"""The account of requests whose engine runs in another process, and may be lost at any time.

Pure: it takes in what is asked and what the process says, and gives out messages for the process and events for the
driver. Knows nothing of processes, pipes or threads.

What was told of a request stands. When its engine is lost, a request is made again from its start where the same seed
gives the same tokens: what is told already is compared and not told twice. Where it does not, or where what comes
differs from what was told, the request goes on behind what was told, as a continuation; log-probabilities and token
ids, which come at the end only, are then lost for what stands before and left out for the whole.

A request may be what kills its engine, and is not to take all others with it. Requests that two engines died with are
suspects: the next engine gets them one at a time, each when it has survived the one before. One that an engine dies of
then ends with an error, and so do suspects with the same messages.
"""

from __future__ import annotations

import pickle
from dataclasses import replace

from mathlete.core.errors import EngineError
from mathlete.core.generation import (
    Capabilities,
    Completion,
    Finished,
    FinishReason,
    GenerateRequest,
    GeneratorEvent,
    SamplingParams,
    Span,
    TokenChunk,
)
from mathlete.core.seeds import derive_seed
from mathlete.generators.child_messages import Abort, CannotRewind, News, Refused, Rewind, Submit
from mathlete.generators.child_request import NOT_UP, FollowedRequest, joined, without
from mathlete.proof_sampler.token_constraint import ConstraintOrigin

_POISON = "its engine died each time while it worked on this request, the last time on no other new one"


class RequestLedger:
    """Requests from `submit` to their end, whatever becomes of the engine meanwhile. Used under its owner's lock."""

    def __init__(self, capabilities: Capabilities) -> None:
        """Of an engine that is not there yet.

        Args:
            capabilities: of the engine; what it cannot do is refused here.
        """
        self._able = capabilities
        self._is_up = False
        self._followed: dict[str, FollowedRequest] = {}  # in the order in which they were asked for
        self._ids: dict[int, str] = {}  # by key
        self._last_key = 0
        self._events: list[GeneratorEvent] = []
        self._messages: list[bytes] = []
        self._on_trial: FollowedRequest | None = None  # a suspect that the engine is to survive before the next

    @property
    def num_in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._followed)

    @property
    def has_events(self) -> bool:
        """Whether `take_events` has something to give."""
        return bool(self._events)

    def take_events(self) -> list[GeneratorEvent]:
        """For the driver, in order."""
        taken, self._events = self._events, []
        return taken

    def take_messages(self) -> list[bytes]:
        """For the process, pickled, in order."""
        taken, self._messages = self._messages, []
        return taken

    # --- what the driver asks for ---

    def submit(self, request: GenerateRequest) -> None:
        """Follow a request. Raises `EngineError` for an id in use, and for what the engine or a pipe cannot take."""
        if request.request_id in self._followed or any(_ends(event, request.request_id) for event in self._events):
            raise EngineError(f"request id {request.request_id!r} is in use")
        self._check_able(request)
        followed = FollowedRequest(request, request.sampling)
        _pickled(self._message(followed, request, 0))  # refused here, not on its way
        self._followed[request.request_id] = followed
        if self._is_up:
            self._send_from_start(followed)

    def abort(self, request_id: str | None, group: str | None) -> None:
        """End one request or all of a group."""
        for key, followed in list(self._followed.items()):
            if key == request_id or (group is not None and followed.first.group == group):
                if followed.is_aborted:
                    continue
                followed.is_aborted = True
                if followed.key != NOT_UP:
                    self._send(Abort(followed.key))
                if not followed.is_new_text:
                    self._end(key, followed.so_far("abort"))  # what it repeats is less than what was told

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Take a request back; see `Generator.rewind`."""
        followed = self._followed.get(request_id)
        if not self._able.rewinding:
            raise EngineError(f"request {request_id!r} cannot go back: this engine does not rewind")
        if followed is None or followed.is_aborted:
            raise EngineError(f"request {request_id!r} cannot go back to {num_tokens} tokens: there is none that runs")
        num = followed.num_told - self._num_untaken(request_id)
        if not 0 <= num_tokens <= num:
            raise EngineError(f"request {request_id!r} cannot go back to {num_tokens} tokens: there are {num}")
        if sampling.stop != followed.sampling.stop or sampling.max_tokens <= num_tokens:
            raise EngineError(f"request {request_id!r} must keep its stop strings and have tokens left to draw")
        place = followed.place_of(num_tokens)
        if place is None:
            raise EngineError(f"request {request_id!r} cannot go back into the middle of what was told at once")
        followed.num_cut = followed.num_told - num_tokens
        del followed.told[place:]
        self._events = [event for event in self._events if event.request_id != request_id]  # chunks of what is cut
        is_there = followed.is_new_text and num_tokens >= followed.num_base
        followed.sampling = sampling
        followed.rewinds = [(num, other) for num, other in followed.rewinds if num < num_tokens]
        followed.rewinds.append((num_tokens, sampling))
        if followed.key == NOT_UP:
            followed.num_lost += followed.num_cut
        elif is_there:
            key, base = self._new_key(followed), followed.num_base
            self._send(Rewind(self._drop_key(followed, key), key, num_tokens - base, without(sampling, base)))
        else:
            followed.num_lost += followed.num_cut
            self._begin_anew(followed)

    # --- what the process says ---

    def take_news(self, news: News) -> None:
        """What an engine's turn brought."""
        for key, event in news.events:
            request_id = self._ids.get(key)
            if request_id is None:  # of a writing that counts no longer
                continue
            followed = self._followed[request_id]
            followed.is_heard = True
            if isinstance(event, TokenChunk):
                self._take_chunk(followed, event)
                self._note_survived(followed)
            elif isinstance(event, Finished):
                self._take_end(followed, event.completion)
            else:
                self._events.append(event)

    def take_refused(self, refused: Refused) -> None:
        """The engine does not take a request: it ends."""
        request_id = self._ids.get(refused.key)
        if request_id is None:
            return
        followed = self._followed[request_id]
        ending: FinishReason = "abort" if followed.is_aborted else "error"
        self._end(request_id, followed.so_far(ending, None if followed.is_aborted else refused.text))

    def take_cannot_rewind(self, answer: CannotRewind) -> None:
        """A request ended at the engine before it could go back."""
        request_id = self._ids.get(answer.key)
        if request_id is None:
            return
        followed = self._followed[request_id]
        followed.num_lost += followed.num_cut
        if followed.is_aborted:
            self._end(request_id, followed.so_far("abort"))
        elif followed.is_replayed or not self._able.seeds or followed.num_base:
            self._go_on(followed)
        else:
            self._begin_anew(followed)

    # --- what becomes of the process ---

    def came_up(self, capabilities: Capabilities) -> None:
        """An engine is ready: it gets all requests, suspects in turn."""
        self._able, self._is_up = capabilities, True
        for followed in list(self._followed.values()):  # one that cannot be taken up again ends here
            if not followed.is_suspect:
                self._begin_anew(followed)
        self._try_next()

    def went_down(self) -> bool:
        """The engine is lost, and what was on its way to it. Requests whose end was asked for have it now.

        Returns:
            whether a request was found that it died of, and ended.
        """
        culprit = self._on_trial
        self._is_up, self._on_trial = False, None
        self._messages.clear()
        self._ids.clear()
        for request_id, followed in list(self._followed.items()):
            if followed.key != NOT_UP and culprit is None:
                followed.num_deaths, followed.num_at_death = followed.num_deaths + 1, followed.num_told
            followed.key, followed.is_heard = NOT_UP, False
            if followed.again is not None:  # what it had repeated is drawn once more
                followed.num_lost += followed.num_again
            followed.again, followed.is_replayed = None, False
            if followed.is_aborted:
                self._end(request_id, followed.so_far("abort"))
        if culprit is None or culprit.first.request_id not in self._followed:
            return False
        for request_id, followed in list(self._followed.items()):
            if followed is culprit or (followed.is_suspect and followed.first.messages == culprit.first.messages):
                self._end(request_id, followed.so_far("error", _POISON))
        return True

    def _try_next(self) -> None:
        """Give the engine the next suspect where it has survived the one before."""
        if self._on_trial is not None or not self._is_up:
            return
        waiting = (followed for followed in self._followed.values() if followed.is_suspect and followed.key == NOT_UP)
        self._on_trial = next(waiting, None)
        if self._on_trial is not None:
            self._begin_anew(self._on_trial)

    def _note_survived(self, followed: FollowedRequest, *, has_ended: bool = False) -> None:
        if followed is self._on_trial and (has_ended or followed.is_cleared):
            self._on_trial = None
            self._try_next()

    def give_up(self, text: str) -> None:
        """There will be no engine: every request ends with an error, and what it had written."""
        self.went_down()
        for request_id, followed in list(self._followed.items()):
            self._end(request_id, followed.so_far("error", text))

    # --- making requests again ---

    def _begin_anew(self, followed: FollowedRequest) -> None:
        """Give a request to the engine, so that it says again what was told, or goes on behind it."""
        if followed.key == NOT_UP and not followed.told and not followed.rewinds:
            self._send_from_start(followed)
        elif self._able.seeds and not followed.num_base:
            followed.num_lost += followed.num_told
            self._send_from_start(followed)
        else:
            self._go_on(followed)

    def _send_from_start(self, followed: FollowedRequest) -> None:
        key = self._new_key(followed)
        self._abandon(followed, key)
        last = followed.rewinds[-1][0] if followed.rewinds else 0
        followed.is_replayed = last > 0
        followed.again = followed.text_of(last) if followed.num_told > last else None
        followed.num_again = last
        followed.is_second = followed.is_second or last > 0 or followed.again is not None
        request = followed.first
        if followed.rewinds and followed.rewinds[0][0] == 0:
            request = replace(request, sampling=followed.rewinds[0][1])
        rewinds = tuple(step for step in followed.rewinds if step[0] > 0)
        self._send(replace(self._message(followed, request, key), rewinds=rewinds))

    def _go_on(self, followed: FollowedRequest) -> None:
        """Give a request to the engine as the continuation of what was told."""
        while followed.told and not followed.told[-1].text:  # half a character, which cannot be handed back
            followed.num_lost += followed.told.pop().num_tokens
        key = self._new_key(followed)
        self._abandon(followed, key)
        followed.num_base, followed.again, followed.is_replayed = followed.num_told, None, False
        followed.num_restarts += 1
        first, sampling = followed.first, followed.sampling
        seed = derive_seed(sampling.seed, "restart", followed.num_restarts)  # the same noise would say the same again
        request = replace(
            first,
            continuation=(*first.continuation, *([Span(followed.text, by_model=True)] if followed.told else [])),
            sampling=replace(without(sampling, followed.num_base), seed=seed),
        )
        message = self._message(followed, request, key)
        if message.constraint is not None:
            text = message.constraint.text_so_far + followed.text
            message = replace(message, constraint=message.constraint._replace(text_so_far=text))
        elif first.constraint is not None and followed.told:
            error = "its engine was lost, and a constraint of its kind cannot be taken up in the middle of a text"
            self._end(first.request_id, followed.so_far("error", error))
            return
        self._send(message)

    def _message(self, followed: FollowedRequest, request: GenerateRequest, key: int) -> Submit:
        origin = getattr(followed.first.constraint, "origin", None)
        if not isinstance(origin, ConstraintOrigin):
            return Submit(key, request)
        return Submit(key, replace(request, constraint=None), origin)

    def _abandon(self, followed: FollowedRequest, key: int) -> None:
        """Let the engine end what it writes of a request; `key` is the one that counts from now on."""
        old = self._drop_key(followed, key)
        if old != NOT_UP:
            self._send(Abort(old))

    def _drop_key(self, followed: FollowedRequest, key: int) -> int:
        old, followed.key = followed.key, key
        self._ids.pop(old, None)
        return old

    def _new_key(self, followed: FollowedRequest) -> int:
        self._last_key += 1
        self._ids[self._last_key] = followed.first.request_id
        return self._last_key

    # --- what it writes ---

    def _take_chunk(self, followed: FollowedRequest, chunk: TokenChunk) -> None:
        if followed.again is not None:
            rest = self._compare(followed, chunk)
            if rest is None:
                return
            chunk = rest
        followed.is_replayed = False  # it is beyond the last place from which it went back
        followed.told.append(chunk)
        self._events.append(chunk)

    def _compare(self, followed: FollowedRequest, chunk: TokenChunk) -> TokenChunk | None:
        """Take in a chunk of what is said again; what of it is new, if anything."""
        assert followed.again is not None
        again, num_again = followed.again + chunk.text, followed.num_again + chunk.num_tokens
        told, num_told = followed.text, followed.num_told
        is_beyond = num_again > num_told
        if not (again.startswith(told) if num_again >= num_told else told.startswith(again)):
            followed.num_lost += num_again
            self._go_on(followed)
            return None
        followed.again, followed.num_again = (None, 0) if num_again >= num_told else (again, num_again)
        if not is_beyond:
            return None
        num_new = num_again - num_told
        entropies = chunk.entropies[len(chunk.entropies) - num_new :] if chunk.entropies else ()
        return TokenChunk(chunk.request_id, again[len(told) :], num_new, entropies)

    def _take_end(self, followed: FollowedRequest, done: Completion) -> None:
        request_id = followed.first.request_id
        if followed.num_base:
            self._end(request_id, joined(followed, done))
            return
        told, is_error = followed.text, done.finish_reason == "error"
        differs = done.num_tokens < followed.num_told or told[: len(done.text)] != done.text[: len(told)]
        if followed.is_second and not is_error and differs and "\ufffd" not in done.text:
            followed.num_lost += done.num_tokens
            self._go_on(followed)  # it did not say again what was told
            return
        usage = replace(done.usage, discarded=done.usage.discarded + followed.num_lost)
        self._end(request_id, replace(done, usage=usage))

    def _end(self, request_id: str, completion: Completion) -> None:
        followed = self._followed.pop(request_id)
        self._ids.pop(followed.key, None)
        self._events.append(Finished(request_id, completion))
        self._note_survived(followed, has_ended=True)

    def _num_untaken(self, request_id: str) -> int:
        """Tokens of a request that the driver has not been given yet."""
        chunks = (event for event in self._events if isinstance(event, TokenChunk))
        return sum(chunk.num_tokens for chunk in chunks if chunk.request_id == request_id)

    def _check_able(self, request: GenerateRequest) -> None:
        sampling = request.sampling
        for name, is_asked, is_able in (
            ("constraint", request.constraint is not None, self._able.constraints),
            ("thinking_budget", sampling.thinking_budget is not None, self._able.thinking_budget),
            ("top_k", sampling.top_k > 0, self._able.top_k),
            ("min_p", sampling.min_p > 0, self._able.top_k),
        ):
            if is_asked and not is_able:
                raise EngineError(f"request {request.request_id!r} has a {name}, which this engine does not keep to")

    def _send(self, message: Submit | Abort | Rewind) -> None:
        self._messages.append(_pickled(message))


def _ends(event: GeneratorEvent, request_id: str) -> bool:
    return isinstance(event, Finished) and event.request_id == request_id


def _pickled(message: object) -> bytes:
    """Raises `EngineError` for what cannot be sent to another process."""
    try:
        return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise EngineError(
            f"a request with this constraint cannot be given to an engine in a process of its own ({error}); use a "
            "constraint of mathlete.proof_sampler.building, or leave own_process out"
        ) from error
