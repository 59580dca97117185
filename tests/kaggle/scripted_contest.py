"""A contest with a scripted engine where the model would be, in this process or as one of its own.

As a script it is the process of an entrant whose engine is in yet another process. MATHLETE_TEST_TOKEN_S is the time a
token takes, MATHLETE_TEST_LOAD_S the time the engine takes to load.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from mathlete.compose import LoadedGenerator, build_sandbox, load_in_child
from mathlete.core.generation import GenerateRequest, GeneratorEvent
from mathlete.generators.scripted import CAPABILITIES, Reply, ScriptedGenerator
from mathlete.kaggle.contest_run import Contest
from mathlete.kaggle.entrant_process import encode_contest, run_encoded
from mathlete.run_config import RunConfig

PROGRAM = "Let me compute it.\n```python\nprint({sum})\n```\n"


def script(request: GenerateRequest) -> Reply:
    """Adds the numbers of the statement: with a program, then a box with what it printed; at once for "What are"."""
    token_s = float(os.environ.get("MATHLETE_TEST_TOKEN_S", "0"))
    asked = request.messages[-1].content.rpartition("What ")[2]
    numbers = [int(number) for number in re.findall(r"\d+", asked)]
    if request.continuation or not numbers or asked.startswith("are"):
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
    make_sandbox = given.pop("make_sandbox", build_sandbox)
    config = RunConfig("contest", None, "scripted", budget_s, **given)  # type: ignore[arg-type]
    return Contest(config, num_problems, folder / "runs", run_id, load, make_sandbox)  # type: ignore[arg-type]


def load_here(report: Callable[[str, int, int], None]) -> LoadedGenerator:
    """What the engine's own process calls."""
    time.sleep(float(os.environ.get("MATHLETE_TEST_LOAD_S", "0")))
    return LoadedGenerator(ScriptedGenerator(script), "scripted", capabilities=CAPABILITIES)


def load_in_own_process(config: RunConfig, console: Console) -> LoadedGenerator:
    """The scripted engine in a process of its own."""
    return load_in_child("scripted_contest:load_here", (), "the script", lambda what, done, total: None)


def command(contest: Contest, port: int) -> list[str]:
    """An entrant's process with the scripted engine, for a rehearsal."""
    return [sys.executable, __file__, encode_contest(contest, port)]


def write_csv(path: Path, num: int = 3, *, labels: bool = True) -> Path:
    """Sums to be found; every third label is wrong."""
    rows = [f"p{i},What is {i} + {10 * i}?" + (f",{11 * i + (i % 3 == 2)}" if labels else "") for i in range(num)]
    path.write_text("\n".join(["id,problem" + (",answer" if labels else ""), *rows, ""]), encoding="utf-8")
    return path


if __name__ == "__main__":
    run_encoded(sys.argv[1], load_in_own_process)
