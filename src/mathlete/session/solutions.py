"""What a run came to, for a person at a prompt or in a notebook. Knows how it is shown; runs nothing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.text import Text

from mathlete.core.errors import InputError
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.lab.rightness import choice_is_right
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_reading import read_problem
from mathlete.lab.run_store import RunStore
from mathlete.report.notebook import MAX_ROWS, render_answers, render_framed
from mathlete.session.summary import answers_table, how_it_was_cut
from mathlete.verify.integers import answers_equal

if TYPE_CHECKING:
    from pandas import DataFrame

_WIDTH = 120  # of `repr`, characters


@dataclass(frozen=True, repr=False)
class Solutions:
    """The answers of a run.

    Attributes:
        record: the whole run, folded from its trace.
        folder: where the run store, the submission, the attempts and the report are.
        interrupted: whether a person ended it; `mathlete solve --resume FOLDER` goes on with it.
        notes: what is to be known of the problems as they were given, such as labels that cannot be used.
    """

    record: RunRecord
    folder: Path
    interrupted: bool = False
    notes: tuple[str, ...] = ()

    @property
    def answers(self) -> dict[str, int]:
        """By problem id, in the order of the input; problems that were not reached are left out."""
        return {key: int(item.selection.answer) for key, item in self.record.problems.items() if item.selection}

    @property
    def answer(self) -> int:
        """The answer, when there was one problem.

        Raises:
            InputError: there were several, or it was not reached.
        """
        answers = self.answers
        if len(self.record.problems) != 1 or not answers:
            raise InputError(
                f"this run has {len(answers)} answers to {len(self.record.problems)} problems: take them from `answers`"
            )
        return next(iter(answers.values()))

    @property
    def confidence(self) -> dict[str, float]:
        """By problem id, in [0, 1]; 0 for an answer that stands although no attempt had one."""
        return {key: item.selection.confidence for key, item in self.record.problems.items() if item.selection}

    @property
    def accepted(self) -> dict[str, bool | None]:
        """By problem id: whether attempts agree and a check supports them; None where the rule does not ask."""
        return {key: item.selection.accepted for key, item in self.record.problems.items() if item.selection}

    @property
    def correct(self) -> dict[str, bool]:
        """By problem id, of those whose label is known."""
        judged = {key: choice_is_right(item) for key, item in self.record.problems.items()}
        return {key: right for key, right in judged.items() if right is not None}

    def read(self, problem_id: str) -> ProblemRecord:
        """One problem with the texts of its attempts, from the run store.

        Raises:
            InputError: there is no such problem.
            StorageError: the store cannot be read.
        """
        with RunStore.read(RunFolder(self.folder).store_path) as store:
            return read_problem(store, problem_id)

    @property
    def report_html(self) -> Path:
        """The report: one file that opens from disk."""
        return RunFolder(self.folder).report_html

    def report(self, height_px: int = 700) -> FramedReport:
        """The whole report, shown in a notebook's cell.

        Raises:
            InputError: it is not there.
        """
        if not self.report_html.is_file():
            raise InputError(f"there is no report in {self.folder}: the run was cut off; resume it to have one written")
        return FramedReport(self.report_html, height_px)

    def to_pandas(self) -> DataFrame:
        """One row a problem: id, problem, answer, confidence, accepted, attempts, votes, tokens, seconds, reason.

        Problems with a label have `label` and `correct` besides.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise InputError("to_pandas() needs pandas: pip install 'mathlete[datasets]'") from error
        return pandas.DataFrame([self._row(key) for key in self.record.problems])

    def __len__(self) -> int:
        """The number of problems."""
        return len(self.record.problems)

    def __repr__(self) -> str:
        """The table that a terminal shows."""
        shown = io.StringIO()
        Console(width=_WIDTH, file=shown, force_jupyter=False).print(self.__rich__(), soft_wrap=True)
        return shown.getvalue().rstrip()

    def __rich__(self) -> Group:
        """The answers as a table, how the run ended, and where it is."""
        cut = how_it_was_cut(self.record)
        more = f"... and {len(self) - MAX_ROWS:,} more problems" if len(self) > MAX_ROWS else None
        notes = [Text(note) for note in (more, *self.notes, cut, f"run: {self.folder}") if note is not None]
        return Group(answers_table(self.record, MAX_ROWS), Text(), *notes)

    def _repr_html_(self) -> str:
        """What a notebook shows: the problems typeset, votes, confidence, and a link to the report."""
        return render_answers(self.record, self._link(), self.notes)

    def _link(self) -> str | None:
        """The report as seen from the notebook, which runs where it lies; else as a file on this machine."""
        if not self.report_html.is_file():
            return None
        path = self.report_html.absolute()
        return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.as_uri()

    def _row(self, key: str) -> dict[str, Any]:
        item = self.record.problems[key]
        chosen = item.selection
        solutions = [attempt for attempt in item.attempts if not attempt.is_check]
        row = {
            "id": key,
            "problem": item.problem.statement,
            "answer": None if chosen is None else int(chosen.answer),
            "confidence": None if chosen is None else chosen.confidence,
            "accepted": None if chosen is None else chosen.accepted,
            "attempts": len(solutions),
            "votes": sum(
                chosen is not None and attempt.answer is not None and answers_equal(attempt.answer, chosen.answer)
                for attempt in solutions
            ),
            "tokens": sum(attempt.num_tokens for attempt in item.attempts),
            "seconds": _seconds(item.opened_at_s, item.finished_at_s),
            "reason": item.stop_reason,
        }
        return row if item.gold is None else {**row, "label": item.gold, "correct": self.correct[key]}


@dataclass(frozen=True)
class FramedReport:
    """A report file that a notebook shows in a frame; `str` gives its path."""

    path: Path
    height_px: int

    def _repr_html_(self) -> str:
        """The file in a frame, read when it is shown."""
        return render_framed(self.path.read_text(encoding="utf-8"), self.height_px)

    def __str__(self) -> str:
        """The path."""
        return str(self.path)


def _seconds(opened_at_s: float | None, finished_at_s: float | None) -> float | None:
    return None if opened_at_s is None or finished_at_s is None else round(finished_at_s - opened_at_s, 3)
