"""What was thrown away and why, in the attempt's view."""

from __future__ import annotations

from dataclasses import replace

from sample_run import attempt, turn

from mathlete.core.attempt import Rewinding
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.report.page import render_report


def page(*rewindings: Rewinding, finished: bool = True) -> str:
    turns = (turn("First we try."), turn("Then \\boxed{4}."))
    made = replace(attempt("p", 0, turns, "4", 3.0), num_tokens=40, num_discarded=17)
    record = ProblemRecord(
        Problem("p", "How many?"),
        attempts=(made,) if finished else (),
        unfinished={} if finished else {"p#0": ()},
        rewindings={"p#0": rewindings},
    )
    return render_report(RunRecord(config={}, problems={"p": record}))


def test_each_is_told_under_its_turn() -> None:
    text = page(
        Rewinding(0, 5, 12, "refuted", "2 + 2 = 5: 4 is not 5", "So 2 + 2 = 5.\n\n<b>bold</b>"),
        Rewinding(1, 6, 0, "repetition", "let through: 3 tries there were spent"),
    )
    first, second = text.index("Turn 1"), text.index("Turn 2")
    back, through = (
        text.index("Went back by 12 tokens to the 5 that stand: refuted"),
        text.index("Went on all the same"),
    )
    assert first < back < second < through
    assert "2 + 2 = 5: 4 is not 5" in text and "&lt;b&gt;bold" in text and "<b>bold" not in text
    assert "tokens thrown away" in text and "17" in text


def test_one_of_a_turn_that_was_never_closed_is_told_too() -> None:
    assert "Went back by 3 tokens" in page(Rewinding(7, 2, 3, "entropy"))
    assert "Went back by 3 tokens" in page(Rewinding(0, 2, 3, "entropy"), finished=False)
