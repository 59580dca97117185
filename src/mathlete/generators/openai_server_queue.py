"""The requests of one server: who waits, who is under way, whose turn it is. Pure; given a clock's readings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mathlete.core.generation import FinishReason, GenerateRequest
from mathlete.generators.openai_server_output import ServerOutput
from mathlete.generators.openai_server_retry import Concurrency
from mathlete.generators.openai_server_turns import TurnReader
from mathlete.ryanstream.stopping import StopMatch, StopMatcher


@dataclass(slots=True)
class RunningRequest:
    """A request on its way.

    Attributes:
        request: with the sampling that holds now.
        order: in which it was submitted.
        matcher: looks for its stop strings, where its turn's reader does not.
        output: what it has got so far.
        key: of its stream; None while it waits for its turn.
        due_s: until when it waits before it is tried again.
        started_s: when its stream was.
        num_tries: how often it has failed.
        num_chars: of the text so far.
        reader: of its stream.
        stop: the stop string that its turn's reader has found, "" where its turn has ended without one.
        match: the stop string that its matcher has found.
        ended: why the server says it has ended.
    """

    request: GenerateRequest
    order: int
    matcher: StopMatcher = field(init=False)
    output: ServerOutput = field(default_factory=ServerOutput)
    key: int | None = None
    due_s: float = 0.0
    started_s: float = 0.0
    num_tries: int = 0
    num_chars: int = 0
    reader: TurnReader | None = None
    stop: str | None = None
    match: StopMatch | None = None
    ended: FinishReason | None = None

    def __post_init__(self) -> None:
        """It has written nothing."""
        self.begin_from("")

    def begin_from(self, text: str) -> None:
        """Of what was written only `text` stands, and no stop string in it."""
        self.matcher, self.match, self.stop, self.ended = StopMatcher(self.request.sampling.stop), None, None, None
        self.matcher.push(text.encode())
        self.num_chars = len(text)


class RequestQueue:
    """All requests whose end has not been told.

    Attributes:
        concurrency: how many may be under way.
    """

    def __init__(self, most: int) -> None:
        """At most so many under way."""
        self.concurrency = Concurrency(most)
        self._by_id: dict[str, RunningRequest] = {}
        self._by_key: dict[int, RunningRequest] = {}
        self._last_start: dict[str | None, int] = {}  # of each group: the key of its latest stream
        self._num_submitted = self._num_keys = 0

    def __len__(self) -> int:
        """Of all of them."""
        return len(self._by_id)

    def add(self, request: GenerateRequest) -> None:
        """It waits from now on."""
        self._num_submitted += 1
        self._by_id[request.request_id] = RunningRequest(request, self._num_submitted)

    def of(self, request_id: str) -> RunningRequest | None:
        """By its id."""
        return self._by_id.get(request_id)

    def with_stream(self, key: int) -> RunningRequest | None:
        """By the key of its stream; None when that was given up."""
        return self._by_key.get(key)

    def matching(self, request_id: str | None, group: str | None) -> list[RunningRequest]:
        """The one with that id, and all of that group."""
        return [
            item
            for item in self._by_id.values()
            if item.request.request_id == request_id or (group is not None and item.request.group == group)
        ]

    def start_next(self, now_s: float) -> RunningRequest | None:
        """Give a stream's key to the one whose turn it is; None when nothing may be started.

        By priority, then for the group that has the fewest under way, then for the one whose turn was longest ago.
        """
        if now_s < self.concurrency.resumes_s or len(self._by_key) >= self.concurrency.limit:
            return None
        waiting = [item for item in self._by_id.values() if item.key is None and item.due_s <= now_s]
        if not waiting:
            return None
        num_of = Counter(item.request.group for item in self._by_key.values())

        def rank(item: RunningRequest) -> tuple[int, int, int, int]:
            group = item.request.group
            return item.request.priority, num_of[group], self._last_start.get(group, 0), item.order

        chosen = min(waiting, key=rank)
        self._num_keys += 1
        chosen.key, chosen.started_s = self._num_keys, now_s
        self._by_key[self._num_keys] = chosen
        self._last_start[chosen.request.group] = self._num_keys
        return chosen

    def wait_s(self, now_s: float, most_s: float) -> float:
        """Seconds until one that waits may be due, at most `most_s`."""
        waiting = [item.due_s for item in self._by_id.values() if item.key is None]
        due_s = max(min(waiting), self.concurrency.resumes_s) - now_s if waiting else most_s
        return min(most_s, due_s) if due_s > 0 else most_s

    def end_stream(self, item: RunningRequest) -> int | None:
        """It has no stream any more; the key of the one it had."""
        key, item.key = item.key, None
        if key is not None:
            self._by_key.pop(key, None)
        return key

    def remove(self, item: RunningRequest) -> None:
        """Its end is told."""
        group = item.request.group
        del self._by_id[item.request.request_id]
        if not any(other.request.group == group for other in self._by_id.values()):
            self._last_start.pop(group, None)

    def clear(self) -> None:
        """Forget all."""
        self._by_id.clear()
        self._by_key.clear()
        self._last_start.clear()
