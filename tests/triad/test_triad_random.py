"""Whatever the model writes under TRIAD, however long it takes: the run ends, in time, and goes on as it should."""

from __future__ import annotations

import ast
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_run import Outcome, Session, crashed, drive, printed

from mathlete.cic.registry import SELECTORS, make_selector
from mathlete.contest.difficulty import weight_of
from mathlete.contest.policy import FixedPolicy, VotePolicy
from mathlete.contest.stop_rules import STOP_RULES, make_stop_rule
from mathlete.core.attempt import CUT_OFF
from mathlete.core.code import ToolResult
from mathlete.core.errors import EngineError
from mathlete.core.generation import GenerateRequest
from mathlete.core.policy import Policy
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.record import fold_run
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import Reply
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.integration import TriadConfig, TriadPolicy
from mathlete.triad.prometheus import PrometheusPolicy
from mathlete.triad.prometheus_answers import FAULTS, Faults

CHECKS = ("sympy_check", "smt_check", "enumeration_check", "genselect_check")
MAX_TOKENS = 12
TEXTS = (
    "```python\nprint(1)\n```\n",
    r"so $\boxed{7}$.",
    r"so $\boxed{5}$.",
    r"so $\boxed{3}$.",
    "The answer is 123456789.",
    "",
    "hm " * 40,
)
CHECKING = ("    return answer == 7\n```\n", "    return True\n```\n", "not a program", "Judgment: 0", "")


def scripted(
    seed: int, trouble: float, slowness_s: float
) -> tuple[Callable[[GenerateRequest], Reply], Callable[[str], Outcome]]:
    """A script and a sandbox whose behaviour depends on the seed and on what is asked, not on when."""

    def script(request: GenerateRequest) -> Reply:
        opening = request.messages[0].content
        noise = random.Random(f"{seed} {request.request_id} {opening}")
        if noise.random() < trouble / 2:
            raise EngineError(f"{request.request_id} does not fit")
        is_check = "check" in opening or (request.continuation and request.request_id.endswith("/0"))
        pieces = (noise.choice(CHECKING),) if is_check else tuple(noise.choices(TEXTS, k=noise.randint(0, 3)))
        ends: Any = "error" if noise.random() < trouble else "stop"
        delay_s, token_s = noise.choice((0.0, slowness_s)), noise.choice((0.0, slowness_s / 4))
        return Reply(pieces, ends=ends, error="lost" if ends == "error" else None, delay_s=delay_s, token_s=token_s)

    def behaviour(code: str) -> Outcome:
        noise = random.Random(f"{seed} {code}")
        if "run_job(" not in code or noise.random() < 0.3:
            return noise.choice((printed("7"), printed("no number", 0.5), printed("5", 30.0), crashed()))
        return checked(code)

    return script, behaviour


def checked(code: str) -> Outcome:
    """What a check by program prints that accepts 7 and nothing else."""
    job = ast.literal_eval(code.rpartition("run_job(")[2].rstrip().removesuffix(")"))
    told = [
        (kind, number, "7" if kind == "enumeration" else "accepted" if number == 7 else "rejected", "")
        for kind, number in job["asked"]
    ]
    lines = "".join(f"\n{job['word']} {json.dumps(item)}\n" for item in told)
    return Outcome(ToolResult("ok", lines, "", 0.1), 0.1)


def check_triad(session: Session, config: TriadConfig) -> None:
    """No check twice, no more of the second round than asked for; nothing above it made again for no reason."""
    for item in session.record.problems.values():
        whole = [a for a in item.attempts if a.answer is not None or a.failure not in CUT_OFF]
        assert len({attempt.id for attempt in item.attempts}) == len(item.attempts)
        checks = Counter((a.pillar, a.about) for a in whole if a.is_check)
        assert set(checks.values()) <= {1}, "no check twice"
        assert max(Counter(pillar for pillar, _ in checks).values(), default=0) <= 2, "once more for a new leader"
        assert all(attempt.answer is None for attempt in item.attempts if attempt.is_check)
        assert sum(attempt.round > 1 for attempt in whole) <= config.second_round
        assert len({attempt.about for attempt in whole if attempt.round > 1}) <= 1, "all of them were shown the same"


def check_tokens(session: Session, token_budget: int | None, max_in_flight: int, before: int) -> None:
    """No more than what is in flight when they are spent: a token each in one step, and in ending each problem."""
    if token_budget is None:
        return
    num = before + int(session.outcome.stats["num_tokens"])
    assert num <= max(before, token_budget) + max_in_flight * (1 + len(session.problems))


def resumed(prefix: list[TraceEvent]) -> list[TraceEvent]:
    return [*prefix, TraceEvent("run_resumed", fold_run(prefix).elapsed_s, {"config": {}}, wall_time=2e9)]


def comparable(session: Session) -> list[tuple[Any, ...]]:
    told = [(e.kind, e.at_s, json.dumps(e.data, allow_nan=False), e.problem_id, e.attempt_id) for e in session.events]
    return told  # as the run store keeps it


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    trouble=st.sampled_from([0.0, 0.2, 1.0]),
    slowness_s=st.sampled_from([0.0, 0.3, 10.0]),
    num_problems=st.integers(1, 4),
    attempts=st.integers(1, 6),
    max_in_flight=st.one_of(st.integers(1, 4), st.integers(5, 40)),
    budget_s=st.sampled_from([0.0, 0.5, 5.0, 60.0]),
    tokens_per_s=st.sampled_from([None, 2.0, 500.0]),
    token_budget=st.sampled_from([None, None, 1, 20, 100, 1000]),
    checks=st.lists(st.sampled_from(CHECKS), max_size=3, unique=True),
    second_round=st.integers(0, 3),
    selector=st.sampled_from([*SELECTORS]),
    stop=st.sampled_from([*STOP_RULES]),
    weighs_worth=st.booleans(),
    cut=st.floats(0, 1),
)
def test_every_run_ends_repeats_and_can_be_resumed(
    seed: int, trouble: float, slowness_s: float, num_problems: int, attempts: int, max_in_flight: int,
    budget_s: float, tokens_per_s: float | None, token_budget: int | None, checks: list[str], second_round: int,
    selector: str, stop: str, weighs_worth: bool, cut: float,
) -> None:  # fmt: skip
    script, behaviour = scripted(seed, trouble, slowness_s)
    config = TriadConfig(
        attempts=attempts, pillars=("code", "reasoning"), checks=tuple(checks), second_round=second_round,
        weighs_worth=weighs_worth,
    )  # fmt: skip
    problems = [Problem(f"p{i}", "?", AnswerKind(low=0, high=9)) for i in range(num_problems)]

    def run(budget_s: float, before: list[TraceEvent] | None = None) -> Session:
        return drive(
            script, policy=TriadPolicy(make_selector(selector), make_stop_rule(stop), config), budget_s=budget_s,
            before=before or (), problems=problems, behaviour=behaviour, attempts=attempts,
            max_in_flight=max_in_flight, tokens_per_s=tokens_per_s, token_budget=token_budget, stretch=2.0,
            weigh=weight_of, config=AttemptConfig(MAX_TOKENS, max_programs=2),
        )  # fmt: skip

    first = run(budget_s)
    check_triad(first, config)
    check_tokens(first, token_budget, max_in_flight, 0)
    assert comparable(first) == comparable(run(budget_s)), "the same seed, the same trace"

    prefix = first.events[: 1 + round(cut * (len(first.events) - 1))]
    kept = fold_run(prefix)
    again = run(60.0, resumed(prefix))
    check_triad(again, config)
    spent = sum(attempt.num_tokens for item in kept.problems.values() for attempt in item.attempts)
    check_tokens(again, token_budget, max_in_flight, spent)
    for key, before in kept.problems.items():
        assert again.record.problems[key].attempts[: len(before.attempts)] == before.attempts


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    trouble=st.sampled_from([0.0, 0.2]),
    name=st.sampled_from(["fixed", "vote", "prometheus"]),
    cured=st.sets(st.sampled_from(FAULTS)),
    selector=st.sampled_from([*SELECTORS]),
    stop=st.sampled_from([*STOP_RULES]),
    attempts=st.integers(1, 6),
    max_in_flight=st.integers(1, 9),
    cut=st.floats(0, 1),
)
def test_the_other_policies_with_pillars_in_turn(
    seed: int, trouble: float, name: str, cured: set[str], selector: str, stop: str, attempts: int, max_in_flight: int,
    cut: float,
) -> None:  # fmt: skip
    script, behaviour = scripted(seed, trouble, 0.3)
    pillars, chosen = ("code", "reasoning"), make_selector(selector)
    policies: dict[str, Policy] = {
        "fixed": FixedPolicy(attempts, pillars, 0.8, chosen),
        "vote": VotePolicy(attempts, pillars, 0.8, chosen, make_stop_rule(stop)),
        "prometheus": PrometheusPolicy(Faults(**{fault: fault not in cured for fault in FAULTS}), attempts),
    }

    def run(before: list[TraceEvent] | None = None) -> Session:
        return drive(
            script, policy=policies[name], budget_s=100.0, before=before or (), behaviour=behaviour, attempts=attempts,
            problems=[Problem(f"p{i}", "?", AnswerKind(low=0, high=9)) for i in range(2)], max_in_flight=max_in_flight,
            config=AttemptConfig(MAX_TOKENS, max_programs=2),
        )  # fmt: skip

    first = run()
    again = run(resumed(first.events[: 1 + round(cut * (len(first.events) - 1))]))
    for item in (*first.record.problems.values(), *again.record.problems.values()):
        lost = any(attempt.failure == "generator_error" for attempt in item.attempts)
        if name == "fixed" and not lost and item.stop_reason == "all attempts finished":
            whole = Counter(a.pillar for a in item.attempts if a.answer is not None or a.failure not in CUT_OFF)
            assert (whole["code"], whole["reasoning"]) == ((attempts + 1) // 2, attempts // 2)
