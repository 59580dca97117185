"""What a run came to, for a person and as plain data. Knows a finished `RunRecord`; runs nothing."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.lab.metrics import Metrics, evaluate_run
from mathlete.lab.rightness import choice_is_right
from mathlete.session.live import standing_word
from mathlete.triad.driver import BUDGET, INTERRUPTED, is_cut_short


def summary(run: RunRecord, folder: Path) -> dict[str, Any]:
    """The result of a run as plain data, for `--json`."""
    problems = [
        {
            "id": key,
            "answer": int(record.selection.answer) if record.selection else None,
            "confidence": record.selection.confidence if record.selection else 0.0,
            "rule": record.selection.rule if record.selection else None,
            "accepted": record.selection.accepted if record.selection else None,
            "gold": record.gold,
            "num_attempts": _num_solutions(record),
            "num_checks": len(record.attempts) - _num_solutions(record),
            "num_tokens": sum(attempt.num_tokens for attempt in record.attempts),
            "reason": record.stop_reason,
        }
        for key, record in run.problems.items()
    ]
    metrics = _figures(run)
    return {
        "run": folder.name,
        "folder": str(folder),
        "finished": run.finished,
        "seconds": round(run.elapsed_s, 2),
        "num_tokens": sum(row["num_tokens"] for row in problems),
        "problems": problems,
        "metrics": metrics.as_dict() if metrics else None,
        "guesses": run.stats.get("guesses"),
        "warnings": list(run.warnings),
    }


def show_summary(run: RunRecord, folder: Path, console: Console) -> None:
    """The answers as a table, what they are worth, how the run ended, and where everything is."""
    labelled = any(record.gold is not None for record in run.problems.values())
    console.print(answers_table(run))
    metrics = _figures(run)
    if metrics is not None:
        console.print()
        for line in metrics.lines():
            console.print(line, highlight=False, soft_wrap=True)
    num = len(run.problems)
    num_right = sum(choice_is_right(record) is True for record in run.problems.values())
    result = f"{num_right} of {num} right" if labelled else f"{num} problem{'' if num == 1 else 's'}"
    tokens = sum(attempt.num_tokens for record in run.problems.values() for attempt in record.attempts)
    console.print(f"\n{result}, {tokens:,} tokens in {run.elapsed_s:.0f} s", highlight=False)
    for sentence in (_standing(run), _guesses(run), how_it_was_cut(run)):
        if sentence is not None:
            console.print(sentence, highlight=False, soft_wrap=True)
    console.print(f"report:     {folder / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"submission: {folder / 'submission.csv'}", highlight=False, markup=False, soft_wrap=True)


def _figures(run: RunRecord) -> Metrics | None:
    """Of `evaluate` only: `solve` ends a problem when its vote is settled, which bends pass@1 and pass@k."""
    return evaluate_run(run) if run.config.get("command") == "evaluate" else None


def _standing(run: RunRecord) -> str | None:
    """A sentence on how many answers are accepted, or None where their rule does not ask."""
    standings = [record.selection.accepted for record in run.problems.values() if record.selection is not None]
    if all(accepted is None for accepted in standings):
        return None
    accepted = [key for key, item in run.problems.items() if item.selection is not None and item.selection.accepted]
    judged = [choice_is_right(run.problems[key]) for key in accepted if run.problems[key].gold is not None]
    right = f" ({judged.count(True)} of {len(judged)} right)" if judged else ""
    return f"{len(accepted)} accepted{right}, {standings.count(False)} offered"


def _num_solutions(record: ProblemRecord) -> int:
    """Attempts that give answers; the others check them."""
    return sum(not attempt.is_check for attempt in record.attempts)


def _guesses(run: RunRecord) -> str | None:
    """A sentence on the tokens that the last session guessed, or None where none were."""
    counts = run.stats.get("guesses")
    if counts is None:
        return None
    return (
        f"guessed ahead: {counts['accepted']:,} of {counts['drafted']:,} guesses were right; "
        f"{counts['tokens']:,} tokens in {counts['steps']:,} steps, {counts['tokens_per_draw']:.2f} an attempt and step"
    )


def how_it_was_cut(run: RunRecord) -> str | None:
    """A sentence on what the budget or a person cut short, or None for a run that was complete."""
    who = {BUDGET: "the budget", INTERRUPTED: "an interruption"}.get(run.finished or "")
    if who is None:
        return None
    num = sum(map(is_cut_short, run.problems.values()))
    return f"{who} cut short {num} of {len(run.problems)} problem{'' if len(run.problems) == 1 else 's'}"


def answers_table(run: RunRecord, max_rows: int | None = None) -> Table:
    """One row a problem: its answer, its label if one is known, its votes, and why it ended."""
    labelled = any(record.gold is not None for record in run.problems.values())
    table = Table(box=None, pad_edge=False, header_style="bold")
    stands = any(record.selection and record.selection.accepted is not None for record in run.problems.values())
    names = ["problem", "answer", *(["label"] if labelled else []), *(["standing"] if stands else [])]
    for name in (*names, "votes", "attempts", "why it ended"):
        table.add_column(name, justify="right" if name in ("answer", "label") else "left")
    for key, record in islice(run.problems.items(), max_rows):
        chosen = record.selection
        clusters = chosen.clusters if chosen else ()
        votes = str(sum(len(cluster.attempt_ids) for cluster in clusters if chosen and cluster.answer == chosen.answer))
        style = "" if record.gold is None else ("green" if choice_is_right(record) else "red")
        cells = [Text(key[:32]), Text(chosen.answer if chosen else "-", style=style)]
        if labelled:
            cells.append(Text(record.gold or ""))
        if stands:
            accepted = chosen.accepted if chosen else None
            cells.append(Text("" if accepted is None else standing_word(accepted)))
        table.add_row(*cells, votes, str(_num_solutions(record)), Text(record.stop_reason or ""))
    return table
