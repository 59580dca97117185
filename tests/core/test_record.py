"""The fold that turns a stream of events back into a run, cut off at any point."""

from __future__ import annotations

from typing import Any

import pytest

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.problem import Problem
from mathlete.core.record import RunRecord, fold_run
from mathlete.core.selection import Selection
from mathlete.core.trace import EventKind, TraceEvent, encode, encode_ending, encode_problem

P, Q = Problem("p", "one?"), Problem("q", "two?")
TURN = Turn("thinking", code="print(1)", num_tokens=3, logprobs=(-0.5,), entropies=(0.1,))
SELECTION = Selection("1", "majority", 0.75)


def attempt(index: int, problem_id: str = "p") -> Attempt:
    return Attempt(f"{problem_id}#{index}", problem_id, index, "code", 1, 0.8, "1", "boxed", (TURN,), 3, 0.5)


def event(kind: EventKind, at_s: float, problem: str | None = None, try_: str | None = None, **data: Any) -> TraceEvent:
    return TraceEvent(kind, at_s, data, problem, try_, wall_time=1_000_000 + at_s)


STARTED = event("run_started", 0, config={"model": "m"}, problems=[encode_problem(Q), encode_problem(P)])
WHOLE_RUN = [
    STARTED,
    event("problem_opened", 1, "p", budget_s=10.0),
    event("attempt_started", 1, "p", "p#0", index=0),
    event("attempt_started", 1, "p", "p#1", index=1),
    event("turn_finished", 2, "p", "p#1", turn=encode(TURN)),
    event("turn_finished", 3, "p", "p#0", turn=encode(TURN)),
    event("attempt_finished", 3, "p", "p#0", attempt=encode(attempt(0))),
    event("decision", 3, "p", action="stop"),
    event("problem_finished", 4, "p", selection=encode(SELECTION), reason="settled"),
    event("gold_revealed", 4, "p", gold="1", group="base"),
    event("warning", 5, message="slow disk"),
    event("run_finished", 6, reason="complete", seconds=6.0, stats={"tokens": 3}),
]


def test_a_whole_run() -> None:
    run = fold_run(WHOLE_RUN)
    assert list(run.problems) == ["q", "p"], "the input's order, not that of the events"
    assert (run.config, run.elapsed_s, run.finished, run.stats) == ({"model": "m"}, 6, "complete", {"tokens": 3})
    assert (run.warnings, run.started_wall_time) == (("slow disk",), 1_000_000)
    record = run.problems["p"]
    assert record.problem == P
    assert record.attempts == (attempt(0),)
    assert record.unfinished == {"p#1": (TURN,)}
    assert (record.selection, record.stop_reason, record.opened_at_s, record.finished_at_s) == (
        SELECTION,
        "settled",
        1,
        4,
    )
    assert (record.gold, record.group) == ("1", "base")
    assert run.problems["q"].selection is None and run.problems["q"].opened_at_s is None


def test_the_turns_of_an_attempt_are_those_recorded_before_its_end() -> None:
    events = [e for e in WHOLE_RUN if e.kind != "attempt_finished"]
    events.append(event("attempt_finished", 5, "p", "p#1", attempt=encode_ending(attempt(1))))
    record = fold_run(events).problems["p"]
    assert record.attempts == (attempt(1),) and record.attempts[0].turns == (TURN,)
    assert set(record.unfinished) == {"p#0"}


def test_nothing_recorded() -> None:
    assert fold_run([]) == RunRecord(config={}, problems={})


def test_every_prefix_folds_and_never_forgets() -> None:
    num_finished = 0
    for length in range(1, len(WHOLE_RUN) + 1):
        record = fold_run(WHOLE_RUN[:length]).problems["p"]
        assert len(record.attempts) >= num_finished
        num_finished = len(record.attempts)
    assert num_finished == 1


def test_resuming_reopens_a_finished_run_and_keeps_its_attempts() -> None:
    run = fold_run([*WHOLE_RUN, event("run_resumed", 6, config={})])
    assert run.finished is None
    assert run.problems["p"].attempts == (attempt(0),)


def test_attempts_keep_the_order_in_which_they_finished() -> None:
    order = [2, 0, 1]
    finished = [event("attempt_finished", at, "p", f"p#{n}", attempt=encode(attempt(n))) for at, n in enumerate(order)]
    assert [a.index for a in fold_run([STARTED, *finished]).problems["p"].attempts] == order


def test_an_attempt_started_again_begins_anew() -> None:
    again = [*WHOLE_RUN[:5], event("attempt_started", 7, "p", "p#1", index=1)]
    assert fold_run(again).problems["p"].unfinished == {"p#0": (), "p#1": ()}


def test_a_warning_about_one_problem_is_kept() -> None:
    run = fold_run([STARTED, event("warning", 1, "p", message="prompt too long")])
    assert run.warnings == ("prompt too long",)


def test_folding_leaves_the_events_as_they_are() -> None:
    before = [(e.kind, repr(e.data)) for e in WHOLE_RUN]
    fold_run(WHOLE_RUN)
    assert [(e.kind, repr(e.data)) for e in WHOLE_RUN] == before


def test_an_event_of_a_problem_that_is_not_in_the_run() -> None:
    with pytest.raises(KeyError, match="stranger"):
        fold_run([STARTED, event("problem_opened", 1, "stranger", budget_s=1.0)])


def test_what_others_judged_is_kept_beside_the_label() -> None:
    judged = event("gold_revealed", 5, "p", gold="2", group="base", correct=["p#0"])
    assert fold_run([*WHOLE_RUN, judged]).problems["p"].correct == frozenset({"p#0"})
    assert fold_run(WHOLE_RUN).problems["p"].correct is None


@pytest.mark.parametrize("length", range(len(WHOLE_RUN) + 1))
def test_a_run_folded_in_two_parts(length: int) -> None:
    assert fold_run(WHOLE_RUN[length:], fold_run(WHOLE_RUN[:length])) == fold_run(WHOLE_RUN)
