"""Formal proofs as attempts: what the model is asked, what is taken for a proof, and how a try lives in a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted_run import Session, drive

from mathlete.cic.acceptance import is_accepted
from mathlete.cic.majority import Majority
from mathlete.contest.stop_rules import make_stop_rule
from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.core.generation import Completion, Finished, GenerateRequest, Usage
from mathlete.core.policy import Launch
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeDone, StepChecked
from mathlete.core.selection import Evidence
from mathlete.core.trace import decode_attempt, encode
from mathlete.generators.scripted import Reply
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.driver import Driver
from mathlete.triad.integration import OUT_OF_TOKENS, TriadConfig, TriadPolicy
from mathlete.triad.lean_check import LeanCheckConfig, asked_about, proof_goal, proof_in
from mathlete.triad.making import AttemptMaker
from mathlete.triad.pillar import CheckProof, Continue, Done
from mathlete.triad.progress import RunProgress
from mathlete.triad.proof_attempt import ProofAttempt

STATEMENT = """import Mathlib

open Nat

-- the positive root of {answer}
theorem root (x : ℤ) (h₀ : 0 < x) (h₁ : x ^ 2 = 49) : x = {answer} := by sorry"""
PROBLEM = Problem("p", "Which positive number has the square 49?", formal_statement=STATEMENT)
THEOREM = "theorem root (x : ℤ) (h₀ : 0 < x) (h₁ : x ^ 2 = 49) : x = 7 := by"
PROVED = Evidence("lean", "Lean proof of root", "PROVED", None, 1.5, "axioms: propext\nby nlinarith")
FAILED = Evidence("lean", "Lean proof of root", "UNKNOWN", None, 0.5, "linarith failed\n```<|im_end|>")


def attempt_at(about: tuple[str, ...] = ("7", "9"), limits: LeanCheckConfig | None = None) -> ProofAttempt:
    maker = AttemptMaker(3, AttemptConfig(max_tokens=600), lean=limits or LeanCheckConfig())
    attempt = maker.make(PROBLEM, 5, Launch(1, "lean_check", 0.5, about), (), 2.0)
    assert isinstance(attempt, ProofAttempt)
    return attempt


def written(text: str, reason: str = "stop", turn: int = 0) -> Finished:
    ids = tuple(range(1, 1 + len(text.split())))
    completion = Completion(text, ids, (), (), reason, Usage(output=len(ids)))  # type: ignore[arg-type]
    return Finished(f"p#5/{turn}", completion)


def texts(request: GenerateRequest) -> str:
    return "".join([*(message.content for message in request.messages), *(span.text for span in request.continuation)])


def checked(evidence: Evidence, name: str = "p#5/1") -> StepChecked:
    return StepChecked(name, (evidence,))


def ended(step: object) -> Attempt:
    assert isinstance(step, Done)
    return step.attempt


def test_the_model_is_shown_the_statement_with_the_leading_answer_and_asked_for_the_proof() -> None:
    [request] = attempt_at().next_requests()
    assert request.continuation[0].text == f"```lean\n{THEOREM}\n"
    text = texts(request)
    assert f"{THEOREM} sorry" in text and PROBLEM.statement in text and "import Mathlib\n\nopen Nat" in text
    assert "{answer}" not in text and "{formal_statement}" not in text and "positive root of" not in text
    assert (request.request_id, request.group, request.sampling.max_tokens) == ("p#5/0", "p", 600)


def test_a_proof_that_fails_is_corrected_with_what_lean_said_and_proved() -> None:
    attempt = attempt_at()
    step = attempt.take(written("  linarith\n```\n"), 3.0)
    assert step == CheckProof(proof_goal(PROBLEM, ("7",)).statement.text, f"{THEOREM}\n  linarith\n", "1")
    assert isinstance(attempt.take_checked(checked(FAILED), 4.0), Continue)
    [turn] = attempt.take_turns()
    assert turn.tool_text == "linarith failed\n` ` `< |im_end|>"
    [request] = attempt.next_requests()
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[2].content == f"```lean\n{THEOREM}\n  linarith\n```"
    assert "linarith failed" in request.messages[3].content and "<|im_end|>" not in texts(request)
    assert request.request_id == "p#5/1" and request.sampling.max_tokens == 600 - 2
    assert request.sampling.seed != attempt.seed
    assert isinstance(attempt.take(written("  nlinarith\n```\n", turn=1), 5.0), CheckProof)
    attempt_ended = ended(attempt.take_checked(checked(PROVED), 6.0))
    [evidence] = attempt_ended.evidence
    assert (evidence.verdict, evidence.answer, evidence.failure) == ("PROVED", "7", None)
    assert (evidence.checker, evidence.elapsed_s) == ("lean_check", 2.0)
    assert evidence.claim == "Lean proof of root for the answer 7"
    assert "nlinarith" in evidence.detail
    assert (attempt_ended.answer, attempt_ended.failure, attempt_ended.is_check) == (None, None, True)
    assert attempt_ended.num_tokens == 4 and attempt_ended.elapsed_s == 4.0
    assert decode_attempt(encode(attempt_ended)) == attempt_ended


def test_a_statement_without_a_place_for_the_answer_is_proved_as_it_stands() -> None:
    problem = replace(PROBLEM, formal_statement=STATEMENT.replace("x = {answer}", "x = 7"))
    assert asked_about("lean_check", problem, ("9", "7")) == ()
    attempt = AttemptMaker().make(problem, 5, Launch(1, "lean_check", 0.5), (), 2.0)
    assert isinstance(attempt.take(written("  nlinarith\n```\n"), 3.0), CheckProof)
    [evidence] = ended(attempt.take_checked(checked(PROVED), 6.0)).evidence
    assert (evidence.verdict, evidence.answer, evidence.claim) == ("PROVED", None, "Lean proof of root")


def test_which_checks_have_something_to_work_on() -> None:
    plain = Problem("p", "How many?")
    assert asked_about("lean_check", plain, ("7", "9")) is None
    assert asked_about("lean_check", PROBLEM, ("7", "9")) == ("7",)
    assert asked_about("sympy_check", plain, ["7", "9"]) == ("7", "9")


@pytest.mark.parametrize(
    ("statement", "about", "error"),
    [
        (None, ("7",), ValueError),
        (STATEMENT, (), ValueError),
        (STATEMENT, ("7 ∨ True",), ValueError),
        (STATEMENT, ("½",), ValueError),
        ("x = {answer}", ("7",), InputError),
        ("-/ theorem x : 1 = 1 := by sorry", (), InputError),
    ],
)
def test_what_cannot_be_proved_is_not_begun(
    statement: str | None, about: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        proof_goal(replace(PROBLEM, formal_statement=statement), about)


def test_a_negative_answer_stands_in_parentheses() -> None:
    problem = replace(PROBLEM, formal_statement="theorem a : 3 - {answer} = 8 := by sorry")
    assert proof_goal(problem, ("-5",)).statement.signature == ": 3 - (-5) = 8"


@pytest.mark.parametrize(
    ("text", "complete", "proof"),
    [
        ("```lean\nby simp\n```\n", True, "by simp\n"),
        ("```lean\nby simp\n", True, "by simp\n"),  # it ended without closing the block
        ("```lean\nby simp\n", False, None),
        ("```lean4\nby simp\n```\nNo:\n```lean\nby omega\n```\n", True, "by omega\n"),
        ("```lean\nby simp\n```\nNo:\n```lean\nby om", False, "by simp\n"),
        ("```python\nby simp\n```\n", True, None),
        ("```lean\n\n```\n", True, None),
        ("by simp", True, None),
        ("", True, None),
    ],
)
def test_which_text_is_the_proof(text: str, complete: bool, proof: str | None) -> None:
    assert proof_in(text, complete=complete) == proof


def unknown(failure: str | None, detail: str = "so it was") -> Evidence:
    return Evidence("lean", "Lean proof of root", "UNKNOWN", failure, 0.5, detail)


@pytest.mark.parametrize("failure", [None, "refused", "audit", "timeout", "memory"])
def test_a_proof_that_could_be_better_is_corrected_until_the_turns_are_used_up(failure: str | None) -> None:
    attempt = attempt_at(limits=LeanCheckConfig(max_turns=2))
    attempt.take(written("  simp\n```\n"), 3.0)
    assert isinstance(attempt.take_checked(checked(unknown(failure)), 4.0), Continue)
    shown = "too" if failure in ("timeout", "memory") else "so it was"
    assert shown in attempt.next_requests()[0].messages[3].content
    attempt.take(written("  simp\n```\n", turn=1), 5.0)
    over = ended(attempt.take_checked(checked(unknown(failure)), 6.0))
    [evidence] = over.evidence
    assert (evidence.verdict, evidence.failure, evidence.detail, evidence.answer) == (
        "UNKNOWN", failure, "so it was", "7",
    )  # fmt: skip
    assert over.failure == ("tool_error" if failure in ("timeout", "memory") else "no_answer")
    assert len(over.turns) == 2


@pytest.mark.parametrize("failure", ["statement", "crash", "unreachable"])
def test_where_lean_fails_no_proof_is_asked_for_again(failure: str) -> None:
    attempt = attempt_at()
    attempt.take(written("  simp\n```\n"), 3.0)
    over = ended(attempt.take_checked(checked(unknown(failure)), 4.0))
    assert (over.failure, over.evidence[0].verdict, over.evidence[0].failure) == ("tool_error", "UNKNOWN", failure)


@pytest.mark.parametrize("verdict", ["SUPPORTED", "REFUTED"])
def test_no_other_verdict_comes_of_a_proof(verdict: str) -> None:
    attempt = attempt_at(limits=LeanCheckConfig(max_turns=1))
    attempt.take(written("  simp\n```\n"), 3.0)
    told = Evidence("lean", "", verdict)  # type: ignore[arg-type]
    assert ended(attempt.take_checked(checked(told), 4.0)).evidence[0].verdict == "UNKNOWN"


@pytest.mark.parametrize(
    ("text", "reason", "failure", "why"),
    [
        ("  nlinarith [", "length", "length", "length"),
        ("  simp\n```\n", "error", "generator_error", "generator_error"),
        ("  simp\n```\n", "abort", "interrupted", "interrupted"),
        ("```lean\n", "stop", "no_answer", "unparsable"),
    ],
)
def test_no_proof_is_unknown(text: str, reason: str, failure: str, why: str) -> None:
    attempt = attempt_at()
    over = ended(attempt.take(written(text, reason), 3.0))
    assert (over.failure, over.evidence[0].verdict, over.evidence[0].failure) == (failure, "UNKNOWN", why)
    assert len(attempt.take_turns()) == 1


def test_a_try_without_tokens_left_is_over_and_keeps_what_lean_said() -> None:
    attempt = attempt_at(limits=LeanCheckConfig(max_tokens=4))
    attempt.take(written("  simp\n```\n"), 3.0)
    assert isinstance(attempt.take_checked(checked(FAILED), 4.0), Continue)
    assert attempt.next_requests()[0].sampling.max_tokens == 2
    over = ended(attempt.take(written("  nlinarith [", "length", turn=1), 5.0))
    assert over.failure == "length" and "linarith failed" in over.evidence[0].detail

    attempt = attempt_at(limits=LeanCheckConfig(max_tokens=2))
    attempt.take(written("  simp\n```\n"), 3.0)
    assert ended(attempt.take_checked(checked(FAILED), 4.0)).evidence[0].failure is None


def test_a_prompt_that_does_not_fit_ends_it() -> None:
    assert ended(attempt_at().refuse("p#5/0", 3.0)).failure == "length"
    with pytest.raises(ValueError, match="runs no programs"):
        attempt_at().take_result(CodeDone("p#5/1", None), 3.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["max_turns", "max_tokens", "max_message_chars"])
def test_limits_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        LeanCheckConfig(**{field: 0})


# --- in a run ---

POLICY = TriadPolicy(
    Majority(), make_stop_rule("never"), TriadConfig(attempts=2, checks=("lean_check",), weighs_worth=False)
)


def script(request: GenerateRequest) -> Reply:
    """Two solutions say 7; proofs fail first and are good when corrected."""
    if not request.continuation:
        return Reply.saying("So it is \\boxed{7}.")
    return Reply.saying("  nlinarith\n```\n" if len(request.messages) > 2 else "  linarith\n```\n", token_s=0.1)


def judge(statement: str, proof: str) -> tuple[Evidence, float]:
    assert "x = 7 := by sorry" in statement
    return (PROVED if "nlinarith" in proof else FAILED), 2.0


def proved_run(**options: object) -> Session:
    settings = {"problems": [PROBLEM], "policy": POLICY, "attempts": 3, "judge": judge, **options}
    return drive(script, **settings)  # type: ignore[arg-type]


def test_a_proof_is_tried_corrected_and_counts_for_the_answer() -> None:
    whole = proved_run()
    proof = whole.attempts()[-1]
    assert (proof.id, proof.pillar, proof.about, proof.failure) == ("p#2", "lean_check", ("7",), None)
    assert [turn.tool_text is not None for turn in proof.turns] == [True, False]
    assert proof.evidence[0].verdict == "PROVED" and proof.elapsed_s > 4.0
    assert whole.outcome.stats["num_tokens"] == sum(attempt.num_tokens for attempt in whole.attempts())
    assert is_accepted("7", whole.attempts())
    assert whole.prover is not None and len(whole.prover.submitted) == 2


def test_a_problem_without_a_formal_statement_is_not_to_be_proved() -> None:
    session = proved_run(problems=[Problem("p", "Which?")])
    assert [attempt.pillar for attempt in session.attempts()] == ["code", "code"]
    assert session.prover is not None and session.prover.submitted == []


def is_proving(driver: Driver, progress: RunProgress) -> None:
    """End the run while a proof is being checked."""
    if progress.at_s > 1.0:
        driver.request_stop()


@pytest.mark.parametrize(
    ("options", "failure"),
    [({"budget_s": 2.0}, "out_of_time"), ({"on_step": is_proving}, "interrupted"), ({"token_budget": 11}, "stopped")],
)
def test_a_run_that_ends_while_a_proof_is_checked_is_resumed(options: dict[str, object], failure: str) -> None:
    cut = proved_run(**options)
    proof = cut.attempts()[-1]
    assert (proof.pillar, proof.failure, proof.evidence[0].verdict) == ("lean_check", failure, "UNKNOWN")
    assert proof.evidence[0].answer == "7" and proof.evidence[0].failure == failure
    assert proof.num_tokens == sum(turn.num_tokens for turn in proof.turns) > 0
    assert cut.prover is not None and cut.prover.cancelled == [f"{proof.id}/{len(proof.turns)}"]
    if failure == "stopped":
        assert cut.record.problems["p"].stop_reason == OUT_OF_TOKENS
        return
    again = proved_run(before=cut.events)
    assert again.attempts()[-1].evidence[0].verdict == "PROVED"
    assert len([attempt for attempt in again.attempts() if attempt.answer is not None]) == 2


def test_a_crash_while_a_proof_is_checked_loses_only_it() -> None:
    whole = proved_run()
    for num_kept in range(1, len(whole.events) - 1):
        again = proved_run(before=whole.events[:num_kept])
        proofs = [attempt for attempt in again.attempts() if attempt.is_check]
        assert [attempt.evidence[0].verdict for attempt in proofs] == ["PROVED"]


def test_a_generator_that_fails_a_proof_fails_nothing_else() -> None:
    session = drive(
        lambda request: Reply.failing("lost") if request.continuation else script(request),
        problems=[PROBLEM], policy=POLICY, attempts=3, judge=judge,
    )  # fmt: skip
    assert session.attempts()[-1].failure == "generator_error"
    assert session.record.problems["p"].selection is not None
