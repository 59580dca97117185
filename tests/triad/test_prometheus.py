"""The 2/50 pipeline: each fault does what its name says, and its cure undoes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted_run import drive, printed

from mathlete.cic.majority import Majority
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.generation import GenerateRequest
from mathlete.core.policy import Launch, Outlook, PoolState, Stop, Wait
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.selection import Evidence, Verdict
from mathlete.triad.chat import opening_messages
from mathlete.triad.making import AttemptMaker
from mathlete.triad.prometheus import (
    PROMETHEUS_PILLARS,
    PrometheusPolicy,
    PrometheusSelector,
    digit_root,
    pillar_of,
)
from mathlete.triad.prometheus_answers import FAULTS, NO_FAULTS, Faults, as_read, last_number

PROBLEM = Problem("p", "How many?")
KIND = AnswerKind()


def only(*names: str) -> Faults:
    return replace(NO_FAULTS, **dict.fromkeys(names, True))


def ran(stdout: str, *, ok: bool = True, text: str = "```python\n...\n```\n") -> Turn:
    return Turn(text, "...", ToolResult("ok" if ok else "error", stdout, "", 0.1), f"```output\n{stdout}```\n", 10)


def attempt(index: int, answer: str | None, *turns: Turn, pillar: str = "code", **fields: object) -> Attempt:
    made = turns or (Turn(f"It is \\boxed{{{answer}}}." if answer else "Hm.", num_tokens=5),)
    num_tokens = sum(turn.num_tokens for turn in made)
    failure = None if answer else "no_answer"
    done = Attempt(f"p#{index}", "p", index, pillar, 1, 0.8, answer, None, made, num_tokens, 1.0, failure=failure)
    return replace(done, **fields)  # type: ignore[arg-type]


def check(verdict: Verdict, answer: str) -> Attempt:
    evidence = (Evidence("sympy_check", "it fits", verdict, answer=answer),)
    return attempt(9, None, pillar="sympy_check", evidence=evidence, about=(answer,))


def chosen(faults: Faults, *attempts: Attempt) -> str:
    return PrometheusSelector(faults).select(PROBLEM, attempts).answer


def state(*attempts: Attempt, in_flight: int = 0, elapsed_s: float = 0.0, left_s: float | None = None) -> PoolState:
    outlook = None if left_s is None else Outlook(left_s, None, 3, 1, None, 450.0)
    return PoolState(PROBLEM, attempts, in_flight, len(attempts) + in_flight, elapsed_s, 100.0, outlook=outlook)


def test_without_faults_it_is_a_plain_vote() -> None:
    pool = [attempt(0, "7"), attempt(1, None), attempt(2, "9", features={"mean_entropy": 0.1}), attempt(3, "7")]
    for attempts in (pool, pool[:3], pool[1:2]):
        assert chosen(NO_FAULTS, *attempts) == Majority().select(PROBLEM, attempts).answer
    assert [as_read(item, KIND, NO_FAULTS) for item in pool] == pool


def test_one_pass_takes_what_the_first_program_did() -> None:
    twice = attempt(0, "42", ran("41\n"), ran("42\n"), Turn("So \\boxed{42}.", num_tokens=4))
    seen = as_read(twice, KIND, only("one_pass"))
    assert (seen.answer, len(seen.turns), seen.num_tokens) == ("41", 1, 10)
    failed = as_read(attempt(0, "42", ran("", ok=False), ran("42\n")), KIND, only("one_pass"))
    assert (failed.answer, failed.failure) == (None, "no_answer")
    text = attempt(1, "42")
    assert as_read(text, KIND, only("one_pass")) is text


def test_a_cut_at_the_end_of_thinking_loses_the_answer_behind_it() -> None:
    thought = attempt(0, "42", Turn("<think>\nperhaps 7\n</think>\n\nIt is \\boxed{42}.", num_tokens=9))
    seen = as_read(thought, KIND, only("cut_at_think"))
    assert (seen.answer, seen.turns[0].text) == (None, "<think>\nperhaps 7\n")
    boxed = attempt(0, "42", Turn("<think>\n\\boxed{7}?\n</think>\n\\boxed{42}"))
    assert as_read(boxed, KIND, only("cut_at_think")).answer == "7"


@pytest.mark.parametrize(
    ("stdout", "number"),
    [
        ("x = 3\n-7\n", "7"),
        ("123456\n", "23456"),
        ("3.99\n", "3"),
        ("42 of 100\n", "100"),
        ("no\n", "5"),
        ("9" * 500, str(int("9" * 100) % 100_000)),
    ],
)
def test_the_last_number_whatever_it_is(stdout: str, number: str) -> None:
    assert last_number([Turn("Let x be 5."), ran(stdout, text="")]) == number


def test_last_printed_is_read_where_ours_refuses() -> None:
    refused = attempt(0, None, ran("checked 1 to 100007\n"))
    assert as_read(refused, KIND, only("last_printed")).answer == "7"
    assert as_read(attempt(1, None, Turn("Hm.")), KIND, only("last_printed")).failure == "no_answer"
    judged = check("REFUTED", "7")
    assert as_read(judged, KIND, Faults()) is judged


def test_the_shortcut_looks_at_one_sample() -> None:
    wrong, right = attempt(0, "1", ran("1\n")), [attempt(i, "2", ran("2\n")) for i in (1, 2, 3)]
    assert chosen(only("one_sample_shortcut"), wrong, *right) == "1"
    assert chosen(NO_FAULTS, wrong, *right) == "2"
    no_program = attempt(0, "1")
    assert chosen(only("one_sample_shortcut"), no_program, *right) == "2", "nothing ran, so the vote goes on"


def test_half_of_two_is_called_a_consensus() -> None:
    pool = [attempt(0, None), attempt(1, "1"), attempt(2, "2"), attempt(3, "2")]
    assert chosen(only("half_of_two"), *pool) == "1"
    assert chosen(NO_FAULTS, *pool) == "2"


def test_what_ran_counts_as_verified() -> None:
    pool = [attempt(0, "1", ran("1\n")), attempt(1, "2"), attempt(2, "2", ran("", ok=False), Turn("\\boxed{2}"))]
    assert chosen(only("ran_is_verified"), *pool) == "1"
    assert chosen(NO_FAULTS, *pool) == "2"
    assert PrometheusSelector(only("ran_is_verified")).select(PROBLEM, pool).accepted
    assert chosen(only("ran_is_verified"), *pool[1:]) == "2", "nothing ran: all vote"


def test_evidence_is_looked_at_only_when_that_is_cured() -> None:
    pool = [attempt(0, "1"), attempt(1, "1"), attempt(2, "2"), check("REFUTED", "1")]
    assert chosen(only("no_symbolic_check"), *pool) == "1"
    assert chosen(NO_FAULTS, *pool) == "2"
    assert chosen(NO_FAULTS, pool[0], pool[3]) == "1", "nothing else is left"
    assert chosen(NO_FAULTS, *pool, replace(check("SUPPORTED", "1"), id="p#10")) == "1"


def test_the_median_of_a_basin_may_be_nobodys_answer() -> None:
    pool = [attempt(i, answer) for i, answer in enumerate(["100", "100", "102", "103", "7"])]
    assert chosen(only("basin_median"), *pool) == "101"
    assert chosen(NO_FAULTS, *pool) == "100"


def test_ties_by_digits() -> None:
    pool = [attempt(0, "10"), attempt(1, "8")]
    assert chosen(only("numerology"), *pool) == "8"
    assert chosen(NO_FAULTS, *pool) == "10", "the first"
    assert [digit_root(text) for text in ("0", "9", "10", "99999", "-12")] == [0, 9, 1, 9, 3]


def test_a_problem_takes_a_fixed_part_of_what_is_left() -> None:
    policy = PrometheusPolicy(only("time_decay"), time_part=0.1)
    late = policy.decide(state(attempt(0, "1"), elapsed_s=10.0, left_s=89.0))
    assert isinstance(late, Stop) and late.reason == "its part of the time is spent"
    assert isinstance(policy.decide(state(attempt(0, "1"), elapsed_s=10.0, left_s=91.0)), Launch)
    cured = PrometheusPolicy(NO_FAULTS, time_part=0.1)
    assert isinstance(cured.decide(state(attempt(0, "1"), elapsed_s=10.0, left_s=89.0)), Launch)


def test_one_then_two_then_the_rest() -> None:
    policy = PrometheusPolicy(replace(Faults(), last_printed=False, time_decay=False))
    pillar = pillar_of(Faults()).name
    assert policy.decide(state()) == Launch(1, pillar, 0.8)
    assert policy.decide(state(in_flight=1)) == Wait()
    first = policy.decide(state(attempt(0, "1", ran("1\n"))))
    assert (
        isinstance(first, Stop)
        and first.selection.answer == "1"
        and first.reason == "the first program printed a number"
    )
    assert policy.decide(state(attempt(0, None, ran("", ok=False)))) == Launch(2, pillar, 0.8)
    second = policy.decide(state(attempt(0, None, ran("", ok=False)), attempt(1, "1"), attempt(2, "2")))
    assert isinstance(second, Stop) and second.reason == "half of two answers agree"


def test_the_second_half_is_told_that_the_leader_is_wrong() -> None:
    policy = PrometheusPolicy(only("told_wrong"), attempts=4)
    pillar = pillar_of(only("told_wrong")).name
    assert policy.decide(state()) == Launch(2, pillar, 0.8)
    assert policy.decide(state(attempt(0, "1"), attempt(1, "1"))) == Launch(2, pillar, 0.8, ("1",), 2)
    assert policy.decide(state(attempt(0, None), attempt(1, None))) == Launch(2, pillar, 0.8), "nobody leads"
    pool = [attempt(0, "1"), attempt(1, "1")]
    launch = Launch(1, pillar, 0.8, ("1",), 2)
    (request,) = AttemptMaker().make(PROBLEM, 2, launch, pool, 0.0).next_requests()
    assert "The most common answer so far, 1, is wrong." in request.messages[1].content


def test_a_cured_pipeline_asks_for_a_check_before_it_ends() -> None:
    policy = PrometheusPolicy(NO_FAULTS, attempts=2)
    pool = (attempt(0, "1"), attempt(1, "2"))
    assert policy.decide(state(*pool)) == Launch(1, "sympy_check", 0.8, ("1", "2"))
    stop = policy.decide(state(*pool, check("REFUTED", "1")))
    assert isinstance(stop, Stop) and stop.selection.answer == "2"


def test_pillars_differ_in_what_they_are_told_and_when_they_end() -> None:
    assert len({spec.name for spec in PROMETHEUS_PILLARS}) == 8
    for spec in PROMETHEUS_PILLARS:
        (request,) = AttemptMaker().make(PROBLEM, 0, Launch(1, spec.name, 0.8), (), 0.0).next_requests()
        assert request.messages == opening_messages("code" if "reasoning" in spec.name else "prometheus", PROBLEM)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_can_be_cured_alone_in_a_whole_run(name: str) -> None:
    def script(request: GenerateRequest) -> str:
        index = int(request.request_id.partition("#")[2].partition("/")[0])
        return f"```python\nprint({index})\n```\n" if not request.continuation else f"It is \\boxed{{{index}}}."

    faults = replace(Faults(), **{"one_sample_shortcut": False, name: False})
    policy = PrometheusPolicy(faults, attempts=3)
    if not faults.no_symbolic_check:
        policy = replace(policy, faults=replace(faults, half_of_two=True))  # ends before it wants a check
    session = drive(script, policy=policy, behaviour=lambda code: printed("3"), attempts=3)
    record = session.record.problems["p"]
    assert record.selection is not None and record.selection.rule == "prometheus"
    assert {len(item.turns) for item in record.attempts} == ({1} if faults.one_pass else {2})


@pytest.mark.parametrize(("name", "value"), [("attempts", 0), ("time_part", 0.0)])
def test_limits_of_the_policy_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        PrometheusPolicy(**{name: value})  # type: ignore[arg-type]
