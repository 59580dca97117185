"""Following a run by reading its store again and again, only what is new each time.

Knows stores, and what may become of them while somebody watches: a run that has not begun, is over, was cut off, goes
on again, or whose store is another one all of a sudden. Does not know pages. Texts of attempts are never kept: what is
held in memory is an outline, which grows with the number of attempts and not with their length.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mathlete.core.errors import InputError, MathleteError, StorageError
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.trace import TraceEvent
from mathlete.lab.read_ahead import reading_ahead
from mathlete.lab.run_lock import is_held
from mathlete.lab.run_reading import FIGURE_KINDS, OUTLINE_KINDS, fold_stored, read_problem, without_turns
from mathlete.lab.run_store import RunStore

Status = Literal["waiting", "reading", "running", "cut_off", "over", "unreadable"]

LARGE_BYTES = 256 << 20  # of a store whose outline may take seconds to read


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as it was when somebody looked.

    Attributes:
        status: "waiting" before there is anything to read, "reading" before all of a large store is read, "running"
            while a process works on it, "cut_off" when none does and it is not over, "unreadable" when its store
            cannot be read any more.
        message: what is wrong, when it is waiting or unreadable.
        epoch: tells the store from others that had its name before: the number of its file, 0 while there is none.
        place: of the last event seen; 0 before the first. Places of different epochs cannot be compared.
        watched_from: the place at which it was first read; what changed before is not in `changed`.
        run: an outline; None before the first event.
        changed: of each problem that changed since it was watched, the place of the last event about it.
    """

    status: Status = "waiting"
    message: str = ""
    epoch: int = 0
    place: int = 0
    watched_from: int = 0
    run: RunRecord | None = None
    changed: Mapping[str, int] = field(default_factory=dict)


class WatchedRun:
    """One run of a store, which need not exist yet. May be used by several threads, one at a time gets in."""

    def __init__(self, path: Path, run_id: str | None = None) -> None:
        """Watch the run `run_id` of the store at `path`; None for the only one there is."""
        self.path = path
        self.run_id = run_id
        self._snapshot = Snapshot()
        self._lock = threading.Lock()

    def look(self) -> Snapshot:
        """Read what is new, and tell how the run stands."""
        with self._lock:
            try:
                self._read()
            except InputError as error:
                self._snapshot = replace(self._snapshot, status="waiting", message=str(error))
            except StorageError as error:
                self._snapshot = replace(self._snapshot, status="unreadable", message=str(error))
            return self._snapshot

    def glance(self) -> Snapshot:
        """As `look`, but of a large store that has not been read yet only what can be told at once: no attempts."""
        if self._snapshot.place > 0 or not self._is_large():
            return self.look()
        try:
            with RunStore.read(self.path, self.run_id) as store:
                run = fold_stored(store, store.events(kinds=FIGURE_KINDS))
        except MathleteError:
            return self.look()  # which says what is wrong
        return Snapshot("reading", epoch=self.path.stat().st_ino, run=run)

    def read_problem(self, problem_id: str) -> ProblemRecord:
        """One problem with all that was written on it.

        Raises:
            InputError: there is no such run, or it has no such problem.
            StorageError: its store cannot be read.
        """
        with RunStore.read(self.path, self.run_id) as store:
            return read_problem(store, problem_id)

    def _read(self) -> None:
        with RunStore.read(self.path, self.run_id) as store:
            self._start_afresh_if_replaced()
            seen = self._snapshot
            changes = store.changes(seen.place)
            if changes:
                place = max(changes.values())
                with reading_ahead(self.path) if seen.place == 0 else nullcontext():
                    run = fold_stored(store, _outline_events(store, seen.place, place), seen.run)
                if seen.place == 0:
                    seen = replace(seen, run=run, place=place, watched_from=place)
                else:
                    seen = replace(seen, run=run, place=place, changed={**seen.changed, **_about_problems(changes)})
        self._snapshot = replace(seen, status=self._status(seen.run), message="")

    def _start_afresh_if_replaced(self) -> None:
        epoch = self.path.stat().st_ino
        if epoch != self._snapshot.epoch:
            self._snapshot = Snapshot(epoch=epoch)

    def _is_large(self) -> bool:
        return self.path.is_file() and self.path.stat().st_size >= LARGE_BYTES

    def _status(self, run: RunRecord | None) -> Status:
        if run is None:
            return "waiting"
        if run.finished is not None:
            return "over"
        return "running" if is_held(self.path.with_suffix(".lock")) else "cut_off"


def _outline_events(store: RunStore, after: int, last: int) -> Iterator[TraceEvent]:
    """Those after one place and up to another; later ones come with the next look, together with what they change."""
    for seq, event in store.stored_events(kinds=OUTLINE_KINDS, after=after):
        if seq > last:
            return
        yield without_turns(event)


def _about_problems(changes: Mapping[str | None, int]) -> dict[str, int]:
    return {problem_id: place for problem_id, place in changes.items() if problem_id is not None}
