"""Several engines as one generator: each request goes to the engine that writes for its pillar.

Knows which engine serves which pillar; does not know what a pillar is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from mathlete.core.errors import EngineError
from mathlete.core.generation import Finished, GenerateRequest, GeneratorEvent, SamplingParams
from mathlete.core.protocols import Generator

_PAUSE_S = 0.005


class RoutedGenerator:
    """A `Generator` over several. They are asked in turn, none waited for while another may have news."""

    def __init__(
        self,
        by_pillar: Mapping[str, Generator],
        others: Generator,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Join engines.

        Args:
            by_pillar: who writes for which pillar; several pillars may have the same engine.
            others: who writes for all the rest.
            sleep: waits a moment when nobody has news.
        """
        self._by_pillar = dict(by_pillar)
        self._others = others
        self._sleep = sleep
        self._engines: Sequence[Generator] = list({id(one): one for one in (*by_pillar.values(), others)}.values())
        self._running: dict[str, Generator] = {}

    def submit(self, request: GenerateRequest) -> None:
        """Queue a request at the engine of its pillar. Raises `EngineError` when its prompt can never fit there."""
        if request.request_id in self._running:
            raise EngineError(f"request id {request.request_id!r} is in use")
        engine = self._by_pillar.get(request.pillar or "", self._others)
        engine.submit(request)
        self._running[request.request_id] = engine

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """What happened at any of them. Waits at most about `timeout_s` for the first news."""
        end_s = time.monotonic() + timeout_s
        while True:
            busy = {id(engine) for engine in self._running.values()}
            found: list[GeneratorEvent] = []
            for engine in self._engines:
                if id(engine) in busy:
                    found += engine.events(timeout_s if len(busy) == 1 else 0.0)
            for event in found:
                if isinstance(event, Finished):
                    self._running.pop(event.request_id, None)
            if found or not busy or time.monotonic() >= end_s:
                return found
            self._sleep(_PAUSE_S)

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request or all of a group, wherever they run."""
        for engine in self._engines:
            engine.abort(request_id=request_id, group=group)

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """See `Generator.rewind`."""
        engine = self._running.get(request_id)
        if engine is None:
            raise EngineError(f"request {request_id!r} cannot go back: there is none that runs")
        engine.rewind(request_id, num_tokens, sampling)

    def close(self) -> None:
        """Close all of them. Safe to call twice."""
        for engine in self._engines:
            engine.close()
