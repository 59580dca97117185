"""Events of a small run, made by hand: two problems, long turns, one attempt cut off."""

from __future__ import annotations

import json
import random
from dataclasses import replace

from mathlete.core.attempt import Attempt, BeamCandidate, BeamLevel, Rewinding, Turn
from mathlete.core.problem import Problem
from mathlete.core.selection import AnswerCluster, Evidence, Selection
from mathlete.core.trace import EventKind, TraceEvent, encode, encode_ending, encode_problem

PROBLEMS = (Problem("p", "How many?"), Problem("q", "How much?"))


def turn(seed: int, num_tokens: int = 200) -> Turn:
    """Long enough to be kept packed."""
    noise = random.Random(seed)
    values = tuple(-noise.random() for _ in range(num_tokens))
    return Turn(f"step {seed}", num_tokens=num_tokens, logprobs=values, entropies=values, top_means=values)


def attempt(problem_id: str, index: int, answer: str | None, pillar: str = "code") -> Attempt:
    check = pillar.endswith("_check")
    return Attempt(
        f"{problem_id}#{index}", problem_id, index, pillar, 7, 0.8, answer, None,
        (turn(index), turn(index + 100)), 400, 1.5, {"mean_entropy": 0.25 * (index + 1)},
        failure=None if answer or check else "no_answer", about=("1",) if check else (),
        evidence=(Evidence("sympy", "1 is right", "SUPPORTED", answer="1"),) if check else (),
    )  # fmt: skip


def run_events(start_s: float = 1_000.0) -> list[TraceEvent]:
    """The whole run: p has three attempts, one of them a check, and an unfinished one; q has one attempt."""
    events = [_event("run_started", 0, config={"command": "evaluate", "model": "small", "attempts": 3},
                     problems=[encode_problem(problem) for problem in PROBLEMS])]  # fmt: skip
    tries = {"p": [attempt("p", 0, "1"), attempt("p", 1, None), attempt("p", 2, None, "sympy_check")],
             "q": [attempt("q", 0, "5")]}  # fmt: skip
    for problem_id, attempts in tries.items():
        events.append(_event("problem_opened", 1, problem_id, budget_s=10.0))
        for item in attempts:
            events.append(_event("attempt_started", 2, problem_id, item.id, index=item.index))
            events += [_event("turn_finished", 3, problem_id, item.id, turn=encode(turn)) for turn in item.turns]
            if item.index == 0:
                rewinding = Rewinding(0, 5, 3, "equation", text="1+1=3")
                level = BeamLevel(0, (BeamCandidate("0.0.0", None, 3, -0.1, "UNKNOWN", "", "kept"),))
                events.append(_event("rewound", 3, problem_id, item.id, rewinding=encode(rewinding)))
                events.append(_event("beam_level", 3, problem_id, item.id, level=encode(level)))
            events.append(_event("attempt_finished", 4, problem_id, item.id, attempt=encode_ending(item)))
        selection = Selection(attempts[0].answer or "", "majority", 0.75, (AnswerCluster("1", 1.0, (attempts[0].id,)),))
        events.append(_event("decision", 5, problem_id, action="stop"))
        events.append(_event("problem_finished", 5, problem_id, selection=encode(selection), reason="settled"))
    events.append(_event("attempt_started", 6, "p", "p#3", index=3))
    events.append(_event("turn_finished", 7, "p", "p#3", turn=encode(turn(9))))
    events.append(_event("warning", 7, message="slow disk"))
    events += [_event("gold_revealed", 8, key, gold=gold, group="base") for key, gold in (("p", "1"), ("q", "6"))]
    events.append(_event("run_finished", 9, reason="complete", seconds=9.0, stats={"num_tokens": 1600}))
    as_stored = [json.loads(json.dumps(event.data)) for event in events]  # tuples are lists there
    return [
        replace(event, data=data, wall_time=start_s + event.at_s) for event, data in zip(events, as_stored, strict=True)
    ]


def _event(kind: EventKind, at_s: float, problem_id: str | None = None, attempt_id: str | None = None,
           **data: object) -> TraceEvent:  # fmt: skip
    return TraceEvent(kind, float(at_s), data, problem_id, attempt_id)
