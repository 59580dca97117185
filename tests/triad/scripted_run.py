"""Drives the driver without a model, a sandbox or a clock, and checks what every trace must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mathlete.cic.majority import Majority
from mathlete.contest.policy import FixedPolicy, VotePolicy
from mathlete.core.attempt import Attempt, Turn, is_check_pillar
from mathlete.core.code import CodeLimits, ToolResult
from mathlete.core.generation import Finished, GenerateRequest, GeneratorEvent
from mathlete.core.policy import Policy
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeDone, StepChecked
from mathlete.core.record import ProblemRecord, RunRecord, fold_run
from mathlete.core.selection import Evidence
from mathlete.core.trace import TraceEvent, decode_attempt, decode_turn, encode_problem
from mathlete.generators.scripted import Script, ScriptedGenerator
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.driver import Driver, DriverConfig, RunOutcome
from mathlete.triad.in_flight import live_source
from mathlete.triad.making import AttemptMaker
from mathlete.triad.progress import RunProgress

MAX_READINGS = 200_000
MAX_STEP_S = 0.3  # a step waits for events at most 0.05 s; a fake clock's readings add up


class FakeClock:
    """Moves when somebody sleeps, and a little with every reading, so that a loop that waits for nothing ends."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.num_readings = 0

    def __call__(self) -> float:
        self.num_readings += 1
        assert self.num_readings < MAX_READINGS, "the run does not end"
        self.now_s += 1e-5
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, 1e-5)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program does, and after how long."""

    result: ToolResult
    after_s: float = 0.0


def printed(text: str, after_s: float = 0.0) -> Outcome:
    return Outcome(ToolResult("ok", f"{text}\n", "", after_s), after_s)


def crashed(stderr: str = "ZeroDivisionError: division by zero\n") -> Outcome:
    return Outcome(ToolResult("error", "", stderr, 0.0))


class FakeRunner:
    """A `CodeRunner` that runs nothing: `behaviour` says what each program does."""

    def __init__(self, clock: FakeClock, behaviour: Callable[[str], Outcome]) -> None:
        self._clock = clock
        self._behaviour = behaviour
        self.running: dict[str, tuple[float, ToolResult]] = {}
        self.submitted: list[tuple[float, str, str]] = []
        self.cancelled: list[str] = []
        self.session_of: dict[str, str | None] = {}  # by run id
        self.ended_sessions: list[str] = []

    def submit(self, run_id: str, code: str, limits: CodeLimits, session: str | None = None) -> None:
        assert run_id not in self.running
        assert session not in self.ended_sessions
        self.session_of[run_id] = session
        now = self._clock()
        self.submitted.append((now, run_id, code))
        outcome = self._behaviour(code)
        self.running[run_id] = (now + outcome.after_s, outcome.result)

    def poll(self) -> Sequence[CodeDone]:
        now = self._clock()
        done = [CodeDone(run_id, result) for run_id, (due, result) in self.running.items() if due <= now]
        for item in done:
            del self.running[item.run_id]
        return done

    def cancel(self, run_id: str) -> None:
        self.cancelled.append(run_id)
        self.running.pop(run_id, None)

    def end_session(self, session: str) -> None:
        self.ended_sessions.append(session)

    def close(self) -> None:
        self.running.clear()


class FakeProver:
    """A `ProofChecker` that runs no Lean: `judge` says what each proof is worth, after so many seconds."""

    def __init__(self, clock: FakeClock, judge: Callable[[str, str], tuple[Evidence, float]]) -> None:
        self._clock = clock
        self._judge = judge
        self.running: dict[str, tuple[float, Evidence]] = {}
        self.submitted: list[tuple[str, str, str]] = []
        self.cancelled: list[str] = []

    def submit(self, check_id: str, statement: str, proof: str) -> None:
        assert check_id not in self.running
        self.submitted.append((check_id, statement, proof))
        evidence, after_s = self._judge(statement, proof)
        self.running[check_id] = (self._clock() + after_s, evidence)

    def poll(self) -> Sequence[StepChecked]:
        due = [check_id for check_id, (due_s, _) in self.running.items() if due_s <= self._clock()]
        return [StepChecked(check_id, (self.running.pop(check_id)[1],)) for check_id in due]

    def cancel(self, check_id: str) -> None:
        self.cancelled.append(check_id)
        self.running.pop(check_id, None)

    def close(self) -> None:
        self.running.clear()


class WatchedGenerator(ScriptedGenerator):
    """A scripted generator that notes when requests come, which are open, and what was aborted."""

    def __init__(self, script: Script, clock: FakeClock, abort_polls: int = 0) -> None:
        """Tell of an abort only after so many calls of `events`, as one behind a network does."""
        super().__init__(script, clock, clock.sleep)
        self._abort_polls = abort_polls
        self._late: list[tuple[int, GeneratorEvent]] = []
        self._watch = clock
        self.open: set[str] = set()
        self.submitted: list[tuple[float, str]] = []
        self.aborted: list[str | None] = []

    def submit(self, request: GenerateRequest) -> None:
        self.submitted.append((self._watch(), request.request_id))
        super().submit(request)
        self.open.add(request.request_id)

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        self._late = [(polls - 1, event) for polls, event in self._late]
        events = [event for polls, event in self._late if polls < 0]
        self._late = [(polls, event) for polls, event in self._late if polls >= 0]
        for event in super().events(timeout_s):
            is_abort = isinstance(event, Finished) and event.completion.finish_reason == "abort"
            if is_abort and self._abort_polls:
                self._late.append((self._abort_polls - 1, event))
            else:
                events.append(event)
        self.open -= {event.request_id for event in events if isinstance(event, Finished)}
        return events

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        self.aborted.append(group)
        super().abort(request_id=request_id, group=group)


@dataclass
class ListSink:
    """A `TraceSink` in memory."""

    events: list[TraceEvent] = field(default_factory=list)

    def append(self, event: TraceEvent) -> None:
        self.events.append(event)


@dataclass
class Session:
    """A driven session and everything that was seen of it."""

    problems: list[Problem]
    events: list[TraceEvent]  # of all sessions, `run_started` first
    outcome: RunOutcome
    generator: WatchedGenerator
    runner: FakeRunner
    progress: list[RunProgress]
    took_s: float
    started_s: float
    num_before: int  # events of earlier sessions
    budget_s: float
    offset_s: float
    prover: FakeProver | None = None

    @property
    def record(self) -> RunRecord:
        return fold_run(self.events)

    @property
    def new_events(self) -> list[TraceEvent]:
        return self.events[self.num_before :]

    def attempts(self, problem_id: str = "p") -> tuple[Attempt, ...]:
        return self.record.problems[problem_id].attempts

    def kinds(self) -> Counter[str]:
        return Counter(event.kind for event in self.new_events)


def started(problems: Sequence[Problem]) -> TraceEvent:
    return TraceEvent("run_started", 0.0, {"config": {}, "problems": [encode_problem(item) for item in problems]})


def drive(
    script: Script,
    *,
    problems: Sequence[Problem] = (Problem("p", "How many?"),),
    behaviour: Callable[[str], Outcome] = lambda code: printed("42"),
    policy: Policy | None = None,
    attempts: int = 4,
    settle: bool = False,
    budget_s: float = 100.0,
    tokens_per_s: float | None = None,
    max_in_flight: int = 32,
    config: AttemptConfig | None = None,
    before: Sequence[TraceEvent] = (),
    abort_polls: int = 0,
    on_step: Callable[[Driver, RunProgress], None] = lambda driver, progress: None,
    judge: Callable[[str, str], tuple[Evidence, float]] | None = None,
    token_budget: int | None = None,
    stretch: float = 1.0,
    weigh: Callable[[Problem], float] = lambda problem: 1.0,
    num_upcoming: int = 0,
) -> Session:
    """Run the driver to its end on scripted parts. `before` is the trace of earlier sessions."""
    clock = FakeClock()
    runner, generator = FakeRunner(clock, behaviour), WatchedGenerator(script, clock, abort_polls)
    sink = ListSink(list(before) or [started(problems)])
    seen: list[RunProgress] = []

    def note(progress: RunProgress) -> None:
        seen.append(progress)
        on_step(driver, progress)

    limits = DriverConfig(attempts, max_in_flight, tokens_per_s, token_budget, stretch)
    policy = policy or (VotePolicy(attempts=attempts) if settle else FixedPolicy(attempts=attempts))
    maker = AttemptMaker(7, config or AttemptConfig())
    prover = None if judge is None else FakeProver(clock, judge)
    source = live_source(generator, runner, maker, CodeLimits(), clock.sleep, prover=prover)
    driver = Driver(source, sink, policy, limits, weigh=weigh, on_progress=note, clock=clock)
    earlier: Mapping[str, ProblemRecord] = fold_run(sink.events).problems if before else {}
    offset_s = fold_run(sink.events).elapsed_s
    num_before, start_s = len(sink.events), clock.now_s
    outcome = driver.run(list(problems), budget_s, earlier, offset_s, num_upcoming=num_upcoming)
    session = Session(
        list(problems),
        sink.events,
        outcome,
        generator,
        runner,
        seen,
        clock.now_s - start_s,
        start_s,
        num_before,
        budget_s,
        offset_s,
        prover,
    )
    check(session, attempts, max_in_flight)
    return session


def check(session: Session, attempts: int, max_in_flight: int) -> None:
    """What holds after every session, whatever the script."""
    _check_end(session)
    _check_times(session)
    _check_attempts(session, attempts, max_in_flight)
    _check_endings(session)


def _check_end(session: Session) -> None:
    assert not session.runner.running
    assert session.prover is None or not session.prover.running
    assert {key for key in session.generator.open if key.split("#")[0] not in session.generator.aborted} == set()
    assert session.took_s <= session.budget_s + MAX_STEP_S
    late = [
        e for e in session.new_events if e.kind == "attempt_started" and e.at_s - session.offset_s > session.budget_s
    ]
    assert not late, "nothing is launched after the end"


def _check_times(session: Session) -> None:
    times = [event.at_s for event in session.events]
    assert times == sorted(times)
    assert all(event.wall_time > 1e9 for event in session.new_events)


def _check_attempts(session: Session, attempts: int, max_in_flight: int) -> None:
    finished_before = {e.attempt_id for e in session.events[: session.num_before] if e.kind == "attempt_finished"}
    open_turns: dict[str, list[Turn]] = {}
    launched: Counter[str] = Counter()
    independent: Counter[str] = Counter()
    for event in session.new_events:
        if event.kind == "decision" and event.data["action"] == "launch":
            launched[event.problem_id or ""] += event.data["n"]
            if event.data["round"] == 1 and not is_check_pillar(event.data["pillar"]):
                independent[event.problem_id or ""] += event.data["n"]
        if event.attempt_id is None:
            continue
        if event.kind == "attempt_started":
            assert event.attempt_id not in finished_before | set(open_turns), "an attempt id is used once"
            assert event.attempt_id == f"{event.problem_id}#{event.data['index']}"
            open_turns[event.attempt_id] = []
            assert len(open_turns) <= max_in_flight
        elif event.kind == "turn_finished":
            open_turns[event.attempt_id].append(decode_turn(event.data["turn"]))
        elif event.kind == "attempt_finished":
            attempt = decode_attempt(event.data["attempt"])
            assert attempt.turns == (), "its turns are in the trace already"
            turns = open_turns.pop(event.attempt_id)
            assert sum(turn.num_tokens for turn in turns) == attempt.num_tokens, "each turn is in the trace"
            found = attempt.answer is not None or any(item.verdict != "UNKNOWN" for item in attempt.evidence)
            assert found or attempt.failure is not None
            assert attempt.answer is None or attempt.failure in {None, "out_of_time", "interrupted"}
            finished_before.add(event.attempt_id)
    assert not open_turns, "an attempt that was started is finished"
    starts = Counter(event.problem_id for event in session.new_events if event.kind == "attempt_started")
    assert starts == launched
    assert all(number <= 2 * attempts for number in independent.values())


def _check_endings(session: Session) -> None:
    ended: set[str | None] = set()
    for event in session.new_events:
        assert event.problem_id is None or event.problem_id not in ended, "nothing follows a problem's end"
        if event.kind == "problem_finished":
            ended.add(event.problem_id)
    for problem in session.problems:
        record = session.record.problems[problem.id]
        assert record.selection is not None, "every problem has an answer"
        assert problem.answer_kind.admits(int(record.selection.answer))
        folded = Majority().select(problem, record.attempts)
        if record.selection.rule != folded.rule:
            continue  # of another selector
        assert (record.selection.answer, record.selection.clusters) == (folded.answer, folded.clusters)
        last = next(row for row in session.progress[-1].problems if row.problem_id == problem.id)
        assert (last.state, last.answer, last.reason) == ("done", record.selection.answer, record.stop_reason)
        assert last.votes == tuple((c.answer, int(c.weight)) for c in folded.clusters)
