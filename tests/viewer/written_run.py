"""A run that is written event by event, as a session writes it, while somebody watches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mathlete.cic.majority import Majority
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.problem import Problem
from mathlete.core.trace import TraceEvent, encode, encode_ending, encode_problem
from mathlete.lab.run_store import RunStore

HOSTILE = "<script>alert(1)</script> \u202egnp.exe\u202c \x00 <img src=x onerror=alert(2)> '\"&lt; $x^2$"
DIVISORS = Problem("divisors", "How many positive whole-number divisors does $196 = 2^2 \\cdot 7^2$ have?")
BOLTS = Problem("bolts", "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total?")


def make_attempt(problem: Problem, index: int, answer: str | None, text: str) -> Attempt:
    turn = Turn(text, num_tokens=40, entropies=(0.1, 0.5, 0.2))
    return Attempt(
        id=f"{problem.id}#{index}",
        problem_id=problem.id,
        index=index,
        pillar="code",
        seed=index,
        temperature=0.8,
        answer=answer,
        answer_source=None if answer is None else "boxed",
        turns=(turn,),
        num_tokens=40,
        elapsed_s=2.0,
        failure="no_answer" if answer is None else None,
    )


@dataclass
class Writer:
    """Writes the events of a run, each later than the one before."""

    store: RunStore
    at_s: float = 0.0

    def start(self, *problems: Problem, **config: object) -> None:
        self.say("run_started", {"config": config, "problems": [encode_problem(item) for item in problems]})

    def open(self, problem: Problem) -> None:
        self.say("problem_opened", {"budget_s": 60.0}, problem.id)

    def attempt(self, problem: Problem, index: int, answer: str | None, text: str = "So $\\boxed{9}$.") -> Attempt:
        made = make_attempt(problem, index, answer, text)
        told = {"index": index, "pillar": "code", "seed": index, "temperature": 0.8, "round": 1}
        self.say("attempt_started", told, problem.id, made.id)
        for turn in made.turns:
            self.say("turn_finished", {"turn": encode(turn)}, problem.id, made.id)
        self.say("attempt_finished", {"attempt": encode_ending(made)}, problem.id, made.id)
        return made

    def finish(self, problem: Problem, pool: list[Attempt], gold: str | None = None) -> None:
        selection = Majority().select(problem, pool)
        self.say("problem_finished", {"selection": encode(selection), "reason": "all attempts finished"}, problem.id)
        if gold is not None:
            self.say("gold_revealed", {"gold": gold, "group": problem.id}, problem.id)

    def end(self, reason: str = "complete") -> None:
        self.say("run_finished", {"reason": reason, "seconds": self.at_s, "stats": {}})

    def say(self, kind: str, data: dict, problem_id: str | None = None, attempt_id: str | None = None) -> None:
        self.at_s += 1.0
        event = TraceEvent(kind, self.at_s, data, problem_id, attempt_id, 1_764_096_000.0 + self.at_s)
        self.store.append(event)


def create(folder: Path, run_id: str = "r1") -> RunStore:
    path = folder / run_id / "run.sqlite"
    path.parent.mkdir(parents=True)
    return RunStore.create(path)


def write_steps(store: RunStore, hostile: bool = False) -> Iterator[str]:
    """A whole run of two problems; pauses after each step and says what it was."""
    divisors = replace(DIVISORS, statement=f"{DIVISORS.statement} {HOSTILE}") if hostile else DIVISORS
    text = HOSTILE if hostile else "The number is $(2+1)(2+1) = \\boxed{9}$."
    writer = Writer(store)
    writer.start(divisors, BOLTS, model="scripted", command="mathlete solve")
    yield "started"
    writer.open(divisors)
    first = writer.attempt(divisors, 0, "9", text)
    yield "one attempt"
    second = writer.attempt(divisors, 1, "9", text)
    yield "two attempts"
    writer.finish(divisors, [first, second], "9")
    yield "one problem"
    writer.open(BOLTS)
    third = writer.attempt(BOLTS, 0, "4", "It takes \\boxed{4}.")
    writer.finish(BOLTS, [third], "3")
    yield "two problems"
    writer.end()
    yield "over"


def write_whole(folder: Path, run_id: str = "r1", hostile: bool = False) -> Path:
    """A finished run; its store's path."""
    with create(folder, run_id) as store:
        for _ in write_steps(store, hostile):
            pass
        return store.path
