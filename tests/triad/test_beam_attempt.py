"""Beams in the driver: several requests and programs each, every token counted, ended from outside at any time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from scripted_run import FakeClock, FakeRunner, ListSink, Outcome, WatchedGenerator, check, crashed, printed, started
from scripted_run import Session as ScriptedSession

from mathlete.contest.policy import FixedPolicy
from mathlete.core.attempt import Attempt
from mathlete.core.code import CodeLimits
from mathlete.core.errors import EngineError
from mathlete.core.generation import GenerateRequest, Span
from mathlete.core.problem import Problem
from mathlete.core.protocols import StepChecked
from mathlete.core.record import fold_run
from mathlete.core.selection import Evidence, Verdict
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import Reply, Script
from mathlete.proof_sampler.beam import BeamConfig, ProofBeamSearch
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.beam_attempt import BeamAttempt
from mathlete.triad.beam_candidate import Candidate, judgement_of
from mathlete.triad.driver import Driver, DriverConfig
from mathlete.triad.in_flight import live_source
from mathlete.triad.making import AttemptMaker
from mathlete.triad.progress import RunProgress

PROGRAM = "Let us compute this number with a program, then:\n```python\na = 6\n\nprint(a * 7)\n```\n"
FIRST = "We think about it for a while and then we are done.\n\n"


@dataclass
class EqualsFiveIsWrong:
    """A checker that answers at the second poll; of what is not wrong it has `otherwise` to say."""

    waiting: list[tuple[int, str, str]] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    otherwise: Evidence = Evidence("scripted", "2 + 2 = 4", "SUPPORTED")

    def submit(self, check_id: str, text: str, context: str = "") -> None:
        self.asked.append((check_id, text, context))
        self.waiting.append((1, check_id, text))

    def poll(self) -> Sequence[StepChecked]:
        due = [item for item in self.waiting if item[0] <= 0]
        self.waiting = [(left - 1, check_id, text) for left, check_id, text in self.waiting if left > 0]
        return [
            StepChecked(check_id, (Evidence("scripted", text, "REFUTED") if "= 5" in text else self.otherwise,))
            for _, check_id, text in due
        ]

    def cancel(self, check_id: str) -> None:
        self.waiting = [item for item in self.waiting if item[1] != check_id]

    def close(self) -> None:
        self.waiting.clear()


def run(
    script: Script,
    *,
    attempts: int = 1,
    width: int = 4,
    behaviour: Outcome | None = None,
    checker: EqualsFiveIsWrong | None = None,
    config: AttemptConfig | None = None,
    before: Sequence[TraceEvent] = (),
    budget_s: float = 100.0,
    stop_at: int | None = None,
) -> ScriptedSession:
    clock = FakeClock()
    runner, generator = FakeRunner(clock, lambda code: behaviour or printed("42")), WatchedGenerator(script, clock)
    problems = [Problem("p", "How many?")]
    sink = ListSink(list(before) or [started(problems)])
    config = config or AttemptConfig(max_tokens=200)
    beam = BeamConfig(width=width, max_tokens=config.max_tokens, max_total_tokens=width * config.max_tokens)
    seen: list[RunProgress] = []

    def note(progress: RunProgress) -> None:
        seen.append(progress)
        if stop_at is not None and len(seen) == stop_at:
            driver.request_stop()

    maker = AttemptMaker(7, config, beam, checks_steps=checker is not None)
    source = live_source(generator, runner, maker, CodeLimits(), clock.sleep, checker)
    policy = FixedPolicy(attempts=attempts, pillars=("beam",))
    driver = Driver(source, sink, policy, DriverConfig(attempts, 32), on_progress=note, clock=clock)
    earlier = fold_run(sink.events)
    num_before, start_s = len(sink.events), clock.now_s
    outcome = driver.run(problems, budget_s, earlier.problems if before else {}, earlier.elapsed_s)
    session = ScriptedSession(
        problems, sink.events, outcome, generator, runner, seen, clock.now_s - start_s, start_s, num_before, budget_s,
        earlier.elapsed_s,
    )  # fmt: skip
    check(session, attempts, 32)
    assert outcome.stats["num_tokens"] == sum(
        a.num_tokens for a in session.attempts()[len(earlier.problems["p"].attempts) :]
    )
    assert seen[-1].num_tokens == outcome.stats["num_tokens"], "every candidate's tokens count"
    return session


def only(session: ScriptedSession) -> Attempt:
    (attempt,) = session.attempts()
    return attempt


def written(request: GenerateRequest) -> str:
    return "".join(span.text for span in request.continuation)


def three_steps(request: GenerateRequest) -> Reply:
    """A thought, a program, an answer; the children differ in how sure they are, and in their numbers."""
    child = int(request.request_id.split("/")[1].split(".")[2])
    text = written(request)
    if "```output" in text:
        said = f"So the answer is \\boxed{{42}}, says {child}"
    elif "```python" in text:
        said = "\nprint(a * 7)\n```\n"
    else:
        said = f"{child} {PROGRAM}" if "says" in text else f"{FIRST.strip()[:-1]}, says {child}.\n\nx"
    return Reply(Reply.saying(said).pieces, logprobs=(-0.1 * (child + 1),))


def test_steps_programs_and_answers() -> None:
    session = run(three_steps)
    attempt = only(session)
    assert (attempt.answer, attempt.answer_source, attempt.pillar, attempt.failure) == ("42", "boxed", "beam", None)
    assert [turn.code is not None for turn in attempt.turns] == [False, True, False]
    assert attempt.turns[1].tool_text == "```output\n42\n```\n" and "says 0" in attempt.turns[0].text
    names = [request.request_id.split("/")[1] for request in session.generator.requests]
    levels = [list(group) for _, group in itertools.groupby(names, key=lambda name: name.split(".")[0])]
    assert [sum(name.endswith(".0") for name in level) for level in levels] == [4, 4, 4]
    assert len(session.runner.submitted) == 4, "each candidate's program is run"
    assert attempt.features["beams_finished"] == 4.0 and attempt.features["beams_agreeing"] == 1.0
    assert attempt.num_tokens == sum(len(t.logprobs) for t in attempt.turns) + attempt.num_discarded
    assert attempt.num_discarded > attempt.num_tokens / 2


def test_a_program_with_a_blank_line_is_one_step() -> None:
    requests = run(three_steps, width=1).generator.requests
    parts = [r for r in requests if r.request_id.split("/")[1].startswith("1.")]
    assert [r.request_id for r in parts] == ["p#0/1.0.0.0", "p#0/1.0.0.1"]
    assert [r.sampling.stop for r in parts] == [("```\n", "\n\n"), ("```\n",)]
    assert parts[1].continuation[:-1] == parts[0].continuation and written(parts[1]).endswith("a = 6\n\n")
    assert parts[0].sampling.seed != parts[1].sampling.seed


def test_siblings_ask_for_the_same_continuation() -> None:
    for level in "12":
        asked = [r for r in run(three_steps).generator.requests if r.request_id.split("/")[1].startswith(f"{level}.0.")]
        firsts = [r for r in asked if r.request_id.endswith(".0")]
        assert len(firsts) >= 2 and len({r.continuation for r in firsts}) == 1
        assert len({r.sampling.seed for r in asked}) == len(asked)
        assert {r.group for r in asked} == {"p"}


def mostly_wrong(request: GenerateRequest) -> str:
    """Three of four first steps err."""
    child = int(request.request_id.split("/")[1].split(".")[2])
    wrong = f"We find for certain and without any doubt at all that 2 + 2 = 5 ({child}).\n\nx"
    if not request.continuation:
        return wrong if child != 2 else wrong.replace("5", "4")
    return f"So it is \\boxed{{4}} {child}" if "= 4" in written(request) else f"So it is \\boxed{{5}} {child}"


def test_a_refuted_step_does_not_survive() -> None:
    assert only(run(mostly_wrong)).answer == "5", "nobody checks"
    checker = EqualsFiveIsWrong()
    attempt = only(run(mostly_wrong, checker=checker))
    assert attempt.answer == "4" and attempt.features["beam_refuted"] == 3.0 and len(checker.asked) == 4


@pytest.mark.parametrize(
    ("verdicts", "verdict", "detail"),
    [
        ((), "UNKNOWN", ""),
        (("UNKNOWN", "UNKNOWN"), "UNKNOWN", "claim 0: timeout"),
        (("UNKNOWN", "SUPPORTED"), "SUPPORTED", "claim 1: why"),
        (("UNKNOWN", "PROVED", "UNKNOWN"), "SUPPORTED", "claim 1: why"),
        (("PROVED", "UNKNOWN", "REFUTED"), "REFUTED", "claim 2: why"),
    ],
)
def test_what_evidence_comes_to(verdicts: Sequence[Verdict], verdict: Verdict, detail: str) -> None:
    evidence = [
        Evidence("scripted", f"claim {i}", item, *(("timeout",) if item == "UNKNOWN" else (None, 0.0, "why")))
        for i, item in enumerate(verdicts)
    ]
    assert judgement_of(evidence) == (verdict, detail)


def test_a_step_whose_claims_could_not_be_judged_is_not_supported() -> None:
    checker = EqualsFiveIsWrong(otherwise=Evidence("scripted", "2 + 2 = 4", "UNKNOWN", "timeout"))
    session = run(mostly_wrong, checker=checker)
    first = session.record.problems["p"].beam_levels["p#0"][0]
    assert [(item.verdict, item.fate) for item in first.candidates] == [
        ("REFUTED", "refuted"), ("REFUTED", "refuted"), ("UNKNOWN", "kept"), ("REFUTED", "refuted"),
    ]  # fmt: skip
    assert first.candidates[2].detail == "2 + 2 = 4: timeout" and "2 + 2 = 5" in first.candidates[0].detail


def test_a_checker_is_told_what_stands_before_the_step() -> None:
    steps = [f"{(letter * 39 + ' ') * 15}and so on, step {letter} = 1 it is.\n\n" for letter in "abc"]

    def script(request: GenerateRequest) -> str:
        return [*(f"{text}x" for text in steps), "So it is \\boxed{1}."][written(request).count("it is")]

    checker = EqualsFiveIsWrong()
    limits = AttemptConfig(max_tokens=1000)
    run(script, width=1, checker=checker, config=limits)
    assert [text for _, text, _ in checker.asked] == steps
    contexts = [context for _, _, context in checker.asked]
    assert contexts == [f"How many?\n\n{before}" for before in ("", steps[0], steps[0] + steps[1])]
    beam = ProofBeamSearch(BeamConfig(width=1))
    path = tuple(Candidate(beam.expansions()[0], spans=[Span(text)]) for text in [*steps[:1]])
    path += tuple(Candidate(path[0].expansion, path, [Span(text)]) for text in steps[1:])
    last = Candidate(path[0].expansion, path, [Span("d = 1")])
    assert last.context(Problem("p", " How many? ")) == f"How many?\n\n{steps[1]}{steps[2]}", "whole steps, no more"


def test_what_each_level_decided_is_in_the_trace() -> None:
    session = run(three_steps, attempts=2)
    for attempt in session.attempts():
        levels = session.record.problems["p"].beam_levels[attempt.id]
        assert [level.level for level in levels] == [0, 1, 2]
        assert [len(level.candidates) for level in levels] == [4, 4, 4]
        kept = [{item.name for item in level.candidates if item.fate == "kept"} for level in levels]
        assert kept[0] == {"0.0.0", "0.0.1"} == {item.parent for item in levels[1].candidates}
        assert all(item.score is not None for level in levels for item in level.candidates)
        told = sum(item.num_tokens for level in levels for item in level.candidates)
        assert told == attempt.num_tokens, "every token that was sampled is some candidate's"
    kinds = [event.kind for event in session.events if event.attempt_id == "p#0"]
    assert kinds == ["attempt_started", *["beam_level"] * 3, *["turn_finished"] * 3, "attempt_finished"]


def test_one_that_is_made_again_has_its_own_levels_only() -> None:
    events = run(three_steps, attempts=2).events
    crashed = events[: [i for i, event in enumerate(events) if event.kind == "beam_level"][2] + 1]
    begun = fold_run(crashed).problems["p"].beam_levels
    assert sum(map(len, begun.values())) == 3
    record = run(three_steps, attempts=2, before=crashed).record.problems["p"]
    assert [len(record.beam_levels[attempt.id]) for attempt in record.attempts] == [3, 3]


@pytest.mark.parametrize("stop_at", [1, 2, 5, 12, 20, 30, 45])
def test_it_can_be_stopped_at_any_time_and_resumed(stop_at: int) -> None:
    checker = EqualsFiveIsWrong()
    session = run(three_steps, attempts=2, stop_at=stop_at, checker=checker)
    assert not checker.waiting and not session.generator._running
    resumed = run(three_steps, attempts=2, before=session.events)
    assert [a.answer for a in resumed.attempts() if a.failure is None] == ["42", "42"]
    record = fold_run(resumed.events).problems["p"]
    assert record.selection is not None and record.selection.answer == "42"
    assert all(len(record.beam_levels[a.id]) == 3 for a in record.attempts if a.failure is None)


def test_the_clock_ends_it_with_what_is_there() -> None:
    def slow(request: GenerateRequest) -> Reply:
        reply = three_steps(request)
        return Reply(reply.pieces, reply.logprobs, token_s=1.0)

    session = run(slow, budget_s=30.0)
    attempt = only(session)
    assert attempt.failure == "out_of_time" and attempt.turns and attempt.num_tokens > 0


def test_tokens_run_out() -> None:
    attempt = only(run(lambda r: "word " * 300, config=AttemptConfig(max_tokens=60)))
    assert attempt.failure == "length" and attempt.num_tokens <= 4 * 60
    assert only(run(lambda r: "So we stop here.")).failure == "no_answer"
    assert only(run(three_steps, behaviour=crashed(), width=2)).answer == "42"


def test_what_the_generator_refuses_or_loses_ends_only_that_candidate() -> None:
    def refusing(request: GenerateRequest) -> Reply:
        if request.request_id.split("/")[1] in ("0.0.1.0", "1.0.0.0"):
            raise EngineError("too long")
        return Reply.failing("lost") if request.request_id.split("/")[1] == "0.0.3.0" else three_steps(request)

    session = run(refusing)
    assert only(session).answer == "42" and only(session).failure is None
    assert any("its prompt was refused" in warning for warning in session.record.warnings)

    def never(request: GenerateRequest) -> Reply:
        raise EngineError("too long")

    assert only(run(never)).failure == "length"


def test_every_beam_that_ended_is_a_candidate() -> None:
    beam = BeamConfig(width=2, max_tokens=100, max_total_tokens=200)
    attempt = BeamAttempt(Problem("p", "?"), 0, 7, 0.8, 0.0, AttemptConfig(), beam)
    assert attempt.candidates() == [] and len(attempt.next_requests()) == 2
    assert attempt.end(1.0, "interrupted").attempt.failure == "interrupted"
