"""Whatever the model writes, however long it takes: the run ends, in time, with an answer for each problem."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_run import Outcome, crashed, drive, printed

from mathlete.core.errors import EngineError
from mathlete.core.generation import GenerateRequest
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.record import fold_run
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import Reply
from mathlete.triad.attempt_config import AttemptConfig

TEXTS = (
    "```python\nprint(1)\n```\n",
    "```python\nprint(1)",
    "```\n",
    "```text\nx\n```\n",
    r"so $\boxed{7}$.",
    r"so $\boxed{",
    "The answer is 123456789.",
    "The answer is 5.",
    "",
    "\n\n",
    "hm " * 40,
)
OUTPUTS = (printed("7"), printed("no number", 0.5), printed("5", 30.0), crashed())


def scripted(seed: int, trouble: float, slowness_s: float) -> tuple[object, object]:
    """A script and a sandbox whose behaviour depends on the seed and on what is asked, not on when."""

    def script(request: GenerateRequest) -> Reply:
        noise = random.Random(f"{seed} {request.request_id}")
        if noise.random() < trouble / 2:
            raise EngineError(f"{request.request_id} does not fit")
        pieces = tuple(piece for piece in noise.choices(TEXTS, k=noise.randint(0, 4)))
        ends = "error" if noise.random() < trouble else "stop"
        return Reply(
            pieces,
            ends=ends,  # type: ignore[arg-type]
            error="lost" if ends == "error" else None,
            delay_s=noise.choice((0.0, slowness_s)),
            token_s=noise.choice((0.0, slowness_s / 4)),
        )

    def behaviour(code: str) -> Outcome:
        return random.Random(f"{seed} {code}").choice(OUTPUTS)

    return script, behaviour


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    trouble=st.sampled_from([0.0, 0.2, 1.0]),
    slowness_s=st.sampled_from([0.0, 0.3, 10.0]),
    num_problems=st.integers(1, 5),
    attempts=st.integers(1, 6),
    max_in_flight=st.integers(1, 9),
    budget_s=st.sampled_from([0.0, 0.5, 5.0, 60.0]),
    settle=st.booleans(),
    cut=st.floats(0, 1),
)
def test_every_run_ends_and_can_be_resumed(
    seed: int, trouble: float, slowness_s: float, num_problems: int, attempts: int, max_in_flight: int,
    budget_s: float, settle: bool, cut: float,
) -> None:  # fmt: skip
    script, behaviour = scripted(seed, trouble, slowness_s)
    options = {
        "problems": [Problem(f"p{i}", "?", AnswerKind(low=0, high=9)) for i in range(num_problems)],
        "behaviour": behaviour, "attempts": attempts, "max_in_flight": max_in_flight, "settle": settle,
        "config": AttemptConfig(max_tokens=12, max_programs=2),
    }  # fmt: skip
    run = drive(script, budget_s=budget_s, **options)  # type: ignore[arg-type]
    prefix = run.events[: 1 + round(cut * (len(run.events) - 1))]
    trace = [*prefix, TraceEvent("run_resumed", fold_run(prefix).elapsed_s, {"config": {}}, wall_time=2e9)]
    again = drive(script, budget_s=60.0, before=trace, **options)  # type: ignore[arg-type]
    for key, before in fold_run(prefix).problems.items():
        assert again.record.problems[key].attempts[: len(before.attempts)] == before.attempts
