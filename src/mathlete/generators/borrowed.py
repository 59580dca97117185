"""A generator that its user does not end: whoever loaded the model keeps it for the next run."""

from __future__ import annotations

from collections.abc import Iterable

from mathlete.core.generation import GenerateRequest, GeneratorEvent, SamplingParams
from mathlete.core.protocols import Generator


class BorrowedGenerator:
    """Passes everything on, except `close`. To be lent again only after a run that ended in order: it is idle then."""

    def __init__(self, generator: Generator) -> None:
        """Lend `generator`."""
        self._generator = generator

    def submit(self, request: GenerateRequest) -> None:
        """See `Generator.submit`."""
        self._generator.submit(request)

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """See `Generator.events`."""
        return self._generator.events(timeout_s)

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """See `Generator.abort`."""
        self._generator.abort(request_id=request_id, group=group)

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """See `Generator.rewind`."""
        self._generator.rewind(request_id, num_tokens, sampling)

    def close(self) -> None:
        """Nothing: its owner closes it."""
