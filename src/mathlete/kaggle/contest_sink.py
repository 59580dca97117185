"""What happens in a contest, kept and followed: the sink of its events, and how the problem in hand stands.

Knows events. Does not know how they come about.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mathlete.cic.majority import fallback_answer
from mathlete.core.attempt import is_check_pillar
from mathlete.core.errors import StorageError
from mathlete.core.problem import AnswerKind
from mathlete.core.trace import TraceEvent
from mathlete.lab.run_store import RunStore

_KIND = AnswerKind()


@dataclass(slots=True)
class Standing:
    """How the problem in hand stands, for whoever waits for it. Written by the run's thread.

    Attributes:
        problem_id: of the problem in hand; None between problems.
        deadline_s: on the monotonic clock, at which it is to end; None while nobody works on it.
        votes: of its finished attempts.
    """

    problem_id: str | None = None
    deadline_s: float | None = None
    votes: Counter[str] = field(default_factory=Counter)

    def begin(self, problem_id: str) -> None:
        """A problem came."""
        self.problem_id, self.deadline_s, self.votes = problem_id, None, Counter()

    def note(self, event: TraceEvent) -> None:
        """Learn from what is recorded."""
        if event.problem_id != self.problem_id or event.problem_id is None:
            return
        if event.kind == "problem_opened":
            self.deadline_s = time.monotonic() + event.data["budget_s"]
        elif event.kind == "attempt_finished":
            attempt = event.data["attempt"]
            if attempt["answer"] is not None and not is_check_pillar(attempt["pillar"]):
                self.votes[attempt["answer"]] += 1

    def leader(self) -> int:
        """The answer with most votes so far, the first of equals; the fallback where there is none."""
        votes = self.votes.most_common(1)
        return clamped(votes[0][0] if votes else None)


class ContestSink:
    """Keeps events in the store and, since a contest goes on with a full disk, in memory until the store has them."""

    def __init__(self, store: RunStore, standing: Standing, warn: Callable[[str], None]) -> None:
        """Keep in `store`, tell `standing`, and `warn` once when the store does not take more."""
        self._store = store
        self._standing = standing
        self._warn = warn
        self._unsaved: list[TraceEvent] = []
        self._has_warned = False
        self.new: list[TraceEvent] = []

    def append(self, event: TraceEvent) -> None:
        """Keep one event; never raises what the store raises."""
        self.new.append(event)
        self._standing.note(event)
        self._unsaved.append(event)
        try:
            self._store.append_many(self._unsaved)
            self._unsaved.clear()
        except StorageError as error:
            if not self._has_warned:
                self._has_warned = True
                self._warn(f"the contest goes on in memory: {error}")

    @property
    def num_unsaved(self) -> int:
        """Events that are in memory only."""
        return len(self._unsaved)


def clamped(answer: str | None) -> int:
    """An answer as it is handed in: an integer that is admitted, whatever was chosen."""
    try:
        value = int(answer if answer is not None else fallback_answer(_KIND))
    except ValueError:  # no canonical integer, or one with more digits than Python reads
        value = int(fallback_answer(_KIND))
    return min(max(value, _KIND.low), _KIND.high)
