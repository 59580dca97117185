"""vLLM with a worker in a process of its own: `python vllm_worker_child.py FOLDER interrupt|kill`.

In a session of its own. Half-way through two requests it sends an interrupt to its whole process group, or kills its
workers. Prints what became of the requests, and which processes were left behind, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / "ryanstream"), str(Path(__file__).parent)]


def main() -> None:
    from tiny_vllm import load_tiny

    from mathlete.core.errors import EngineError
    from mathlete.core.generation import Completion, Finished, GenerateRequest, Message, SamplingParams

    interrupts: list[int] = []
    signal.signal(signal.SIGINT, lambda signum, frame: interrupts.append(signum))
    generator = load_tiny(Path(sys.argv[1]), distributed_executor_backend="mp")
    workers = [pid for pid in group() if is_worker(pid)]
    chat = (Message("user", "Count."),)
    for name in "ab":
        generator.submit(GenerateRequest(name, chat, SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)))
    done: dict[str, Completion] = {}
    for step in range(2000):
        if step == 10 and sys.argv[2] == "interrupt":
            os.killpg(os.getpgrp(), signal.SIGINT)
        elif step == 10:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        for event in generator.events(0.1):
            if isinstance(event, Finished):
                done[event.request_id] = event.completion
        if len(done) == 2:
            break
    refused = ""
    try:
        generator.submit(GenerateRequest("c", chat, SamplingParams(max_tokens=2)))
    except EngineError as error:
        refused = str(error)
    generator.close()
    generator.close()
    told = {
        "reasons": {name: one.finish_reason for name, one in sorted(done.items())},
        "error": str(done["a"].error),
        "num_tokens": done["a"].usage.output,
        "refused": refused,
        "interrupts": len(interrupts),
        "num_workers": len(workers),
        "left_behind": [pid for pid in group() if is_worker(pid)],
    }
    print(json.dumps(told), flush=True)


def group() -> list[int]:
    """Processes of this session but this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if os.getsid(int(entry.name)) == os.getsid(0):
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def is_worker(pid: int) -> bool:
    """Whether a process is one of vLLM's, and not Python's own that keeps track of shared memory."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return b"resource_tracker" not in command and state != "Z"


if __name__ == "__main__":
    main()
