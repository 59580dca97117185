"""Problems that are asked for one by one, worked on together: a run shares its clock and its engine over all of them.

Knows threads and futures; knows no harness and no model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_MAX_GATHERING = 10

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Asked(Generic[Item, Result]):
    """One item that waits, or is worked on."""

    item: Item
    kind: Hashable
    future: Future[Result] = field(default_factory=Future)


class Batches(Generic[Item, Result]):
    """Calls `work` with whatever was asked for meanwhile, one batch at a time, in a thread of its own."""

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        stop: Callable[[], None],
        gather_s: float = 0.2,
    ) -> None:
        """Start nothing yet.

        Args:
            work: gives a result for each item; what it raises, each of those who asked gets.
            stop: asks `work` to end soon; called from other threads, when nobody waits for the batch any more.
            gather_s: a batch begins when nobody has come for so long; at the latest after ten times that.
        """
        self._work = work
        self._stop = stop
        self._gather_s = gather_s
        self._lock = threading.Lock()
        self._waiting: list[_Asked[Item, Result]] = []
        self._batch: list[_Asked[Item, Result]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mathlete")

    def ask(self, item: Item, kind: Hashable = None) -> Future[Result]:
        """Queue an item. Only items of one kind are worked on together."""
        asked: _Asked[Item, Result] = _Asked(item, kind)
        with self._lock:
            self._waiting.append(asked)
        self._thread.submit(self._go_on)
        return asked.future

    def give_up(self, future: Future[Result]) -> None:
        """Nobody waits for this any more; a batch that is left by all is stopped."""
        future.cancel()
        with self._lock:
            self._waiting = [asked for asked in self._waiting if asked.future is not future]
            is_left = bool(self._batch) and all(asked.future.cancelled() for asked in self._batch)
        if is_left:
            self._stop()

    def close(self) -> None:
        """End what is worked on and forget what waits. Safe to call twice."""
        with self._lock:
            asked, self._waiting = [*self._waiting, *self._batch], []
        for item in asked:
            item.future.cancel()
        self._stop()
        self._thread.shutdown(wait=True)

    def _gather(self) -> None:
        """Wait while others come."""
        num_before = -1
        for _ in range(_MAX_GATHERING):
            with self._lock:
                num_waiting = len(self._waiting)
            if num_waiting == num_before:
                return
            num_before = num_waiting
            time.sleep(self._gather_s)

    def _go_on(self) -> None:
        """Work on those of the first one's kind. There is a call for each item; most find nothing left to do."""
        with self._lock:
            if not self._waiting:
                return
        self._gather()
        with self._lock:
            if not self._waiting:
                return
            kind = self._waiting[0].kind
            batch = [asked for asked in self._waiting if asked.kind == kind]
            self._waiting = [asked for asked in self._waiting if asked.kind != kind]
            self._batch = batch
        try:
            results = self._work([asked.item for asked in batch])
        except BaseException as error:
            for asked in batch:
                with suppress(InvalidStateError):  # given up meanwhile
                    asked.future.set_exception(error)
        else:
            for asked, result in zip(batch, results, strict=True):
                with suppress(InvalidStateError):
                    asked.future.set_result(result)
        finally:
            with self._lock:
                self._batch = []
