"""What workers load in tests; importable there since this folder is on their path."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from rich.console import Console

from mathlete.compose import LoadedGenerator
from mathlete.core.errors import ModelError
from mathlete.core.generation import GenerateRequest
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.run_config import RunConfig

TOKEN_S = 0.004


def script(request: GenerateRequest) -> Reply:
    """Adds the two numbers of the statement; wrong by one for one seed in three."""
    first, second = map(int, re.findall(r"\d+", request.messages[-1].content)[:2])
    wrong = request.sampling.seed % 3 == 0
    answer = first + second + wrong
    steps = " ".join(f"Step {i} of seed {request.sampling.seed}." for i in range(8))
    return Reply.saying(f"{steps} The answer is \\boxed{{{answer}}}.", token_s=TOKEN_S)


def load(config: RunConfig, console: Console) -> LoadedGenerator:
    """A scripted engine, or what a file in the folder `MATHLETE_TEST_FAULTS` is called; each is for one worker."""
    folder = os.environ.get("MATHLETE_TEST_FAULTS")
    fault = None if folder is None else _take_fault(Path(folder))
    if fault == "refused":
        raise ModelError("there is no model on this host")
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "late":
        time.sleep(2)
    return LoadedGenerator(ScriptedGenerator(script), "scripted", tokens_per_s=100.0)


def _take_fault(folder: Path) -> str | None:
    for path in sorted(folder.glob("*.fault")):
        try:
            path.rename(path.with_suffix(".taken"))
        except FileNotFoundError:  # another worker has taken it
            continue
        return path.name.split(".")[0].split("-")[0]
    return None


def refuse(config: RunConfig, console: Console) -> LoadedGenerator:
    raise ModelError("there is no model on this host")


def break_down(config: RunConfig, console: Console) -> LoadedGenerator:
    """Breaks when it is asked for its first token."""

    class Breaking(ScriptedGenerator):
        def events(self, timeout_s: float):  # type: ignore[no-untyped-def]
            raise RuntimeError("the bus fell off")

    return LoadedGenerator(Breaking(script), "breaking", tokens_per_s=100.0)
