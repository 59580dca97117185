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
    """A scripted engine, after what `MATHLETE_TEST_FAULTS` (a folder) has for this process, if anything."""
    faults = os.environ.get("MATHLETE_TEST_FAULTS")
    if faults is not None:
        for path in sorted(Path(faults).iterdir()):
            try:
                path.rename(path.with_name(f".{path.name}"))  # one process takes it
            except FileNotFoundError:
                continue
            if path.name.startswith("."):
                continue
            if "refused" in path.name:
                raise ModelError("there is no model on this host")
            if "killed" in path.name:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(float(path.name.partition("slow")[2] or 0))
            break
    return LoadedGenerator(ScriptedGenerator(script), "scripted", tokens_per_s=100.0)
