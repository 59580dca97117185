"""A contest with a scripted engine where the model would be, in this process or as one of its own.

As a script: `scripted_contest.py --problems N --budget S --out FOLDER --run-id ID --port P`, with what else a rehearsal
gives an entrant. MATHLETE_TEST_TOKEN_S is the time a token takes, MATHLETE_TEST_LOAD_S the time the engine takes to load.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from mathlete.compose import LoadedGenerator
from mathlete.core.generation import GenerateRequest, GeneratorEvent
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.kaggle.contest_run import Contest
from mathlete.run_config import RunConfig

PROGRAM = "Let me compute it.\n```python\nprint({sum})\n```\n"


def script(request: GenerateRequest) -> Reply:
    """Adds the numbers of the statement with a program, then boxes what it printed."""
    token_s = float(os.environ.get("MATHLETE_TEST_TOKEN_S", "0"))
    numbers = [int(number) for number in re.findall(r"\d+", request.messages[-1].content.rpartition("What is")[2])]
    if request.continuation or not numbers:
        return Reply.saying(rf"So the answer is $\boxed{{{sum(numbers)}}}$.", token_s=token_s)
    return Reply.saying(PROGRAM.format(sum=sum(numbers)), token_s=token_s)


def load_scripted(config: RunConfig, console: Console) -> LoadedGenerator:
    """In place of `session.load_generator`."""
    time.sleep(float(os.environ.get("MATHLETE_TEST_LOAD_S", "0")))
    return LoadedGenerator(ScriptedGenerator(script), "scripted")


class BrokenGenerator(ScriptedGenerator):
    """Raises what `failure` gives at each turn, if anything."""

    def __init__(self, failure: Callable[[], BaseException | None]) -> None:
        super().__init__(script)
        self._failure = failure

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        error = self._failure()
        if error is not None:
            raise error
        return super().events(timeout_s)


def contest(folder: Path, *, budget_s: float = 30.0, num_problems: int = 3, **options: object) -> Contest:
    """A contest of the scripted engine."""
    given = {"attempts": 3, "policy": "vote", "max_in_flight": 4, **options}
    load = given.pop("load", load_scripted)
    run_id = given.pop("run_id", None)
    config = RunConfig("contest", None, "scripted", budget_s, **given)  # type: ignore[arg-type]
    return Contest(config, num_problems, folder / "runs", run_id, load)  # type: ignore[arg-type]
