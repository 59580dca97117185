"""The run's clock and the trace: each event is stamped with when it happened and kept at once.

Knows when a session began and where the clock of earlier ones stood. Does not know what the events mean.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from mathlete.core.decision import encode_decision
from mathlete.core.policy import Action, PoolState
from mathlete.core.protocols import Clock, TraceSink
from mathlete.core.trace import EventKind, TraceEvent


class RunTrace:
    """Appends events on the clock of one session of a run."""

    def __init__(self, sink: TraceSink, clock: Clock, offset_s: float) -> None:
        """Begin a session now; `offset_s` is where the clock of earlier sessions stood."""
        self._sink = sink
        self._clock = clock
        self._offset_s = offset_s
        self.start_s = clock()

    def at_s(self) -> float:
        """Seconds of the run's clock: since the start of its first session, pauses between sessions left out."""
        return self._offset_s + self._clock() - self.start_s

    def append(
        self, kind: EventKind, data: Mapping[str, object], problem_id: str | None = None, attempt_id: str | None = None
    ) -> None:
        """Keep one event. Raises what the sink raises: what could not be kept has not happened."""
        self._sink.append(TraceEvent(kind, self.at_s(), data, problem_id, attempt_id, time.time()))

    def append_decision(self, action: Action, state: PoolState, num_begun: int = 0) -> None:
        """Keep what was decided, and what the policy saw; see `core.decision`."""
        self.append("decision", encode_decision(action, state, num_begun), state.problem.id)
