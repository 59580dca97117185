"""The command line with a scripted generator where the model would be; the sandbox is the real one.

Imported by tests in this process, run as a script by tests that send signals: `scripted_cli.py ARGUMENTS...`.
MATHLETE_TEST_TOKEN_S is the time a token takes, MATHLETE_TEST_LOAD_S the time the model takes to load.
"""

from __future__ import annotations

import os
import time

from rich.console import Console

from mathlete.cli import main
from mathlete.compose import LoadedGenerator
from mathlete.core.generation import GenerateRequest
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.run_config import RunConfig
from mathlete.session import run_session as session

PROGRAM = "Let me compute it.\n```python\nprint(6 * 7)\n```\n"


def script(request: GenerateRequest) -> Reply:
    """Two turns: a program, then a box with what it printed. Later attempts take longer."""
    token_s = float(os.environ.get("MATHLETE_TEST_TOKEN_S", "0"))
    index = int(request.request_id.split("#")[1].split("/")[0])
    text = r"So the answer is $\boxed{42}$." if request.continuation else PROGRAM
    return Reply.saying(text, token_s=token_s * (1 + index))


def load_scripted(config: RunConfig, console: Console) -> LoadedGenerator:
    """In place of `session.load_generator`."""
    console.print("loading the script", highlight=False)
    time.sleep(float(os.environ.get("MATHLETE_TEST_LOAD_S", "0")))
    return LoadedGenerator(ScriptedGenerator(script), "scripted")


if __name__ == "__main__":
    session.load_generator = load_scripted
    main.main()
