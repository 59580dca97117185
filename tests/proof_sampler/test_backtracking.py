"""Going back from dead ends, on a scripted generator and a checker that does as it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from mathlete.core.generation import (
    Completion,
    Finished,
    GenerateRequest,
    Message,
    Rewound,
    SamplingParams,
    Span,
    TokenChunk,
)
from mathlete.core.protocols import StepChecked
from mathlete.core.selection import Evidence
from mathlete.generators.scripted import Reply, Script, ScriptedGenerator
from mathlete.proof_sampler.backtracking import STRICT, BacktrackingConfig, BacktrackingGenerator
from mathlete.proof_sampler.dead_ends import DeadEnd
from mathlete.proof_sampler.equations import EquationTracker
from mathlete.verify.symbolic import SymbolicVerifier

GOOD = "We add: 2 + 2 = 4.\n\nSo it holds for all of them.\n\nThe answer is 4, and that is all there is to say."
BAD = "We add: 2 + 2 = 5.\n\nSo it holds for all of them.\n\nThe answer is 5, and that is all there is to say."


REFUTED = Evidence("scripted", "2 + 2 = 5", "REFUTED", detail="4 is not 5")


@dataclass
class ScriptedChecker:
    """Refutes every text that contains "= 5", `delay` polls after it was asked."""

    delay: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    contexts: list[str] = field(default_factory=list)
    waiting: list[tuple[int, str, str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    closed: int = 0

    def submit(self, check_id: str, text: str, context: str = "") -> None:
        self.contexts.append(context)
        self.asked.append((check_id, text))
        self.waiting.append((self.delay, check_id, text))

    def poll(self) -> Sequence[StepChecked]:
        due = [(check_id, text) for left, check_id, text in self.waiting if left <= 0]
        self.waiting = [(left - 1, check_id, text) for left, check_id, text in self.waiting if left > 0]
        return [
            StepChecked(
                check_id, (Evidence("scripted", "2 + 2 = 5", "REFUTED", detail="4 is not 5"),) * ("= 5" in text)
            )
            for check_id, text in due
        ]

    def cancel(self, check_id: str) -> None:
        self.cancelled.append(check_id)
        self.waiting = [item for item in self.waiting if item[1] != check_id]

    def close(self) -> None:
        self.closed += 1


def bad_until(num_good: int, bad: str = BAD, good: str = GOOD) -> Script:
    """The script errs until it was asked `num_good` times."""
    asked = 0

    def script(request: GenerateRequest) -> str:
        nonlocal asked
        asked += 1
        return bad if asked < num_good else good

    return script


@dataclass
class Heard:
    """All that was told of one request."""

    completion: Completion
    rewound: list[Rewound]
    text: str  # the chunks, with what was taken back taken out
    seeds: list[int]


def run(
    script: Script,
    checker: ScriptedChecker | None,
    config: BacktrackingConfig | None = None,
    equations: EquationTracker | None = None,
    continuation: tuple[Span, ...] = (),
    max_tokens: int = 200,
) -> Heard:
    inner = ScriptedGenerator(script)
    generator = BacktrackingGenerator(inner, checker, config, equations)
    sampling = SamplingParams(max_tokens=max_tokens, seed=7)
    generator.submit(GenerateRequest("a", (Message("user", "?"),), sampling, continuation))
    rewound: list[Rewound] = []
    chunks: list[str] = []
    seeds = [7]
    for _ in range(2000):
        for event in generator.events(0.0):
            if isinstance(event, TokenChunk):
                chunks.append(event.text)
            elif isinstance(event, Rewound):
                rewound.append(event)
                if event.num_dropped:
                    assert len(chunks) - event.num_kept == event.num_dropped
                    assert "".join(chunks[event.num_kept :]) == event.text
                    del chunks[event.num_kept :]
                    seeds.append(inner._running["a"].request.sampling.seed)
            else:
                assert isinstance(event, Finished)
                generator.close()
                return Heard(event.completion, rewound, "".join(chunks), seeds)
    raise AssertionError("it does not end")


def test_a_refuted_step_is_written_again() -> None:
    checker = ScriptedChecker()
    heard = run(bad_until(2), checker)
    assert heard.completion.text == GOOD == heard.text
    (back,) = heard.rewound
    assert (back.reason, back.num_kept, back.text) == ("refuted", 0, "We add: 2 + 2 = 5.\n\nSo")
    assert back.detail == "2 + 2 = 5: 4 is not 5"
    assert heard.completion.usage.discarded == back.num_dropped == 8
    assert len(set(heard.seeds)) == 2 and checker.closed == 1


def test_only_prose_with_an_equation_is_checked() -> None:
    text = "We say nothing.\n\nRun it:\n```python\nx = 5\n\ny = 5\n```\nx = 3 is it.\n\nAnd so on."
    checker = ScriptedChecker()
    heard = run(lambda asked: Reply(tuple(text)), checker)
    assert [asked for _, asked in checker.asked] == ["x = 3 is it.\n\n"] and not heard.rewound
    open_block = (Span("Run it:\n```python\nx = 1\n"),)
    assert not run(lambda asked: "y = 5\n\nz = 5\n\nw = 5", checker, continuation=open_block).rewound


def test_it_goes_back_to_the_step_and_no_further() -> None:
    first = "First we look at x = 1 and y = 2.\n\n"
    heard = run(bad_until(2, first + BAD, first + GOOD), ScriptedChecker())
    (back,) = heard.rewound
    assert back.text == "\n\nWe add: 2 + 2 = 5.\n\nSo" and back.num_kept == 11
    assert heard.completion.text == first + GOOD


@pytest.mark.parametrize(("config", "tries"), [(BacktrackingConfig(), 3), (STRICT, 5)])
def test_after_all_tries_it_is_let_through_and_told(config: BacktrackingConfig, tries: int) -> None:
    heard = run(lambda asked: BAD, ScriptedChecker(), config)
    assert heard.completion.text == BAD == heard.text
    assert [back.num_dropped for back in heard.rewound] == [8] * tries + [0]
    assert heard.rewound[-1].detail.endswith(f"(let through: {tries} tries there were spent)")
    assert heard.completion.usage.discarded == 8 * tries and len(set(heard.seeds)) == tries + 1


def test_a_late_verdict_throws_more_away_and_waiting_for_it_does_not() -> None:
    late = run(bad_until(2), ScriptedChecker(delay=5))
    assert late.completion.text == GOOD and late.completion.usage.discarded == 13
    waited = run(bad_until(2), ScriptedChecker(delay=5), BacktrackingConfig(wait=True))
    assert waited.completion.text == GOOD and waited.completion.usage.discarded == 8


def test_a_verdict_is_waited_for_once_only() -> None:
    """By a clock that only `sleep` moves: two steps with an equation, half a second each, then no more."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    config = BacktrackingConfig(wait=True, wait_s=0.5)
    generator = BacktrackingGenerator(
        ScriptedGenerator(lambda asked: GOOD.replace("So it holds", "So 1 = 1 holds")),
        ScriptedChecker(delay=100_000),
        config,
        clock=lambda: now[0],
        sleep=sleep,
    )
    generator.submit(GenerateRequest("a", (Message("user", "?"),), SamplingParams(seed=7)))
    while not any(isinstance(event, Finished) for event in generator.events(0.0)):
        assert now[0] < 2.0
    assert 1.0 <= now[0] < 1.1
    generator.close()


def test_a_verdict_after_the_end_changes_nothing() -> None:
    checker = ScriptedChecker(delay=10_000)
    heard = run(lambda asked: BAD, checker)
    assert heard.completion.text == BAD and not heard.rewound
    assert checker.cancelled == [check_id for check_id, _ in checker.asked]


def test_what_was_thrown_away_counts_towards_max_tokens() -> None:
    config = BacktrackingConfig(min_left=1, max_discarded=1.0)
    heard = run(bad_until(3), ScriptedChecker(), config, max_tokens=24)
    assert heard.completion.finish_reason == "length"
    assert len(heard.completion.token_ids) + heard.completion.usage.discarded == 24
    careful = run(bad_until(3), ScriptedChecker(), BacktrackingConfig(min_left=17), max_tokens=24)
    assert "too few tokens would be left" in careful.rewound[0].detail and not careful.rewound[0].num_dropped
    capped = run(bad_until(9), ScriptedChecker(), BacktrackingConfig(max_discarded=0.05))
    assert [back.num_dropped for back in capped.rewound] == [8, 0]
    limited = run(bad_until(9), ScriptedChecker(), BacktrackingConfig(max_rewinds=2))
    assert [back.num_dropped for back in limited.rewound] == [8, 8, 0]


def test_contradictions_loops_and_entropy_lead_back() -> None:
    bad = "We see it, so x = 1. Hence x = 2.\n\nDone with it."
    good = "We see it, so x = 1. Hence y = 2.\n\nDone with it."
    heard = run(bad_until(2, bad, good), None, equations=EquationTracker())
    assert [(back.reason, back.detail) for back in heard.rewound] == [("contradiction", "x = 2, but x = 1 before")]
    assert heard.completion.text == good and heard.rewound[0].text.startswith(" Hence x = 2")

    loop = "A first step.\n\n" + "and so on and so forth; " * 30
    heard = run(bad_until(2, loop, good), None)
    assert heard.rewound[0].reason == "repetition" and heard.completion.text.endswith("Done with it.")

    def lost(request: GenerateRequest) -> Reply:
        return Reply(tuple(f"w{i} " for i in range(60)), entropies=(4.0,) if request.sampling.seed == 7 else (0.3,))

    heard = run(lost, None)
    assert [back.reason for back in heard.rewound] == ["entropy"] and heard.rewound[0].num_kept == 0


@pytest.mark.parametrize("script", [bad_until(3), bad_until(9)])
def test_equations_are_followed_piece_by_piece(script: Script) -> None:
    """What is told stays told once, however often it goes back, and text before the request counts but is not told."""
    before = (Span("We begin: 3 + 3 = 7. So n = 1.\n\n"),)
    told = run(script, None, equations=EquationTracker(), continuation=before).rewound
    assert {back.detail.split(" (")[0] for back in told} == {"2 + 2 = 5, but it is 4"}
    assert [bool(back.num_dropped) for back in told] in ([True, True], [True, True, True, False])
    hence = run(
        lambda asked: "Hence n = 2.\n\nSo it is.", None, equations=EquationTracker(), continuation=(Span("so n = 1. "),)
    )
    assert {back.detail.split(" (")[0] for back in hence.rewound} == {"n = 2, but n = 1 before"}


def test_a_step_is_judged_with_all_that_stands_before_it() -> None:
    checker = ScriptedChecker()
    text = "We look at x = 1.\n\nThen y = 2.\n\nDone."
    run(lambda asked: text, checker, continuation=(Span("As before. "),))
    assert [context + asked for context, (_, asked) in zip(checker.contexts, checker.asked, strict=True)] == [
        "?\n\nAs before. We look at x = 1.",
        "?\n\nAs before. We look at x = 1.\n\nThen y = 2.",
    ]


@pytest.mark.parametrize(
    ("asked", "text", "num_rewound"),
    [
        ("What is it?", "We add and so $5\\cdot3=1$.\n\nThat is all.", 1),
        ("What is it modulo 7?", "We add and so $5\\cdot3=1$.\n\nThat is all.", 0),
        ("Let $a * b = a+b+ab$. Find $2 * 3$.", "We put them in: $2 * 3 = 11$.\n\nThat is all.", 0),
        ("What is it?", "In base 8 we compute. Then $5+4=11$.\n\nThat is all.", 0),
        ("What is it?", "Suppose, for contradiction, it is.\n\nThen $2+2=5$.\n\nThat is all.", 0),
        ("What is it?", "A student claims:\n\n$$3+4=8.$$\n\nThat is all.", 0),
        ("What is it?", "We compute:\n\n$$3+4=8.$$\n\nThat is all.", 1),
    ],
)
def test_what_is_right_where_it_stands_is_let_alone(asked: str, text: str, num_rewound: int) -> None:
    config = BacktrackingConfig(wait=True, wait_s=60.0, max_rewinds=1)
    generator = BacktrackingGenerator(
        ScriptedGenerator(lambda request: text), SymbolicVerifier(deadline_s=30.0), config, EquationTracker()
    )
    generator.submit(GenerateRequest("a", (Message("user", asked),), SamplingParams(max_tokens=200, seed=7)))
    told: list[Rewound | Finished] = []
    while not any(isinstance(event, Finished) for event in told):
        told += [event for event in generator.events(0.0) if not isinstance(event, TokenChunk)]
    generator.close()
    assert sum(isinstance(event, Rewound) and event.num_dropped > 0 for event in told) == num_rewound


def test_the_same_script_gives_the_same_run() -> None:
    config = BacktrackingConfig(wait=True)
    assert run(bad_until(3), ScriptedChecker(delay=2), config) == run(bad_until(3), ScriptedChecker(delay=2), config)


def test_others_abort_and_go_back_as_before() -> None:
    checker = ScriptedChecker(delay=10_000)
    generator = BacktrackingGenerator(ScriptedGenerator(lambda asked: BAD), checker)
    for name, group in (("a", "x"), ("b", "y")):
        generator.submit(GenerateRequest(name, (Message("user", "?"),), SamplingParams(seed=1), group=group))
    for _ in range(10):
        list(generator.events(0.0))
    generator._followed["b"].dead_end = DeadEnd("refuted", 0, "found before its owner takes it back")
    generator.rewind("b", 3, SamplingParams(seed=2))
    generator.abort(group="x")
    assert len(checker.cancelled) == 2
    ended: dict[str, Completion] = {}
    while len(ended) < 2:
        ended |= {event.request_id: event.completion for event in generator.events(0.0) if isinstance(event, Finished)}
    assert ended["a"].finish_reason == "abort" and ended["b"].text == BAD and ended["b"].usage.discarded == 7
    generator.close()


@pytest.mark.parametrize("given", [{"max_tries": 0}, {"max_discarded": 1.5}, {"min_left": 0}, {"wait_s": 0.0}])
def test_limits_are_checked(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"BacktrackingConfig.{next(iter(given))}"):
        BacktrackingConfig(**given)  # type: ignore[arg-type]
