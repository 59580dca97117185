from dataclasses import replace

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import FALLBACK, Evidence, Selection, Verdict
from mathlete.lab.run_habits import Habits, Tally, habits_of

RAN = ToolResult("ok", "7\n", "", 0.1)


def attempt(index: int, answer: str | None, *turns: Turn) -> Attempt:
    return Attempt(f"p#{index}", "p", index, "code", 1, 0.8, answer, "boxed", turns, 5, 1.0)


def check(verdict: Verdict, answer: str) -> Attempt:
    evidence = (Evidence("sympy", "it holds", verdict, answer=answer),)
    return replace(attempt(9, None), pillar="sympy_check", evidence=evidence)


def record(answers: list[str | None], chosen: str, gold: str | None = "7", *checks: Attempt) -> ProblemRecord:
    pool = (*(attempt(index, answer) for index, answer in enumerate(answers)), *checks)
    rule = "majority" if any(answers) else FALLBACK
    return ProblemRecord(Problem("p", "?"), pool, Selection(chosen, rule, 0.5), "done", 2.0, 5.0, gold=gold)


def habits(*records: ProblemRecord) -> Habits:
    return habits_of(RunRecord({}, {str(number): item for number, item in enumerate(records)}))


def test_kinds_of_answers() -> None:
    found = habits(
        record(["7"], "7"),
        record(["7", "8", None], "8"),
        record(["7", "7", "1", "2", "3"], "7"),
        record(["7", "7"], "7", "7", check("SUPPORTED", "7"), check("REFUTED", "8")),
        record(["8", "8"], "8", "7", check("REFUTED", "8"), check("UNKNOWN", "8")),
        record([None, None], "0"),
    )
    assert found.one_pass == Tally(1, 1) and found.one_vote == Tally(1, 0) and found.minority == Tally(1, 1)
    assert found.checked == Tally(1, 1) and found.against_check == Tally(1, 0) and found.fallbacks == Tally(1, 0)
    assert found.num_answers == 6 and found.num_attempts == 15
    assert found.solved_s == 9.0 and found.failed_s == 9.0


def test_a_program_that_ran_is_no_check() -> None:
    ran = replace(record(["7", "7"], "7"), attempts=(attempt(0, "7", Turn("x", "print(7)", RAN)),))
    assert habits(ran).checked == Tally()


def test_who_goes_straight_to_code() -> None:
    program = "```python\nprint(7)  # a long comment that says at length what could have been said before it ....\n```"
    attempts = (
        attempt(0, "7", Turn(f"Let us compute.\n{program}", "print(7)", RAN)),
        attempt(1, "7", Turn("We reason first, " * 8 + program, "print(7)", RAN)),
        attempt(2, "7", Turn("We reason in a turn of our own, " * 4), Turn(program, "print(7)", RAN)),
        attempt(3, "7", Turn("No program at all.")),
        attempt(4, "7"),
    )
    found = habits(replace(record(["7"], "7"), attempts=attempts))
    assert found.num_with_program == 3 and found.num_straight_to_code == 1


def test_nothing_is_judged_without_golds_and_open_problems_are_left_out() -> None:
    found = habits(record(["7"], "7", None), ProblemRecord(Problem("q", "?"), (attempt(0, "7"),), gold="7"))
    assert not found.knows_golds and found.one_pass == Tally(1, 0) and found.num_answers == 1
    assert habits() == Habits()
