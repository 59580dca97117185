"""Problems with their golds, from files, data sets, or one string.

Knows ids, golds and which columns hold them; formats are the business of `task_files.py` and `hugging_face.py`. A
`Task` is kept away from solvers: they get its `problem`, which holds no gold. Each gold is proved to pass the verifier
that will judge the answers (`task_golds.py`). A row that cannot be used is refused and told, and costs the others
nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind, Problem
from mathlete.lab.bad_rows import MAX_SHOWN, BadRow
from mathlete.lab.hugging_face import PREFIX, hub_rows, saved_rows
from mathlete.lab.mapped_rows import MISSING, found
from mathlete.lab.mapping import Places, RecordingMapping, load_mapping
from mathlete.lab.task_files import Row, read_rows, stem_of
from mathlete.lab.task_golds import is_blank, prove_gold
from mathlete.lab.task_sources import find_source

_NUM_NOTED = 3
# Tried in turn where no mapping says which column is meant.
_PLACES: dict[str, Places] = {
    "id": ("id", "problem_id", "unique_id", "task_id", "question_id", "ID", "Id"),
    "statement": ("problem", "question", "statement", "prompt", "Problem", "Question"),
    "gold": (
        "answer", "gold", "expected_answer", "final_answer", "gold_answer", "target", "Answer", "solution",
    ),
    "group": ("group",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """A problem and what is known of its answer.

    Attributes:
        problem: what a solver may see.
        gold: the right answer as canonical integer text, or None when unknown.
        group: unit of resampling: variants of one problem share it.
    """

    problem: Problem
    gold: str | None
    group: str


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that is no task, or a task without its label.

    Attributes:
        place: file and line or row.
        id: of its problem; None when it has none that can be read.
        reason: what is wrong with it, for a person.
        is_kept: whether its problem is a task all the same, without a label.
    """

    place: str
    id: str | None
    reason: str
    is_kept: bool = False

    def __str__(self) -> str:
        """One line for a person."""
        return str(BadRow(self.place, f"problem {self.id!r}: {self.reason}" if self.id is not None else self.reason))


@dataclass(frozen=True, slots=True)
class TaskRow:
    """What became of one row.

    Attributes:
        place: file and line or row.
        id: of its problem; None when it has none that can be read.
        gold: as it is written; None when there is none.
        task: None for a row that was refused or skipped.
        refused: why it was, or why its label was; None when all is well.
        is_skipped: whether it says of itself that its answer is no integer.
    """

    place: str
    id: str | None
    gold: Any = None
    task: Task | None = None
    refused: RefusedRow | None = None
    is_skipped: bool = False


@dataclass(frozen=True, slots=True)
class TaskSet:
    """What was loaded.

    Attributes:
        tasks: in the order of the input.
        skipped: ids of rows that say `"integer": false`, up to the last row read.
        refused: rows that could not be used, and those whose label could not.
    """

    tasks: tuple[Task, ...]
    skipped: tuple[str, ...] = ()
    refused: tuple[RefusedRow, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the input, one sentence each."""
        notes = []
        if self.skipped:
            few = ", ".join(self.skipped[:_NUM_NOTED]) + (", ..." if len(self.skipped) > _NUM_NOTED else "")
            notes.append(f"{len(self.skipped)} problems were left out because their answer is no integer: {few}")
        lost = [row for row in self.refused if not row.is_kept]
        kept = [row for row in self.refused if row.is_kept]
        for rows, what in ((lost, "rows were left out"), (kept, "problems have no label")):
            if rows:
                shown = [f"  {row}" for row in rows[:MAX_SHOWN]]
                more = [f"  ... and {len(rows) - MAX_SHOWN} more"] if len(rows) > MAX_SHOWN else []
                notes.append("\n".join([f"{len(rows)} {what}, because what they say cannot be used:", *shown, *more]))
        return tuple(notes)

    def check_none_is_lost(self) -> None:
        """For whoever owes each problem an answer: raise `InputError` when a row is no task. Labels may be missing."""
        lost = [row for row in self.refused if not row.is_kept]
        if lost:
            raise InputError("\n".join(TaskSet((), (), tuple(lost)).notes).replace("were left out", "are no problems"))


def load_tasks(
    path_or_text: str | os.PathLike[str],
    *,
    require_gold: bool = False,
    limit: int | None = None,
    low: int = 0,
    high: int = 99_999,
    mapping: RecordingMapping | str | None = None,
) -> TaskSet:
    """Read tasks from a file or a data set, or take the string as one problem.

    Columns or keys are `id`, `problem` and, if known, `answer`, or other usual names of these (see `_PLACES`), or what
    a mapping says; and `group`, `source`, `integer`, `formal_statement` (a theorem in Lean 4;
    `verify/lean/statement.py` reads it where proofs are asked for). Others are ignored. Where there are no ids, rows
    are numbered.

    Args:
        path_or_text: a .csv, .jsonl, .jsonl.gz or .parquet file; `hf:OWNER/NAME[/CONFIG][:SPLIT]`; a folder that
            `save_to_disk` of `datasets` wrote; or a statement, which becomes one task with the id "problem".
        require_gold: every task must have an answer; rows without one are refused. Otherwise a row whose answer cannot
            be used is kept as a task without a label, and listed.
        limit: tasks at most; nothing is read after the last of them.
        low: smallest admissible answer.
        high: largest admissible answer.
        mapping: which columns or keys hold what; a mapping, the name of a preset, or a .toml file.

    Raises:
        InputError: the input cannot be read, or no row of it can be used; the message says where and what to do.
    """
    kind = AnswerKind(low=low, high=high)
    source = find_source(path_or_text)
    if source is None:
        _check_limit(limit)
        return _single_task(str(path_or_text), kind, require_gold)
    return _collect(read_task_rows(source, kind, require_gold, mapping), limit, str(source))


def tasks_of_rows(rows: Iterable[Row], *, limit: int | None = None, low: int = 0, high: int = 99_999) -> TaskSet:
    """Tasks from rows that are in memory, by the rules of `load_tasks`; rows are named by their `where`.

    Raises:
        InputError: no row can be used, or there are none.
    """
    return _collect(_task_rows(rows, AnswerKind(low=low, high=high), False, _PLACES), limit, "the given problems")


def read_task_rows(
    path: str | os.PathLike[str],
    kind: AnswerKind,
    require_gold: bool = False,
    mapping: RecordingMapping | str | None = None,
) -> Iterator[TaskRow]:
    """What becomes of each row, one at a time; arguments and errors as for `load_tasks`."""
    known = load_mapping(mapping) if isinstance(mapping, str) else mapping
    places = _PLACES if known is None else {"id": (), "gold": (), "group": (), **known.problem}
    text = os.fspath(path)
    rows: Iterable[Row | BadRow]
    if text.startswith(PREFIX):
        rows = hub_rows(text)
    elif os.path.isdir(text):
        rows = saved_rows(Path(text))
    else:
        rows = read_rows(Path(text))
    return _task_rows(rows, kind, require_gold, places)


def _single_task(statement: str, kind: AnswerKind, require_gold: bool) -> TaskSet:
    if require_gold:
        raise InputError("a problem given as text has no answer to compare with; give a file with an answer column")
    if not _is_encodable(statement):
        raise InputError("the problem is not valid Unicode text; give it as UTF-8, or in a file")
    problem = Problem(id="problem", statement=statement.strip(), answer_kind=kind)
    return TaskSet((Task(problem, gold=None, group=problem.id),))


def _check_limit(limit: int | None) -> None:
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InputError(f"limit must be at least 1 and whole, not {limit!r:.40}")


def _collect(rows: Iterator[TaskRow], limit: int | None, source: str) -> TaskSet:
    _check_limit(limit)
    tasks: list[Task] = []
    skipped: list[str] = []
    refused: list[RefusedRow] = []
    for row in rows:
        if row.task is not None:
            tasks.append(row.task)
        if row.refused is not None:
            refused.append(row.refused)
        if row.is_skipped and row.id is not None:
            skipped.append(row.id)
        if len(tasks) == limit:
            break
    if not tasks:
        why = [f"all of its {len(skipped)} rows say that their answer is no integer"] if skipped and not refused else []
        why += list(TaskSet((), tuple(skipped), tuple(refused)).notes) if refused else []
        raise InputError(f"{source}: no problems to solve: {'; '.join(why) or 'it has no rows'}")
    return TaskSet(tuple(tasks), tuple(skipped), tuple(refused))


def _task_rows(
    rows: Iterable[Row | BadRow], kind: AnswerKind, require_gold: bool, places: dict[str, Places]
) -> Iterator[TaskRow]:
    seen: dict[str, str] = {}
    for row in rows:
        if isinstance(row, BadRow):
            yield TaskRow(row.where, None, refused=RefusedRow(row.where, None, row.reason))
            continue
        problem_id, gold = None, _value(row, places["gold"])
        gold = None if is_blank(gold) else gold
        try:
            problem_id = _problem_id(row, places["id"])
            if problem_id in seen:
                raise _RowError(f"id {problem_id!r} was used before, in {seen[problem_id]}; ids must differ")
            seen[problem_id] = row.place
            if row.fields.get("integer") is False:
                yield TaskRow(row.where, problem_id, gold, is_skipped=True)
                continue
            yield _task_row(row, problem_id, gold, kind, require_gold, places)
        except _RowError as error:
            refused = RefusedRow(row.where, problem_id, str(error))
            yield TaskRow(row.where, problem_id, gold, refused=refused)


class _RowError(ValueError):
    """What is wrong with a row, without its place."""


def _task_row(
    row: Row, problem_id: str, written: Any, kind: AnswerKind, require_gold: bool, places: dict[str, Places]
) -> TaskRow:
    source, formal = row.fields.get("source"), row.fields.get("formal_statement")
    problem = Problem(
        id=problem_id,
        statement=_text(row, places["statement"]),
        answer_kind=kind,
        formal_statement=None if is_blank(formal) else _text(row, ("formal_statement",)),
        source=None if is_blank(source) else str(source),
    )
    proved = prove_gold(written, kind)
    refused = None if proved.reason is None else RefusedRow(row.where, problem_id, proved.reason, not require_gold)
    if require_gold and proved.gold is None:
        refused = refused or RefusedRow(row.where, problem_id, "has no answer, and evaluating needs one for each")
        return TaskRow(row.where, problem_id, written, refused=refused)
    group = _value(row, places["group"])
    task = Task(problem, proved.gold, group=problem_id if is_blank(group) else str(group))
    return TaskRow(row.where, problem_id, written, task, refused)


def _value(row: Row, places: Places) -> Any:
    """The first that says something; None when none does."""
    values = (stem_of(row.file) if place == "@file" else found(row.fields, place) for place in places)
    return next((value for value in values if value is not MISSING and value is not None), None)


def _problem_id(row: Row, places: Places) -> str:
    numbered = f"{stem_of(row.file)}-{row.place.rsplit(' ', 1)[-1]}"
    present = tuple(place for place in places if found(row.fields, place) not in (MISSING, None))
    return _text(row, present, may_be_number=True) if present else numbered


def _text(row: Row, places: Places, *, may_be_number: bool = False) -> str:
    place = next((place for place in places if found(row.fields, place) not in (MISSING, None)), None)
    if place is None:
        held = ", ".join(map(repr, list(row.fields)[:20])) or "nothing"
        raise _RowError(f"has no {' or '.join(map(repr, places[:3]))}; it has {held}")
    value = found(row.fields, place)
    if may_be_number and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _RowError(f"{place!r} must be text, not {value!r:.60}")
    if not value.strip():
        raise _RowError(f"{place!r} is empty; fill it in or delete the row")
    if not _is_encodable(value):
        raise _RowError(f"{place!r} holds half of a surrogate pair; write the character itself")
    return value.strip()


def _is_encodable(text: str) -> bool:
    """Whether it can be written to any file: JSON and the command line can smuggle lone surrogates in."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
