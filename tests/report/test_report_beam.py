"""What a beam decided, in the attempt's view."""

from __future__ import annotations

from page_check import complaints
from sample_run import attempt, turn

from mathlete.core.attempt import BeamCandidate, BeamLevel
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.report.beam import render_beam
from mathlete.report.detail import Detail
from mathlete.report.page import render_report

LEVELS = (
    BeamLevel(
        0,
        (
            BeamCandidate("0.0.0", None, 1234, -0.5, "SUPPORTED", "2 + 2 = 4: both are 4", "kept"),
            BeamCandidate("0.0.1", None, 20, -0.25, "REFUTED", "<b>2</b> + 2 = 5: no" + "." * 400, "refuted"),
            BeamCandidate("0.0.2", None, 7, None, "UNKNOWN", "", "lost"),
        ),
    ),
    BeamLevel(1, (BeamCandidate("1.0.0", "0.0.0", 9, -1.0, "UNKNOWN", "x = 1: timeout", "<i>kept"),)),  # type: ignore[arg-type]
)


def page(levels: tuple[BeamLevel, ...], finished: bool = True) -> str:
    made = attempt("p", 0, (turn("Then \\boxed{4}."),), "4", 3.0)
    record = ProblemRecord(
        Problem("p", "How many?"),
        attempts=(made,) if finished else (),
        unfinished={} if finished else {"p#0": ()},
        beam_levels={"p#0": levels},
    )
    return render_report(RunRecord(config={}, problems={"p": record}))


def test_each_candidate_is_a_row() -> None:
    text = page(LEVELS)
    assert "Beam: 2 levels, 4 candidates" in text
    assert "<td>1,234</td><td>-0.50</td><td>supported" in text and "2 + 2 = 4: both are 4" in text
    assert (
        '<tr class="lost"><th scope="row">0.0.2</th><td>—</td><td>7</td><td>—</td><td>—</td><td>lost</td></tr>' in text
    )
    assert '<th scope="row">1.0.0</th><td>0.0.0</td>' in text and "unknown" in text and "x = 1: timeout" in text


def test_what_it_says_is_escaped_and_shortened() -> None:
    text = page(LEVELS)
    assert "&lt;b&gt;2&lt;/b&gt; + 2 = 5" in text and "<b>2</b>" not in text and "." * 320 not in text
    assert "&lt;i&gt;kept" in text and "<i>kept" not in text
    assert complaints(text) == []


def test_an_attempt_that_never_ended_has_its_levels_and_one_without_a_beam_no_table() -> None:
    assert "Beam: 1 level, 3 candidates" in page(LEVELS[:1], finished=False)
    assert "Beam:" not in page(())


def test_a_page_of_thousands_of_attempts_stays_small() -> None:
    many = tuple(BeamLevel(place, LEVELS[0].candidates) for place in range(100))
    shown = render_beam(many, Detail(typeset=False, max_chars=1000))
    assert shown.count("<tr class=") == 6 and "294 more are left out of this page." in shown
