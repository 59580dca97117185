"""Recorded attempts from wherever they are: interchange files, tables, other programs' logs, run folders, data frames.

Knows which reader a path needs, and that ids must differ over all of them. What the parts of a row mean is a mapping's
word (`mapping.py`), what a problem must be `recorded.py`'s. Nothing is ever unpickled.

Memory: files with one problem a row are read row by row. Attempts that come one a row may be anywhere in any of the
files, so they are gathered in a temporary database first (`attempt_rows.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mathlete.core.attempt import is_check_pillar
from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind
from mathlete.core.record import ProblemRecord
from mathlete.lab.answer_judging import AnswerJudge
from mathlete.lab.attempt_rows import AttemptRows, GatheredProblem
from mathlete.lab.bad_rows import BadRow
from mathlete.lab.import_report import ImportReport
from mathlete.lab.mapped_rows import found, is_wanted, map_row
from mathlete.lab.mapping import RecordingMapping, load_mapping
from mathlete.lab.recorded import SUFFIXES as INTERCHANGE_SUFFIXES
from mathlete.lab.recorded import MalformedError, RecordedProblem, problem_from, read_interchange
from mathlete.lab.row_files import files_of, frame_rows, mapped_file_rows
from mathlete.lab.run_finding import SEPARATOR
from mathlete.lab.run_reading import read_outline, read_problems
from mathlete.lab.run_store import RunStore
from mathlete.lab.task_files import Row, read_rows, stem_of

TABLE = "table"
"""The preset that is tried where no mapping is given and rows are not of the interchange format."""
_STORE_NAMES = (".sqlite", ".db")

PathLike = str | os.PathLike[str]


def read_recordings(
    paths: PathLike | Sequence[PathLike],
    mapping: RecordingMapping | str | None = None,
    *,
    kind: AnswerKind | None = None,
    min_attempts: int = 1,
    skip_bad: bool = False,
    report: ImportReport | None = None,
    with_text: bool = True,
) -> Iterator[RecordedProblem]:
    """The problems and attempts of files, folders and runs, lazily.

    Args:
        paths: interchange files (.jsonl, .jsonl.gz), tables (.csv, .parquet), other programs' files as the mapping
            says, folders of such files, run folders or run stores (.sqlite; `STORE::RUN` for one of several runs).
        mapping: what the columns or keys mean: a mapping, the name of a preset, or a .toml file. Without one, rows with
            a list `attempts` are of the interchange format, and others of the preset "table".
        kind: what the problems' answers may be; the default of `AnswerKind` if None.
        min_attempts: problems with fewer are left out, and counted.
        skip_bad: leave out and count what cannot be used, instead of an error at the end.
        report: counts what is read.
        with_text: of attempts of run stores; what they wrote is most of a store, and many selectors can do without it.

    Raises:
        InputError: a path cannot be read, or rows cannot be used: raised when everything else has been handed out, with
            the first of them and their number.
        StorageError: there is no room for temporary files.
    """
    if min_attempts < 0:
        raise ValueError("min_attempts must be >= 0")
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    known = load_mapping(mapping) if isinstance(mapping, str) else mapping
    report = ImportReport() if report is None else report
    given = [Path(path) for path in paths]
    missing = [path for path in given if not path.exists() and not _is_run_of_store(path)]
    if missing:
        raise InputError(f"{missing[0]}: file not found")
    return _reading(given, None, known, kind or AnswerKind(), min_attempts, skip_bad, report, with_text)


def from_data_frame(
    frame: Any,
    mapping: RecordingMapping | str | None = None,
    *,
    kind: AnswerKind | None = None,
    min_attempts: int = 1,
    skip_bad: bool = False,
    report: ImportReport | None = None,
) -> Iterator[RecordedProblem]:
    """The problems and attempts of a pandas data frame; arguments and errors as for `read_recordings`."""
    known = load_mapping(mapping) if isinstance(mapping, str) else mapping
    report = ImportReport() if report is None else report
    return _reading([], frame_rows(frame), known, kind or AnswerKind(), min_attempts, skip_bad, report)


def _reading(
    paths: list[Path],
    rows: Iterator[Row] | None,
    mapping: RecordingMapping | None,
    kind: AnswerKind,
    min_attempts: int,
    skip_bad: bool,
    report: ImportReport,
    with_text: bool = True,
) -> Iterator[RecordedProblem]:
    with AnswerJudge() as judge, AttemptRows() as gathered:
        reading = _Reading(mapping, kind, judge, gathered, report, with_text)
        sources = [reading.of_rows(rows)] if rows is not None else []
        sources += [reading.of_path(path) for path in paths]
        for problem in reading.all_of(sources):
            report.num_judged_unknown, report.unknown = judge.num_unknown, judge.unknown
            if len(problem.attempts) < min_attempts:
                report.num_too_few += 1
                continue
            report.num_problems += 1
            report.num_attempts += len(problem.attempts)
            yield problem
        report.num_judged_unknown, report.unknown = judge.num_unknown, judge.unknown
    if not skip_bad:
        report.bad.raise_if_any()


class _Reading:
    """One call of `read_recordings`: what its sources share."""

    def __init__(
        self,
        mapping: RecordingMapping | None,
        kind: AnswerKind,
        judge: AnswerJudge,
        gathered: AttemptRows,
        report: ImportReport,
        with_text: bool,
    ) -> None:
        self._mapping = mapping
        self._kind = kind
        self._judge = judge
        self._gathered = gathered
        self._report = report
        self._with_text = with_text
        self._places: dict[str, str] = {}  # of the problem ids of all sources

    def all_of(self, sources: Iterable[Iterator[RecordedProblem | BadRow]]) -> Iterator[RecordedProblem]:
        """The problems of all sources; a source that breaks off does not end the others."""
        for source in [*sources, self._of_gathered()]:
            try:
                for item in source:
                    if isinstance(item, BadRow):
                        self._report.bad.add(item)
                    else:
                        yield item
            except InputError as error:
                where, _, reason = str(error).partition(": ")
                self._report.bad.add(BadRow(where, reason))

    def of_path(self, path: Path) -> Iterator[RecordedProblem | BadRow]:
        """What a path holds, whatever it is."""
        if path.is_dir() and (path / "run.sqlite").is_file():
            path = path / "run.sqlite"
        if path.is_dir():
            for file in files_of(path, self._mapping):
                yield from self.of_path(file)
        elif path.name.lower().endswith(_STORE_NAMES) or _is_run_of_store(path):
            yield from self._of_store(path)
        elif self._mapping is None and path.name.lower().endswith(INTERCHANGE_SUFFIXES) and is_interchange(path):
            yield from read_interchange(path, self._kind, self._judge.is_right, self._places)
        elif self._mapping is None:
            yield from self.of_rows(mapped_file_rows(path, load_mapping(TABLE)))
        else:
            yield from self.of_rows(mapped_file_rows(path, self._mapping))

    def of_rows(self, rows: Iterable[Row | BadRow]) -> Iterator[RecordedProblem | BadRow]:
        """Problems of rows that each hold one; rows that hold an attempt are put by until all have been seen."""
        mapping = self._mapping or load_mapping(TABLE)
        view: Any = None
        for row in rows:
            if isinstance(row, BadRow):
                yield row
                continue
            if not is_wanted(row, mapping):
                self._report.num_unwanted += 1
                continue
            if mapping.one_of is not None:
                value = found(row.fields, mapping.one_of)
                view = value if view is None else view
                if value != view:
                    self._report.num_other_views += 1
                    continue
            try:
                if self._mapping is None and isinstance(row.fields.get("attempts"), list):
                    yield self._checked(_without_nulls(row.fields), row)
                elif mapping.layout == "lists":
                    mapped = map_row(row, mapping)
                    yield self._checked({**mapped.head, "attempts": mapped.attempts}, row)
                else:
                    mapped = map_row(row, mapping)
                    self._gathered.add(mapped.head, mapped.attempts[0], stem_of(row.file), row.where)
            except MalformedError as error:
                yield BadRow(row.where + error.inside, str(error))

    def _checked(self, fields: dict[str, Any], row: Row) -> RecordedProblem:
        """The problem of a row that holds all of it."""
        problem = problem_from(fields, stem_of(row.file), self._kind, self._judge.is_right)
        self._claim(problem.problem.id, row.where)
        return problem

    def _claim(self, problem_id: str, place: str) -> None:
        if problem_id in self._places:
            raise MalformedError(f"problem {problem_id!r} was in {self._places[problem_id]} already; ids must differ")
        self._places[problem_id] = place

    def _of_gathered(self) -> Iterator[RecordedProblem | BadRow]:
        for item in self._gathered.problems():
            try:
                self._claim(item.head["problem_id"], item.places[0])
            except MalformedError as error:
                yield BadRow(item.places[0], str(error))
                continue
            yield from self._of_attempts(item)

    def _of_attempts(self, item: GatheredProblem) -> Iterator[RecordedProblem | BadRow]:
        """The problem without the rows that cannot be used, and each of those."""
        rows: dict[str, list[tuple[dict[str, Any], str]]] = {"attempt": [], "check": []}
        for entry, place in zip(item.attempts, item.places, strict=True):
            rows["check" if is_check_pillar(str(entry.get("pillar", ""))) else "attempt"].append((entry, place))
        while any(rows.values()):
            entries = {f"{name}s": [entry for entry, _ in found] for name, found in rows.items()}
            try:
                yield problem_from({**item.head, **entries}, item.source, self._kind, self._judge.is_right)
                return
            except MalformedError as error:
                if not error.inside:  # the problem itself is malformed
                    yield BadRow(item.places[0], str(error))
                    return
                name, index = error.inside.removeprefix(", ").split(" ")
                yield BadRow(rows[name].pop(int(index))[1], str(error))

    def _of_store(self, path: Path) -> Iterator[RecordedProblem | BadRow]:
        with _open_store(path) as store:
            yield from self._of_run(store, path)

    def _of_run(self, store: RunStore, path: Path) -> Iterator[RecordedProblem | BadRow]:
        records = read_problems(store) if self._with_text else read_outline(store).problems.values()
        for record in records:
            if record.gold is None:
                self._report.num_without_gold += 1
                continue
            try:
                self._claim(record.problem.id, str(path))
            except MalformedError as error:
                yield BadRow(str(path), str(error))
                continue
            yield self._recorded(record, record.gold)

    def _recorded(self, record: ProblemRecord, gold: str) -> RecordedProblem:
        attempts = tuple(attempt for attempt in record.attempts if not attempt.is_check)
        checks = tuple(attempt for attempt in record.attempts if attempt.is_check)
        if record.correct is not None:
            correct = tuple(attempt.id in record.correct for attempt in attempts)
        else:
            correct = tuple(self._judge.is_right(attempt.answer, gold) for attempt in attempts)
        return RecordedProblem(record.problem, gold, record.group or record.problem.id, attempts, correct, checks)


def _is_run_of_store(path: Path) -> bool:
    store, separator, _ = str(path).rpartition(SEPARATOR)
    return bool(separator) and Path(store).is_file()


def _open_store(path: Path) -> RunStore:
    if not _is_run_of_store(path):
        return RunStore.read(path)
    store, _, run_id = str(path).rpartition(SEPARATOR)
    return RunStore.read(Path(store), run_id)


def is_interchange(path: Path) -> bool:
    """Whether the first row that can be read, or none, has a list of attempts."""
    return next(("attempts" in row.fields for row in read_rows(path) if isinstance(row, Row)), True)


def _without_nulls(fields: Any) -> dict[str, Any]:
    """A problem from a column store, where what an entry does not have is null."""
    attempts = [entry if not isinstance(entry, dict) else _some(entry) for entry in fields["attempts"]]
    checks = fields.get("checks")
    kept = {**fields, "attempts": attempts, "checks": checks if checks is not None else []}
    return kept


def _some(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}
