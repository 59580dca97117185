"""The integration layer: what is launched next, what is checked, when there is a second round, when it stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from mathlete.cic.majority import Majority, tally
from mathlete.contest.stop_rules import make_stop_rule
from mathlete.core.attempt import Attempt
from mathlete.core.policy import Action, Launch, Launched, Outlook, PoolState, Stop, Wait
from mathlete.core.problem import Problem
from mathlete.core.selection import Evidence, Selection
from mathlete.triad.integration import OUT_OF_TOKENS, TriadConfig, TriadPolicy

PROBLEM = Problem("p", "How many?")
BUSY = Outlook(1e6, None, num_waiting=20, num_open=3, tokens_per_s=100.0, tokens_per_attempt=500.0)
ALONE = replace(BUSY, num_waiting=0, num_open=1)
CHECKED = TriadConfig(checks=("sympy_check", "smt_check"), weighs_worth=False)


@dataclass(frozen=True)
class Sure:
    """Chooses by votes, and is as sure as it was told."""

    confidence: float

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        chosen = Majority().select(problem, attempts)
        return chosen if chosen.rule == "fallback" else replace(chosen, confidence=self.confidence, rule="triad")


NEVER = make_stop_rule("never")


def attempt(
    index: int, answer: str | None, pillar: str = "code", round: int = 1, failure: str | None = None
) -> Attempt:
    evidence = (Evidence(pillar, "claim", "UNKNOWN", answer="1"),) if pillar.endswith("_check") else ()
    return Attempt(
        id=f"p#{index}", problem_id="p", index=index, pillar=pillar, seed=0, temperature=0.8, answer=answer,
        answer_source=None, turns=(), num_tokens=500, elapsed_s=1.0, failure=failure, round=round,  # type: ignore[arg-type]
        evidence=evidence,
    )  # fmt: skip


def pool(*attempts: Attempt, flying: Sequence[Launched] = (), outlook: Outlook | None = BUSY) -> PoolState:
    return PoolState(
        PROBLEM, attempts, len(flying), len(attempts) + len(flying), 1.0, 100.0, None, tuple(flying), 0, outlook
    )


def decide(state: PoolState, config: TriadConfig, confidence: float = 0.5) -> Action:
    return TriadPolicy(Sure(confidence), NEVER, config).decide(state)


def votes(*answers: str | None) -> tuple[Attempt, ...]:
    return tuple(attempt(i, answer) for i, answer in enumerate(answers))


SOLVING = Launched("code", 1)
CHECKING = Launched("sympy_check", 1, ("1",))


def test_a_wave_while_others_wait_and_all_at_once_alone() -> None:
    assert decide(pool(), TriadConfig()) == Launch(3, "code", 0.8)
    assert decide(pool(outlook=ALONE), TriadConfig()) == Launch(8, "code", 0.8)
    assert decide(pool(outlook=replace(ALONE, tokens_left=9000)), TriadConfig()) == Launch(3, "code", 0.8)


def test_the_last_ones_are_no_more_at_once_than_the_clock_affords() -> None:
    short = replace(pool(outlook=ALONE), affordable=4)
    assert decide(short, TriadConfig()) == Launch(4, "code", 0.8)
    assert decide(replace(pool(flying=[SOLVING] * 4, outlook=ALONE), affordable=4), TriadConfig()) == Wait()
    ended = replace(pool(*votes("1", "2", "3", "4"), outlook=ALONE), affordable=4)
    assert decide(ended, TriadConfig()) == Launch(3, "code", 0.8), "another wave where there is still time"
    assert isinstance(decide(replace(ended, remaining_s=0.1), TriadConfig()), Stop), "and none where there is not"
    assert decide(pool(flying=[SOLVING] * 3), TriadConfig()) == Wait()
    assert decide(pool(*votes("1", "2"), flying=[SOLVING]), TriadConfig(weighs_worth=False)) == Wait()
    assert decide(pool(*votes("1", "2", "3", "4"), flying=[SOLVING] * 2), TriadConfig(weighs_worth=False)) == Wait()
    assert decide(pool(*votes("1", "2", "3")), TriadConfig(weighs_worth=False)) == Launch(3, "code", 0.8)


def test_a_wave_does_not_wait_for_the_last_where_no_other_problem_could_use_the_slots() -> None:
    in_turn = pool(*votes("1", "2"), flying=[SOLVING], outlook=replace(BUSY, may_open=False))
    assert decide(in_turn, TriadConfig(weighs_worth=False)) == Launch(3, "code", 0.8)
    agreed = pool(*votes("1", "1", "1"), flying=[SOLVING] * 3, outlook=replace(in_turn.outlook, remaining_s=100.0))  # type: ignore[type-var]
    assert not isinstance(decide(agreed, TriadConfig()), Launch), "each must be worth it"


def test_pillars_take_turns() -> None:
    config = TriadConfig(pillars=("code", "code", "reasoning"), wave=4, weighs_worth=False)
    assert decide(pool(), config) == Launch(2, "code", 0.8)
    assert decide(pool(*votes("1", "2")), config) == Launch(1, "reasoning", 0.8)
    three = (*votes("1", "2"), attempt(2, "3", "reasoning"))
    assert decide(pool(*three), config) == Launch(1, "code", 0.8), "the rest of the wave"
    assert decide(pool(*three, attempt(3, "4")), config) == Launch(1, "code", 0.8)
    assert decide(pool(flying=[SOLVING] * 2), config) == Launch(1, "reasoning", 0.8)


def test_a_wave_is_cooled_by_the_order_of_the_pool_where_that_is_wanted() -> None:
    config = TriadConfig(anneals=True, weighs_worth=False, checks=("sympy_check",), second_round=2)
    assert decide(pool(), config) == Launch(3, "code", 1.4)
    assert decide(pool(*votes("1", "2", "3", None), flying=[CHECKING]), config) == Launch(
        2, "code", pytest.approx(1.4 - 1.1 / 3)
    )
    assert decide(pool(*votes("1", "1", "1"), flying=[CHECKING]), config) == Launch(3, "code", 0.3), "crystallised"
    assert decide(pool(*votes("1", "2", "3")), config) == Launch(1, "sympy_check", 0.8, ("1", "2", "3"))
    split = pool(*votes(*"12345678"))
    assert decide(split, replace(config, checks=())) == Launch(2, "code", 0.8, ("1", "2", "3"), 2)


def test_the_leading_answers_are_checked_once_the_first_wave_has_ended() -> None:
    assert decide(pool(*votes("1", "2")), CHECKED) == Launch(1, "code", 0.8), "not yet: two of three"
    split = votes("1", "2", "1", "3", "4")
    assert decide(pool(*split), CHECKED) == Launch(1, "sympy_check", 0.8, about=("1", "2", "3"))
    assert decide(pool(*split, flying=[CHECKING]), CHECKED) == Launch(1, "smt_check", 0.8, about=("1", "2", "3"))
    asked = [
        replace(attempt(5, None, "sympy_check"), about=("1",)),
        replace(attempt(6, None, "smt_check"), about=("1",)),
    ]
    both = (*split, *asked)
    assert decide(pool(*both), CHECKED) == Launch(1, "code", 0.8), "each once"


def test_a_sure_selection_is_not_checked_unless_all_are() -> None:
    state = pool(*votes("1", "1", "1"))
    assert isinstance(decide(state, replace(CHECKED, check_below=0.9), confidence=0.97), Stop)
    assert decide(state, CHECKED, confidence=0.97) == Launch(1, "sympy_check", 0.8, about=("1",))
    both = [CHECKING, Launched("smt_check", 1, ("1",))]
    checking = pool(*votes("1", "1", "1"), flying=both)
    assert decide(checking, CHECKED, confidence=0.97) == Wait(), (
        "a check that was begun is waited for, with nothing else"
    )
    assert decide(checking, CHECKED) == Launch(3, "code", 0.8), "where nothing is settled the attempts go on"
    few = replace(pool(*votes("1", "1"), flying=[CHECKING]), affordable=2)
    assert decide(few, CHECKED, confidence=0.97) == Launch(1, "smt_check", 0.8, about=("1",)), "checks run side by side"


def test_a_new_leader_is_checked_too_but_not_for_ever() -> None:
    config = replace(CHECKED, checks=("sympy_check",))
    asked = [replace(attempt(9 + i, None, "sympy_check"), about=about) for i, about in enumerate([("1",), ("2",)])]
    pools = votes("1", "2", "2"), votes("1", "2", "2", "3", "3", "3")
    assert decide(pool(*pools[0], asked[0]), config) == Launch(1, "sympy_check", 0.8, about=("2", "1"))
    assert decide(pool(*pools[1], *asked), config) == Launch(2, "code", 0.8), "twice is enough"


def test_nothing_is_checked_where_nothing_was_found() -> None:
    assert decide(pool(*votes(None, None, None)), CHECKED) == Launch(3, "code", 0.8)


def test_a_second_round_only_where_the_votes_are_split_and_once() -> None:
    config = TriadConfig(attempts=4, second_round=2, weighs_worth=False)
    assert decide(pool(*votes("1", "2", "3", None)), config) == Launch(2, "code", 0.8, ("1", "2", "3"), 2)
    assert isinstance(decide(pool(*votes("1", "1", "2", "3")), config), Stop), "half of the votes is not split"
    second = (attempt(4, "1", round=2), attempt(5, "1", round=2))
    assert isinstance(decide(pool(*votes("1", "2", "3", None), *second), config), Stop)
    assert decide(pool(*votes("1", "2", "3", None), flying=[Launched("code", 2)] * 2), config) == Wait()


def test_a_second_round_that_had_no_slot_or_was_cut_off_is_made_whole() -> None:
    config = TriadConfig(attempts=4, second_round=2, weighs_worth=False)
    split, shown = votes("1", "2", "3", None), ("1", "2", "3")
    one_flies = pool(*split, flying=[Launched("code", 2, shown)])
    assert decide(one_flies, config) == Launch(1, "code", 0.8, shown, 2)
    one_ended = pool(*split, replace(attempt(4, "3", round=2), about=shown))
    assert decide(one_ended, config) == Launch(1, "code", 0.8, shown, 2), "it sees what its sibling saw"
    agreeing = (replace(attempt(4 + i, "3", round=2), about=shown) for i in range(2))
    assert isinstance(decide(pool(*split, *agreeing), config), Stop)


def test_a_resumed_run_makes_up_for_the_pillar_that_was_cut_off() -> None:
    config = TriadConfig(pillars=("code", "reasoning"), weighs_worth=False)
    assert decide(pool(attempt(1, "1", "reasoning")), config) == Launch(2, "code", 0.8)
    assert decide(pool(attempt(1, "1", "reasoning"), flying=[SOLVING]), config) == Launch(1, "code", 0.8)
    assert decide(pool(attempt(0, "1"), attempt(2, "1")), config) == Launch(1, "reasoning", 0.8)


def test_a_proof_is_tried_only_of_a_formal_statement_and_for_the_leader() -> None:
    config = replace(CHECKED, checks=("lean_check", "sympy_check"))
    state = pool(*votes("1", "2", "1", "3", "4"))
    assert decide(state, config) == Launch(1, "sympy_check", 0.8, about=("1", "2", "3"))
    formal = replace(PROBLEM, formal_statement="theorem a : 1 = {answer} := by sorry")
    assert decide(replace(state, problem=formal), config) == Launch(1, "lean_check", 0.8, about=("1",))
    told = replace(PROBLEM, formal_statement="theorem a : 1 = 1 := by sorry")
    assert decide(replace(state, problem=told), config) == Launch(1, "lean_check", 0.8)


def test_it_stops_for_what_it_is_told() -> None:
    class Settled:
        """Any pool is."""

        def why_stop(self, state: PoolState, max_attempts: int) -> str | None:
            return f"settled at {len(state.attempts)} of {max_attempts}"

    def why(state: PoolState, confidence: float = 0.5, config: TriadConfig | None = None) -> str:
        action = TriadPolicy(Sure(confidence), Settled(), config or TriadConfig()).decide(state)
        assert isinstance(action, Stop)
        return action.reason

    assert why(pool(*votes("1", "2", "1"))) == "settled at 3 of 8"
    assert why(replace(pool(*votes("1", "2")), affordable=2)) == "all attempts finished"
    assert why(pool(*votes("1", "2", "1")), 0.96) == "the selection is sure: 0.96"
    assert why(replace(pool(*votes("1", "2")), remaining_s=0.0)) == "out of time"
    assert why(pool(*votes("1", "2"), outlook=replace(BUSY, tokens_left=0))) == OUT_OF_TOKENS
    for few in (["1"], ["1", "1"]):
        action = TriadPolicy(Sure(0.99), Settled(), TriadConfig()).decide(pool(*votes(*few), flying=[SOLVING]))
        assert isinstance(action, (Launch, Wait)), "one or two attempts are no agreement, however sure"


def test_a_pool_that_agrees_is_not_worth_another_where_others_wait() -> None:
    tight = replace(BUSY, remaining_s=100.0)
    action = decide(pool(*votes("1", "1", "1", "1"), outlook=tight), TriadConfig(), confidence=0.94)
    assert isinstance(action, Stop) and "not worth" in action.reason
    assert decide(pool(*votes("1", "2", "3"), outlook=BUSY), TriadConfig()) == Launch(3, "code", 0.8)


def test_lost_attempts_are_made_again_within_reason() -> None:
    config = TriadConfig(attempts=2, wave=2, weighs_worth=False)
    lost = [attempt(i, None, failure="generator_error") for i in range(3)]
    assert decide(pool(*lost[:2]), config) == Launch(2, "code", 0.8)
    assert decide(pool(*lost), config) == Launch(1, "code", 0.8)
    dead = decide(pool(*lost, attempt(3, None, failure="generator_error")), config)
    assert isinstance(dead, Stop) and dead.selection.answer == "0"


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0}, {"pillars": ()}, {"pillars": ("sympy_check",)}, {"checks": ("code",)}, {"second_round": -1},
        {"stop_confidence": 1.5}, {"temperature": float("nan")},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TriadConfig(**wrong)  # type: ignore[arg-type]


def test_the_same_state_gives_the_same_action() -> None:
    states = [pool(*votes(*answers)) for answers in (["1"], ["1", "2"], ["2", "1"], ["1"], [])]
    policy = TriadPolicy(Majority(), NEVER, CHECKED)
    first = [policy.decide(state) for state in states]
    assert first == [policy.decide(state) for state in states] == [decide_afresh(state) for state in states]
    assert tally(states[1].attempts)[0].answer == "1"


def decide_afresh(state: PoolState) -> Action:
    return TriadPolicy(Majority(), NEVER, CHECKED).decide(state)
