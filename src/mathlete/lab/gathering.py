"""Many runs in one store: runs copied from where they were made, and recordings of others as runs.

Knows what makes two runs the same and what an import leaves in a store. Does not know in which forms recordings come
(`lab.recordings` does).

Copying can be cut off anywhere and begun again: what is there is not copied twice, since events only ever come behind
others, in the source as in the copy. For the same reason a run that went on since it was copied is continued.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mathlete import __version__
from mathlete.cic.majority import Majority
from mathlete.core.errors import InputError
from mathlete.core.trace import EventKind, TraceEvent, encode, encode_ending, encode_problem
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.run_finding import FoundRun
from mathlete.lab.run_store import EventRow, RunStore, StoredRun, encode_row, list_runs

BLOCK_BYTES = 16 << 20  # of events copied in one transaction
_BLOCK_EVENTS = 10_000
VOTED = "recorded elsewhere; the plain vote stands"
"""Why the problems of a recording ended."""


@dataclass(frozen=True, slots=True)
class GatheredRun:
    """What became of one run.

    Attributes:
        id: its name.
        num_copied: events that were copied now.
        num_there: events that were in the store before.
    """

    id: str
    num_copied: int
    num_there: int


OnCopied = Callable[[str, int, int], None]
"""Told of a run's name, how many of its events are in the store, and how many there are."""


def gather_runs(
    runs: Sequence[FoundRun], into: Path, on_copied: OnCopied = lambda run_id, num, total: None
) -> tuple[GatheredRun, ...]:
    """Copy runs into the store at `into`, which is made when it is not there. May be repeated: nothing comes twice.

    Raises:
        InputError: two different runs have the same name, one of them is `into` itself, there is none, or somebody
            writes to `into`.
        StorageError: a store is damaged or cannot be written; what was copied is kept, and copying goes on when it is
            asked for again.
    """
    if not runs:
        raise InputError("there is no run to gather")
    for run in runs:
        if into.exists() and run.path.samefile(into):
            raise InputError(f"{into} cannot be gathered into itself; name another file for the store")
    gathered: list[GatheredRun] = []
    with _writing_to(into, runs[0].id, str(runs[0].path)) as target:
        for run in runs:
            with run.read() as source:
                gathered.append(_copy(source, target.beside(run.id, str(run.path)), on_copied))
    return tuple(gathered)


def add_recording(store_path: Path, run_id: str, source: str, problems: Iterable[RecordedProblem]) -> StoredRun:
    """Put recorded attempts of others into a store as a run of their own, whole or not at all.

    Recordings do not tell what was handed in: the plain vote of a problem's attempts stands for it. Which attempts are
    right is kept as `problems` have it (`ProblemRecord.correct`), their checks stand behind the attempts. Problems are
    taken one by one and need not fit into memory.

    Args:
        store_path: the store; made when it is not there.
        run_id: what the run is to be called.
        source: where the attempts are from, for people.
        problems: with their attempts.

    Raises:
        InputError: there are no problems, or the same one twice; the store has a run of that name, or is being written.
        StorageError: the store is damaged or cannot be written.
    """
    with _writing_to(store_path, run_id, source) as first:
        store = first.beside(run_id, source)
        if store.num_events() > 0:
            raise InputError(f"there is a run {run_id!r} in the store {store_path} already; choose another name")
        recording = _Recording(source)
        store.append_rows(recording.rows(problems), recording.head)
        return store.run


class _Recording:
    """The events of a recording: what it begins with is known only at its end."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._wall_time = time.time()
        self._problems: dict[str, dict[str, object]] = {}
        self._models: set[str | None] = set()
        self._most_attempts = 0

    def rows(self, problems: Iterable[RecordedProblem]) -> Iterator[EventRow]:
        num_attempts = 0
        for recorded in problems:
            problem_id = recorded.problem.id
            if problem_id in self._problems:
                raise InputError(f"problem {problem_id!r} is twice in {self._source}; ids must differ")
            self._problems[problem_id] = encode_problem(recorded.problem)
            self._models |= {attempt.model for attempt in recorded.attempts}
            self._most_attempts = max(self._most_attempts, len(recorded.attempts))
            num_attempts += len(recorded.attempts) + len(recorded.checks)
            for attempt in (*recorded.attempts, *recorded.checks):
                for turn in attempt.turns:
                    yield self._row("turn_finished", {"turn": encode(turn)}, problem_id, attempt.id)
                yield self._row("attempt_finished", {"attempt": encode_ending(attempt)}, problem_id, attempt.id)
            vote = Majority().select(recorded.problem, recorded.attempts)
            yield self._row("problem_finished", {"selection": encode(vote), "reason": VOTED}, problem_id)
            right = [
                attempt.id for attempt, is_right in zip(recorded.attempts, recorded.correct, strict=True) if is_right
            ]
            data = {"gold": recorded.gold, "group": recorded.group, "correct": right}
            yield self._row("gold_revealed", data, problem_id)
        if not self._problems:
            raise InputError(f"there are no recorded attempts in {self._source}")
        stats = {"num_problems": len(self._problems), "num_attempts": num_attempts}
        yield self._row("run_finished", {"reason": "complete", "seconds": 0.0, "stats": stats})

    def head(self) -> EventRow:
        model = next(iter(self._models)) if len(self._models) == 1 else None
        config = {"command": "import", "source": self._source, "model": model, "attempts": self._most_attempts,
                  "version": __version__}  # fmt: skip
        return self._row("run_started", {"config": config, "problems": list(self._problems.values())})

    def _row(
        self, kind: EventKind, data: Mapping[str, object], problem_id: str | None = None, attempt_id: str | None = None
    ) -> EventRow:
        # `at_s` is 0 throughout: when something happened in somebody else's run is not known.
        return encode_row(TraceEvent(kind, 0.0, data, problem_id, attempt_id, self._wall_time))


@contextmanager
def _writing_to(path: Path, run_id: str, source: str) -> Iterator[RunStore]:
    """The store at `path` open for writing, at whichever run. One that was made for nothing is not left behind."""
    is_there = path.exists()
    runs = list_runs(path) if is_there else ()
    store = RunStore.open(path, runs[0].id) if runs else RunStore.create(path, run_id, source)
    with store:
        try:
            yield store
        except BaseException:
            store.close()
            if not is_there and not list_runs(path):
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
            raise


def _copy(source: RunStore, target: RunStore, on_copied: OnCopied) -> GatheredRun:
    num_there, total = target.num_events(), source.num_events()
    _check_same(source, target, num_there, total)
    num = num_there
    on_copied(target.run.id, num, total)
    for block in _blocks(source.rows(num_there)):
        target.append_rows(block)
        num += len(block)
        on_copied(target.run.id, num, max(num, total))
    return GatheredRun(target.run.id, num - num_there, num_there)


def _check_same(source: RunStore, target: RunStore, num_there: int, total: int) -> None:
    """Whether what is there is the beginning of the source: its first event and its last are the same ones."""
    if num_there == 0:
        return
    if num_there > total and next(target.rows()) == next(source.rows(), None):
        raise InputError(
            f"the run {target.run.id!r} in {target.path} has gone on further than the one in {source.path}: that is an "
            "older copy of it; leave it out"
        )
    places = (0, num_there - 1)
    if any(next(target.rows(place)) != next(source.rows(place), None) for place in places):
        raise InputError(
            f"{target.path} has a run of the name {target.run.id!r} that is not the one in {source.path}; gather that "
            "into another store, or give its folder another name"
        )


def _blocks(rows: Iterable[EventRow]) -> Iterator[list[EventRow]]:
    block: list[EventRow] = []
    num_bytes = 0
    for row in rows:
        block.append(row)
        num_bytes += len(row.data)
        if num_bytes >= BLOCK_BYTES or len(block) >= _BLOCK_EVENTS:
            yield block
            block, num_bytes = [], 0
    if block:
        yield block
