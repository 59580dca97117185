"""A second round: what fresh attempts are shown of the first, and what must not be in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_run import crashed, drive, printed

from mathlete.cic.majority import Majority
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.generation import GenerateRequest, Message
from mathlete.core.policy import Action, Launch, PoolState, Stop, Wait
from mathlete.core.problem import Problem
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.chat import opening_messages
from mathlete.triad.making import AttemptMaker
from mathlete.triad.second_round import MAX_ANSWERS, MAX_EXCERPT_CHARS, excerpt, representative, second_round_messages
from mathlete.triad.solution_attempt import CODE, REASONING, PillarSpec

PROBLEM = Problem("p", "How many {found} are there?")


def attempt(index: int, answer: str | None, text: str = "", *, round: int = 1, entropy: float | None = None) -> Attempt:
    features = {} if entropy is None else {"mean_entropy": entropy}
    turns = (Turn(text or f"It is \\boxed{{{answer}}}.", num_tokens=3),)
    return Attempt(
        f"p#{index}", "p", index, "code", 1, 0.8, answer, "boxed", turns, 3, 1.0, features, round=round
    )  # fmt: skip


def user_message(answers: list[str], pool: list[Attempt], spec: PillarSpec = CODE) -> str:
    system, user = second_round_messages(spec, PROBLEM, answers, pool)
    assert (system.role, user.role) == ("system", "user")
    return user.content


@pytest.mark.parametrize("spec", [CODE, REASONING])
def test_statement_answers_and_a_piece_of_each_are_shown(spec: PillarSpec) -> None:
    pool = [attempt(0, "42", "Since 6 * 7 = 42."), attempt(1, "9", "Nine it is."), attempt(2, None, "Lost.")]
    told = user_message(["42", "9"], pool, spec)
    assert told.startswith(PROBLEM.statement)
    assert "> Since 6 * 7 = 42." in told and "> Nine it is." in told and "Lost." not in told
    assert told.count("{found}") == 1, "only the statement's own"
    assert "none" in told and "wrong" not in told and "common" not in told
    assert r"\boxed{}" in told


def test_nothing_tells_which_answer_leads() -> None:
    pool = [attempt(0, "42", "A."), attempt(1, "42", "B."), attempt(2, "9", "C.")]
    assert user_message(["42", "9"], pool) == user_message(["9", "42"], pool)
    assert user_message(["42", "9"], pool) == user_message(["42", "9"], [pool[0], pool[2]])


def test_only_the_leading_answers_are_shown() -> None:
    answers = [str(10 + i) for i in range(MAX_ANSWERS + 2)]
    told = user_message(answers, [attempt(i, answer) for i, answer in enumerate(answers)])
    assert f"found {answers[MAX_ANSWERS - 1]}." in told and f"found {answers[MAX_ANSWERS]}." not in told


def test_the_surest_attempt_of_the_first_round_stands_for_an_answer() -> None:
    pool = [
        attempt(0, "42", entropy=0.9),
        attempt(1, "42", entropy=0.2),
        attempt(2, "42", entropy=0.1, round=2),
        attempt(3, "9", entropy=0.0),
        attempt(4, "42"),
    ]
    assert representative("42", pool) == pool[1]
    assert representative("7", pool) is None
    assert "An attempt found 7." in user_message(["7"], pool)


def test_an_excerpt_is_bounded_and_leaves_closed_thinking_out() -> None:
    long = attempt(0, "42", "start " + "x" * 5_000 + " end")
    assert len(excerpt(long)) < MAX_EXCERPT_CHARS + 60
    assert excerpt(long).startswith("start ") and excerpt(long).endswith(" end")
    assert excerpt(attempt(0, "42", "<think>\nhm, hm\n</think>\n\nIt is 42.")) == "It is 42."
    assert excerpt(attempt(0, "42", "<think>\nIt is 42.\n</think>\n")) == "< think>\nIt is 42."


@pytest.mark.parametrize(
    "token", ["<|im_end|>", "<|im_start|>", "<｜User｜>", "</s>", "<think>", "[/INST]", "<start_of_turn>", "<|eot_id|>"]
)
def test_no_control_token_is_passed_on(token: str) -> None:
    hidden = token[:2] + "\u200b" + token[2:]
    told = user_message(["42"], [attempt(0, "42", f"a {token} b {hidden} c {token}{token}")])
    assert token not in told


@given(st.lists(st.sampled_from([*"<|｜>/\n\r\x0b\u2028 a", "think", "im_end", "{statement}", "{found}"]), max_size=40))
def test_whatever_an_attempt_wrote_stays_in_its_quotation(pieces: list[str]) -> None:
    quiet, told = (user_message(["42"], [attempt(0, "42", text)]) for text in ("x", "x" + "".join(pieces) + "x"))
    assert "<|im_end|>" not in told and "<think>" not in told and "</think>" not in told
    rest = [line for line in told.splitlines() if not line.startswith(">")]
    assert rest == [line for line in quiet.splitlines() if not line.startswith(">")]


def test_a_maker_opens_attempts_of_each_round_and_pillar() -> None:
    maker, pool = AttemptMaker(7, AttemptConfig()), [attempt(0, "42"), attempt(1, "9")]
    first: dict[str, tuple[Message, ...]] = {}
    for pillar, spec in (("code", CODE), ("reasoning", REASONING), ("beam", CODE)):
        opened = maker.make(PROBLEM, 2, Launch(1, pillar, 0.8), pool, 0.0).next_requests()[0]
        assert opened.messages == opening_messages(spec.name, PROBLEM)
        first[pillar] = opened.messages
        later = maker.make(PROBLEM, 2, Launch(1, pillar, 0.8, ("42", "9"), 2), pool, 0.0).next_requests()[0]
        assert later.messages == second_round_messages(spec, PROBLEM, ("42", "9"), pool)
    assert first["code"] != first["reasoning"]


def test_an_unknown_pillar_is_named() -> None:
    with pytest.raises(ValueError, match="no pillar 'guess'"):
        AttemptMaker().make(PROBLEM, 0, Launch(1, "guess", 0.8), (), 0.0)


class TwoRounds:
    """Two attempts of each pillar, then two that are shown what those found."""

    def decide(self, state: PoolState) -> Action:
        if state.remaining_s <= 0 or (len(state.attempts) == 6 and not state.num_in_flight):
            return Stop(Majority().select(state.problem, state.attempts), "all attempts finished")
        if state.num_launched < 4:
            return Launch(2, "code" if state.num_launched < 2 else "reasoning", 0.8)
        if len(state.attempts) >= 4 and state.num_launched == 4:
            return Launch(2, "reasoning", 0.8, ("42", "9"), 2)
        return Wait()


def test_rounds_and_sessions_through_the_driver() -> None:
    seen: dict[str, GenerateRequest] = {}

    def script(request: GenerateRequest) -> str:
        seen[request.request_id] = request
        index = int(request.request_id.partition("#")[2].partition("/")[0])
        if index >= 2:
            return "It is \\boxed{42}." if index % 2 else "It is \\boxed{9}."
        if not request.continuation:
            return f"Compute\n```python\nx = {index}\n```\n"
        return "Once more\n```python\nprint(x)\n```\n" if len(request.continuation) == 2 else "It is \\boxed{42}."

    session = drive(
        script, policy=TwoRounds(), behaviour=lambda code: printed("1") if "print" in code else crashed(), attempts=6
    )
    attempts = {item.index: item for item in session.attempts()}
    assert [attempts[i].pillar for i in range(6)] == ["code"] * 2 + ["reasoning"] * 4
    assert [attempts[i].round for i in range(6)] == [1] * 4 + [2] * 2 and attempts[4].about == ("42", "9")
    assert "An attempt found 9." in seen["p#4/0"].messages[1].content
    assert session.runner.session_of == {"p#0/1": "p#0", "p#0/2": "p#0", "p#1/1": "p#1", "p#1/2": "p#1"}
    assert sorted(session.runner.ended_sessions) == [f"p#{i}" for i in range(6)]
