"""Problems with their golds, from a file or from one string.

Knows file formats (through `task_files.py`), ids and golds. A `Task` is kept away from solvers: they get its
`problem`, which holds no gold. Each gold is read by the verifier that will judge the answers, so no task can
be loaded that could never be marked right.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind, Problem
from mathlete.lab.task_files import SUFFIXES, Row, read_rows
from mathlete.verify.integers import parse_integer

_MAX_PATH_CHARS = 1_000
_PATH_SUFFIXES = (*SUFFIXES, ".csv.gz", ".json", ".tsv", ".txt", ".xlsx")


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
class TaskSet:
    """What was loaded.

    Attributes:
        tasks: in the order of the input.
        skipped: ids of rows that say `"integer": false`, up to the last row read.
    """

    tasks: tuple[Task, ...]
    skipped: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the input, one sentence each."""
        if not self.skipped:
            return ()
        few = ", ".join(self.skipped[:3]) + (", ..." if len(self.skipped) > 3 else "")
        return (f"{len(self.skipped)} problems were left out because their answer is no integer: {few}",)


def load_tasks(
    path_or_text: str | os.PathLike[str],
    *,
    require_gold: bool = False,
    limit: int | None = None,
    low: int = 0,
    high: int = 99_999,
) -> TaskSet:
    """Read tasks from a CSV, JSONL (plain or gzipped) or Parquet file, or take the string as one problem.

    Columns or keys are `id`, `problem` and, if known, `answer`, `group`, `source`, `integer`, `formal_statement` (a
    theorem in Lean 4; `verify/lean/statement.py` reads it where proofs are asked for); others are ignored.

    Args:
        path_or_text: a path; or a statement, which becomes one task with the id "problem".
        require_gold: every task must have an answer.
        limit: tasks at most; nothing is read after the last of them.
        low: smallest admissible answer.
        high: largest admissible answer.

    Raises:
        InputError: the input cannot be used as it is; the message says where and what to do.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}")
    kind = AnswerKind(low=low, high=high)
    path = _existing_file(path_or_text)
    if path is None:
        return _single_task(str(path_or_text), kind, require_gold)
    tasks, skipped = _collect(read_rows(path), kind, require_gold, limit)
    if not tasks:
        why = f"all of its {len(skipped)} rows say that their answer is no integer" if skipped else "it has no rows"
        raise InputError(f"{path}: no problems to solve: {why}")
    return TaskSet(tuple(tasks), tuple(skipped))


def tasks_of_rows(rows: Iterable[Row], *, limit: int | None = None, low: int = 0, high: int = 99_999) -> TaskSet:
    """Tasks from rows that are in memory, by the rules of `load_tasks`; rows are named by their `where`.

    Raises:
        InputError: a row cannot be used as it is, or there are none.
    """
    tasks, skipped = _collect(rows, AnswerKind(low=low, high=high), False, limit)
    if not tasks:
        raise InputError("there are no problems to solve" + (": no answer is an integer" if skipped else ""))
    return TaskSet(tuple(tasks), tuple(skipped))


def _existing_file(path_or_text: str | os.PathLike[str]) -> Path | None:
    """The file that is meant, or None for a statement."""
    text = os.fspath(path_or_text)
    if not text.strip():
        raise InputError("the problem is empty: give a statement, or a .csv, .jsonl or .parquet file")
    path = Path(text)
    may_be_path = len(text) <= _MAX_PATH_CHARS and "\n" not in text and "\0" not in text
    if may_be_path and os.path.isdir(text):
        raise InputError(f"{path}: is a directory; name a file in it ({', '.join(SUFFIXES)})")
    if may_be_path and os.path.exists(text):  # unlike pathlib's, false for a name that is too long
        return path
    looks_like_path = text.lower().endswith(_PATH_SUFFIXES) or (os.sep in text and not any(map(str.isspace, text)))
    if not isinstance(path_or_text, str) or (may_be_path and looks_like_path):
        raise InputError(f"{path}: file not found{_near_names(path)}")
    return None


def _near_names(path: Path) -> str:
    if not os.path.isdir(path.parent):
        return f"; there is no directory {path.parent}"
    near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=3)
    if not near:
        return ". A problem given as text must contain a space"
    return "; did you mean " + " or ".join(str(path.parent / name) for name in near) + "?"


def _single_task(statement: str, kind: AnswerKind, require_gold: bool) -> TaskSet:
    if require_gold:
        raise InputError("a problem given as text has no answer to compare with; give a file with an answer column")
    if not _is_encodable(statement):
        raise InputError("the problem is not valid Unicode text; give it as UTF-8, or in a file")
    problem = Problem(id="problem", statement=statement.strip(), answer_kind=kind)
    return TaskSet((Task(problem, gold=None, group=problem.id),))


def _collect(
    rows: Iterable[Row], kind: AnswerKind, require_gold: bool, limit: int | None
) -> tuple[list[Task], list[str]]:
    tasks: list[Task] = []
    skipped: list[str] = []
    seen: dict[str, str] = {}
    for row in rows:
        problem_id = _text(row, "id")
        if problem_id in seen:
            raise InputError(f"{row.where}: id {problem_id!r} was used before, in {seen[problem_id]}; ids must differ")
        seen[problem_id] = row.place
        if row.fields.get("integer") is False:
            skipped.append(problem_id)
        else:
            tasks.append(_task(row, problem_id, kind, require_gold))
        if len(tasks) == limit:
            break
    return tasks, skipped


def _task(row: Row, problem_id: str, kind: AnswerKind, require_gold: bool) -> Task:
    source = row.fields.get("source")
    problem = Problem(
        id=problem_id,
        statement=_text(row, "problem"),
        answer_kind=kind,
        formal_statement=None if _is_blank(row.fields.get("formal_statement")) else _text(row, "formal_statement"),
        source=None if source is None else str(source),
    )
    gold = _gold(row, problem_id, kind)
    if gold is None and require_gold:
        raise InputError(f"{row.where}: problem {problem_id!r} has no answer, and evaluating needs one for each")
    group = row.fields.get("group")
    return Task(problem, gold, group=problem_id if group in (None, "") else str(group))


def _text(row: Row, name: str) -> str:
    value = row.fields.get(name)
    if value is None:
        raise InputError(f"{row.where}: has no {name!r}; it has {', '.join(map(repr, row.fields)) or 'nothing'}")
    if name == "id" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise InputError(f"{row.where}: {name!r} must be text, not {value!r:.60}")
    if not value.strip():
        raise InputError(f"{row.where}: {name!r} is empty; fill it in or delete the row")
    if not _is_encodable(value):
        raise InputError(f"{row.where}: {name!r} holds half of a surrogate pair; write the character itself")
    return value.strip()


def _is_blank(value: object) -> bool:
    """Whether a cell holds no value; NaN stands for none too."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _is_encodable(text: str) -> bool:
    """Whether it can be written to any file: JSON and the command line can smuggle lone surrogates in."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _gold(row: Row, problem_id: str, kind: AnswerKind) -> str | None:
    value = row.fields.get("answer")
    if _is_blank(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{row.where}: the answer of {problem_id!r} must be text or a number, not {value!r:.60}")
    extraction = parse_integer(str(value), kind)
    if extraction.answer is None:
        raise InputError(
            f"{row.where}: the answer of {problem_id!r}, {str(value)[:60]!r}, is not an integer in "
            f"{kind.low}..{kind.high} ({extraction.problem}); correct it, leave it empty, or delete the row"
        )
    return extraction.answer
