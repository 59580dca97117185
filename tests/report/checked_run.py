"""A run of all pillars to look at: reasoning, programs in a session, checks, a second round; accepted and offered.

Problems from MATH and GSM8K (both MIT); what the attempts say is written by hand in the manner of a small model.
"""

from __future__ import annotations

from dataclasses import replace

from sample_run import DUCKS, STARTED, attempt, turn

from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import AnswerCluster, Evidence, Selection, Verdict

DIVISORS = "How many positive whole-number divisors does 196 have?"
CHECK_PROGRAM = """def check(n: int) -> bool:
    return n == sum(1 for d in range(1, 197) if 196 % d == 0)
"""


def evidence(answer: str, verdict: Verdict, checker: str = "sympy_check", **fields: str) -> Evidence:
    claim = f"{answer} fits what the problem asks for"
    return Evidence(checker, claim, verdict, fields.get("failure"), 0.42, fields.get("detail", CHECK_PROGRAM), answer)


def check(problem_id: str, index: int, pillar: str, found: tuple[Evidence, ...]) -> Attempt:
    written = turn(f"```python\n{CHECK_PROGRAM}```\n", CHECK_PROGRAM, "", seed=index)
    failure = None if any(item.verdict != "UNKNOWN" for item in found) else "tool_error"
    made = attempt(problem_id, index, (written,), None, 3.3, failure=failure)
    about = tuple(item.answer for item in found if item.answer is not None)
    return replace(made, pillar=pillar, evidence=found, about=about)


def _accepted() -> ProblemRecord:
    name = "math500-3"
    code = turn("Count them.\n\n```python\nfactors = [2, 7]\n```\n", "factors = [2, 7]\n", "", seed=3)
    again = turn("Now use it.\n\n```python\nprint(len(factors))\n```\n", "print(len(factors))\n", "2\n", seed=4)
    assert again.result is not None
    again = replace(again, result=replace(again.result, waited_s=1.25, session_restarted=True))
    nine = turn("Since $196 = 2^2 \\cdot 7^2$ there are $3 \\cdot 3 = \\boxed{9}$.", seed=1)
    pool = (
        replace(attempt(name, 0, (nine,), "9", 3.0), pillar="reasoning"),
        attempt(name, 1, (code, again, turn("So \\boxed{2}.", seed=5)), "2", 7.5),
        replace(attempt(name, 2, (nine,), "9", 3.4), pillar="reasoning"),
        check(name, 3, "sympy_check", (evidence("9", "SUPPORTED"), evidence("2", "REFUTED"))),
        check(name, 4, "smt_check", (evidence("9", "UNKNOWN", "smt_check", failure="timeout"),)),
    )
    selection = Selection(
        "9",
        "triad",
        0.93,
        (AnswerCluster("9", 2.0, ("math500-3#0", "math500-3#2")), AnswerCluster("2", 1.0, ("math500-3#1",))),
        {"votes": 2.0, "phi": 0.41},
        ("2 of 3 attempts gave 9; sympy_check supports it.",),
        True,
    )
    problem = Problem(name, DIVISORS, source="MATH-500")
    return ProblemRecord(problem, pool, selection, "the selection is sure: 0.93", 0.2, 12.8, gold="9", group=name)


def _offered() -> ProblemRecord:
    name = "gsm8k-test-0"
    text = "She sells $16 - 3 - 4 = 9$ eggs at \\$2 each: \\boxed{18}."
    pool = tuple(
        attempt(name, i, (turn(text.replace("18", answer), seed=40 + i),), answer, 3.0)
        for i, answer in enumerate(["18", "26", "32"])
    )
    later = replace(attempt(name, 3, (turn(text, seed=44),), "18", 4.1), round=2, about=("18", "26", "32"))
    picked = check(name, 4, "genselect_check", (evidence("26", "SUPPORTED", "genselect_check", detail="picked"),))
    clusters = (AnswerCluster("26", 1.0, (f"{name}#1",)), AnswerCluster("18", 2.0, (f"{name}#0", f"{name}#3")))
    reasons = ("The votes are split; genselect_check prefers 26.",)
    selection = Selection("26", "triad", 0.38, clusters, {"votes": 1.0}, reasons, False)
    problem = Problem(name, DUCKS, source="GSM8K")
    return ProblemRecord(
        problem, (*pool, later, picked), selection, "all attempts finished", 12.8, 31.0, gold="18", group=name
    )


def checked_run() -> RunRecord:
    """Two problems: one whose answer is accepted and right, one whose answer is offered and wrong."""
    records = (_accepted(), _offered())
    return RunRecord(
        config={
            "command": "mathlete solve examples/problems.csv",
            "model": "Qwen2.5-Coder-1.5B-Instruct, Q4_K_M as W8A8",
            "budget_s": 60.0,
            "isolation": ["netns", "mountns", "seccomp", "landlock", "rlimits"],
        },
        problems={record.problem.id: record for record in records},
        elapsed_s=31.2,
        finished="complete",
        started_wall_time=STARTED,
    )
