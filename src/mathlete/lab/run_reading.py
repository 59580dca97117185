"""Reading a stored run no more of it than is needed: its figures, its outline, or one problem in full.

Knows which events a reader can do without. What they mean is `core.record.fold_run`'s. Memory is bounded by what is
returned: the texts and logprobs of other problems are never read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mathlete.core.errors import InputError
from mathlete.core.record import ProblemRecord, RunRecord, fold_run
from mathlete.core.trace import EventKind, TraceEvent
from mathlete.lab.read_ahead import reading_ahead
from mathlete.lab.rightness import choice_is_right
from mathlete.lab.run_store import RunStore
from mathlete.lab.store_connection import damaged

OUTLINE_KINDS: tuple[EventKind, ...] = (
    "run_started",
    "run_resumed",
    "problem_opened",
    "attempt_started",
    "attempt_finished",
    "decision",
    "problem_finished",
    "gold_revealed",
    "run_finished",
    "warning",
)
"""All but what happens within attempts."""
_ASKED: tuple[EventKind, ...] = ("run_started", "run_resumed")
FIGURE_KINDS: tuple[EventKind, ...] = (
    "run_started",
    "run_resumed",
    "problem_finished",
    "gold_revealed",
    "run_finished",
)
"""What was asked, and what came of it, without the attempts: few events, found at once in a store of any size."""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What a list of runs tells of each.

    Attributes:
        id: its name.
        source: where it was copied or imported from; None for one that was recorded here.
        command: that made it; None when it was cut off before it began.
        model: that made the attempts; None when they are of several.
        started_wall_time: seconds since the epoch.
        elapsed_s: of its clock.
        num_problems: asked.
        num_attempts: finished, checks of answers included.
        num_selected: problems with an answer and a label.
        num_right: of these, those whose answer is the label.
        finished: how it ended; None when it goes on or was cut off.
    """

    id: str
    source: str | None
    command: str | None
    model: str | None
    started_wall_time: float
    elapsed_s: float
    num_problems: int
    num_attempts: int
    num_selected: int
    num_right: int
    finished: str | None

    @property
    def accuracy(self) -> float | None:
        """Share of the problems with answer and label that are right; None when there are none."""
        return self.num_right / self.num_selected if self.num_selected else None


def read_figures(store: RunStore) -> RunFigures:
    """What a list of runs tells of one, without its attempts being read.

    Raises:
        InputError: a newer version wrote the run.
        StorageError: it cannot be read.
    """
    run = fold_stored(store, store.events(kinds=FIGURE_KINDS))
    labelled = [record for record in run.problems.values() if record.selection is not None and record.gold is not None]
    return RunFigures(
        id=store.run.id,
        source=store.run.source,
        command=run.config.get("command"),
        model=run.config.get("model"),
        started_wall_time=run.started_wall_time,
        elapsed_s=store.last_at_s(),
        num_problems=len(run.problems),
        num_attempts=store.num_events("attempt_finished"),
        num_selected=len(labelled),
        num_right=sum(choice_is_right(record) is True for record in labelled),
        finished=run.finished,
    )


def read_outline(store: RunStore) -> RunRecord:
    """A run whose attempts have no turns, and whose problems therefore have no `rewindings` and `beam_levels` either.

    All else is as `fold_run` makes it of all events. Takes about 3 s for 100,000 attempts, however long they are.

    Raises:
        InputError: a newer version wrote the run.
        StorageError: it cannot be read.
    """
    with reading_ahead(store.path):
        run = fold_stored(store, map(without_turns, store.events(kinds=OUTLINE_KINDS)))
    return replace(run, elapsed_s=max(run.elapsed_s, store.last_at_s()))


def read_problem(store: RunStore, problem_id: str) -> ProblemRecord:
    """One problem in full.

    Raises:
        InputError: the run has no such problem, or a newer version wrote it.
        StorageError: it cannot be read.
    """
    asked = _read_asked(store)
    if problem_id not in asked.problems:
        raise InputError(f"there is no problem {problem_id!r} in the run {store.run.id} of {store.path}")
    return _read_in_full(store, asked.problems[problem_id])


def read_problems(store: RunStore) -> Iterator[ProblemRecord]:
    """All problems in full, one at a time, in the order of the input. Raises as for `read_problem`."""
    for record in _read_asked(store).problems.values():
        yield _read_in_full(store, record)


def fold_stored(store: RunStore, events: Iterable[TraceEvent], so_far: RunRecord | None = None) -> RunRecord:
    """`fold_run` of events of a store.

    Raises:
        StorageError: an event does not hold what its kind holds, so that nobody can say what happened.
    """
    try:
        return fold_run(events, so_far)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(store.path, f"an event does not hold what it must ({error!r:.200})") from error


def _read_asked(store: RunStore) -> RunRecord:
    """The run before it did anything."""
    return fold_stored(store, store.events(kinds=_ASKED))


def _read_in_full(store: RunStore, record: ProblemRecord) -> ProblemRecord:
    problem_id = record.problem.id
    start = RunRecord(config={}, problems={problem_id: record})
    return fold_stored(store, store.events(problem_id=problem_id), start).problems[problem_id]


def without_turns(event: TraceEvent) -> TraceEvent:
    """An attempt may have been recorded with its turns in it."""
    if event.kind != "attempt_finished" or "turns" not in event.data["attempt"]:
        return event
    return replace(event, data={"attempt": {**event.data["attempt"], "turns": ()}})
