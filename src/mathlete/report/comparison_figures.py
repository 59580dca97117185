"""Several runs of the same problems, put side by side: what is told of each, and where they differ. Pure; no HTML.

Knows runs, and that problems with one id are the same problem. Turns of attempts are never looked at, so outlines of
runs do. Glossary: the *baseline* is the first run, which the others are compared with; a *flip* is a problem that some
runs get right and others wrong; a gold answer that one run knows is used for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mathlete.core.record import RunRecord
from mathlete.lab.bootstrap import Estimate, bootstrap_estimates, wilson_interval
from mathlete.lab.comparing import Scores, compare_runs
from mathlete.lab.rightness import is_right
from mathlete.report.summary import ProblemSummary, RunSummary, same_answer, summarise_run

Verdict = Literal["right", "wrong", "answered", "open", "absent"]
Kind = Literal["flip", "differs", "same"]


@dataclass(frozen=True, slots=True)
class Cell:
    """What one run made of one problem.

    Attributes:
        verdict: "right" and "wrong" when the gold answer is known; "answered" when it is not; "open" when the run
            has not chosen an answer; "absent" when it does not have the problem, or another one under that id.
        answer: that was chosen.
        votes: attempts that gave the chosen answer.
        num_solutions: finished attempts that are no checks.
        in_pool: whether some attempt gave the gold answer.
        num_tokens: sampled on the problem.
        elapsed_s: it was open.
        number: of the problem in its run.
    """

    verdict: Verdict
    answer: str | None = None
    votes: int = 0
    num_solutions: int = 0
    in_pool: bool = False
    num_tokens: int = 0
    elapsed_s: float | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One problem over all runs.

    Attributes:
        problem_id: of the problem.
        statement: what was asked.
        gold: the right answer, when some run knows it.
        group: unit of resampling.
        kind: whether the runs differ on it: in being right ("flip"), only in what they say ("differs"), or not.
        cells: of each run, in order.
    """

    problem_id: str
    statement: str
    gold: str | None
    group: str
    kind: Kind
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the runs.

    Attributes:
        letter: what it is called in pictures: "A", "B", ...
        label: what it is called by a person.
        run: as far as its trace tells, with the gold answers that other runs know; turns may be missing.
        summary: its figures.
        num_graded: rows whose gold is known and that this run has chosen an answer for.
        num_right: of those, how many are right.
        accuracy: `num_right` of `num_graded`, with an interval; None when nothing can be graded.
    """

    letter: str
    label: str
    run: RunRecord
    summary: RunSummary
    num_graded: int
    num_right: int
    accuracy: Estimate | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One run against the baseline.

    Attributes:
        letter: of the run.
        scores: the baseline first, the run second, on the problems that both have and whose gold is known.
    """

    letter: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        runs: in the order given; the first is the baseline.
        rows: flips first, then problems with different answers, then the others; each in the order of the runs.
        differences: of every run but the first; those that share no graded problem with it are left out.
        num_mismatched: ids under which runs have different problems.
    """

    runs: tuple[ComparedRun, ...]
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    num_mismatched: int

    @property
    def knows_golds(self) -> bool:
        """Whether any problem has a gold answer."""
        return any(row.gold is not None for row in self.rows)


def compare(runs: Sequence[tuple[str, RunRecord]]) -> Comparison:
    """Put runs side by side.

    Args:
        runs: each with what a person calls it; the first is the baseline.

    Raises:
        ValueError: there are fewer than two runs.
    """
    if len(runs) < 2:
        raise ValueError("a comparison needs at least two runs")
    summaries = [summarise_run(run) for _, run in runs]
    found: dict[str, list[ProblemSummary | None]] = {}
    for index, summary in enumerate(summaries):
        for problem in summary.problems:
            found.setdefault(problem.record.problem.id, [None] * len(runs))[index] = problem
    rows = [_row(problem_id, problems) for problem_id, problems in found.items()]
    order: dict[Kind, int] = {"flip": 0, "differs": 1, "same": 2}
    compared = tuple(
        _compared_run(index, label, _with_golds(run, rows, index), summary, rows)
        for index, ((label, run), summary) in enumerate(zip(runs, summaries, strict=True))
    )
    differences = (_difference(index, compared) for index in range(1, len(runs)))
    return Comparison(
        runs=compared,
        rows=tuple(sorted(rows, key=lambda row: order[row.kind])),
        differences=tuple(item for item in differences if item is not None),
        num_mismatched=sum(len({_statement(item) for item in items if item}) > 1 for items in found.values()),
    )


def letter_of(index: int) -> str:
    """A, B, ..., Z, then A1, B1, ..."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def _row(problem_id: str, problems: Sequence[ProblemSummary | None]) -> Row:
    first = next(problem for problem in problems if problem is not None)
    alike = [item if item is not None and _statement(item) == _statement(first) else None for item in problems]
    golds = [item.record for item in alike if item is not None and item.record.gold is not None]
    gold = golds[0].gold if golds else None
    cells = tuple(Cell("absent") if item is None else _cell(item, gold) for item in alike)
    return Row(
        problem_id=problem_id,
        statement=_statement(first),
        gold=gold,
        group=(golds[0].group if golds else None) or problem_id,
        kind=_kind(cells),
        cells=cells,
    )


def _cell(problem: ProblemSummary, gold: str | None) -> Cell:
    chosen = problem.record.selection
    judged = problem.record if problem.record.gold is not None else replace(problem.record, gold=gold)
    verdict: Verdict = "open"
    if chosen is not None:
        verdict = "answered" if gold is None else "right" if is_right(judged, chosen.answer) else "wrong"
    votes = problem.votes
    return Cell(
        verdict=verdict,
        answer=None if chosen is None else chosen.answer,
        votes=votes.get(chosen.answer, 0) if chosen is not None and problem.rests_on_votes else 0,
        num_solutions=problem.num_solutions,
        in_pool=any(is_right(judged, answer) for answer in votes),
        num_tokens=problem.num_tokens,
        elapsed_s=problem.elapsed_s,
        number=problem.number,
    )


def _kind(cells: Sequence[Cell]) -> Kind:
    if {"right", "wrong"} <= {cell.verdict for cell in cells}:
        return "flip"
    answers = [cell.answer for cell in cells if cell.answer is not None]
    return "same" if all(same_answer(answers[0], answer) for answer in answers) else "differs"


def _compared_run(index: int, label: str, run: RunRecord, summary: RunSummary, rows: Sequence[Row]) -> ComparedRun:
    graded = [row for row in rows if row.cells[index].verdict in ("right", "wrong")]
    right = [row.cells[index].verdict == "right" for row in graded]
    return ComparedRun(
        letter=letter_of(index),
        label=label,
        run=run,
        summary=summary,
        num_graded=len(right),
        num_right=sum(right),
        accuracy=_accuracy(right, [row.group for row in graded]) if graded else None,
    )


def _accuracy(right: Sequence[bool], groups: Sequence[str]) -> Estimate:
    if len(set(groups)) == len(groups):
        return wilson_interval(sum(right), len(right))
    return bootstrap_estimates({"accuracy": [float(item) for item in right]}, groups)["accuracy"]


def _difference(index: int, runs: Sequence[ComparedRun]) -> Difference | None:
    compared = compare_runs(runs[0].run, runs[index].run)
    return None if compared.scores is None else Difference(runs[index].letter, compared.scores)


def _with_golds(run: RunRecord, rows: Sequence[Row], index: int) -> RunRecord:
    """The run as if it knew every gold answer that some run knows, of the problems that it has answered."""
    problems = dict(run.problems)
    for row in rows:
        if row.cells[index].verdict in ("right", "wrong"):
            record = problems[row.problem_id]
            if record.gold is None:
                problems[row.problem_id] = replace(record, gold=row.gold, group=row.group)
    return replace(run, problems=problems)


def _statement(problem: ProblemSummary) -> str:
    return problem.record.problem.statement
