"""Recorded problems that are made up: answers, lengths and seconds drawn from a seed."""

from __future__ import annotations

import random
from typing import Any

from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.lab.recorded import RecordedProblem


def attempt(problem_id: str, index: int, answer: str | None, **fields: Any) -> Attempt:
    told: dict[str, Any] = {"num_tokens": 100, "elapsed_s": 2.0, "failure": None if answer else "no_answer"}
    told |= fields
    pillar = told.pop("pillar", "code")
    return Attempt(f"{problem_id}#{index}", problem_id, index, pillar, index, 0.8, answer, None, (), **told)


def problem(
    name: str, answers: list[str | None], gold: str = "7", group: str | None = None, **fields: Any
) -> RecordedProblem:
    attempts = tuple(attempt(name, i, answer, **fields) for i, answer in enumerate(answers))
    correct = tuple(answer == "7" for answer in answers)
    return RecordedProblem(Problem(name, f"What is {name}?"), "7", name, attempts, correct)


def pool(num_problems: int, num_attempts: int, seed: int = 0) -> list[RecordedProblem]:
    """The first are easy, the last hard; attempts take 100 tokens and 10 s on average."""
    rng, made = random.Random(seed), []
    for number in range(num_problems):
        name, chance = f"p{number}", 0.95 - 0.8 * number / max(1, num_problems - 1)
        attempts, correct = [], []
        for index in range(num_attempts):
            answer = "7" if rng.random() < chance else rng.choice((None, "1", "2", "3"))
            length = rng.lognormvariate(0, 0.5)
            attempts.append(attempt(name, index, answer, num_tokens=1 + round(100 * length), elapsed_s=10 * length))
            correct.append(answer == "7")
        problem_ = Problem(name, f"What is {name}?" * (number % 5 + 1))
        made.append(RecordedProblem(problem_, "7", f"g{number // 2}", tuple(attempts), tuple(correct)))
    return made
