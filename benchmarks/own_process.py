"""What a process of its own costs the embedded engine: the same attempts in this process and in another, in turn.

    python benchmarks/own_process.py 0.5b --threads 2 --rounds 4

Both engines are loaded, one works at a time. Prints seconds and processor seconds (of both processes) of each round,
and the median difference of a token, as JSON. The texts must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from mathlete.compose import LoadedGenerator
from mathlete.core.generation import Finished, GenerateRequest, Message, SamplingParams
from mathlete.core.protocols import Generator
from mathlete.generators.child import ChildGenerator
from mathlete.model_store.progress import ignore_progress
from mathlete.run_config import EngineSpec, RunConfig
from mathlete.session.engine_loading import load_engine

CHAT = (Message("user", "How many positive integers below 1000 are divisible by 7 and not by 5? Think step by step."),)


def cpu_s(generator: Generator) -> float:
    """Processor time of this process, and of the generator's own where it has one."""
    times = os.times()
    total = times.user + times.system
    if isinstance(generator, ChildGenerator):
        fields = Path(f"/proc/{generator.pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return total


def write(generator: Generator, num_attempts: int, num_tokens: int) -> tuple[tuple[float, float], dict[str, str]]:
    """Seconds and processor seconds that all attempts take together, and their texts."""
    texts: dict[str, str] = {}
    start_s, start_cpu_s = time.perf_counter(), cpu_s(generator)
    for i in range(num_attempts):
        sampling = SamplingParams(max_tokens=num_tokens, seed=i, ignore_eos=True)
        generator.submit(GenerateRequest(str(i), CHAT, sampling, group="g"))
    while len(texts) < num_attempts:
        for event in generator.events(0.05):
            if isinstance(event, Finished):
                texts[event.request_id] = event.completion.text
    return (time.perf_counter() - start_s, cpu_s(generator) - start_cpu_s), texts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--attempts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    config = RunConfig(
        "evaluate", None, asked.model, 600.0, threads=asked.threads, max_in_flight=asked.attempts, max_tokens=512
    )
    loaded: dict[str, LoadedGenerator] = {
        name: load_engine(EngineSpec(name, "ryanstream", asked.model, own_process=own), config, ignore_progress)
        for name, own in (("inside", False), ("own_process", True))
    }
    try:
        num = asked.attempts * asked.tokens
        rounds: list[dict[str, tuple[float, float]]] = []
        for i in range(-1, asked.rounds):  # the first warms both up
            order = list(loaded) if i % 2 else list(loaded)[::-1]
            done = {name: write(loaded[name].generator, asked.attempts, asked.tokens) for name in order}
            assert done["inside"][1] == done["own_process"][1], "the texts differ"
            if i >= 0:
                rounds.append({name: spent for name, (spent, _) in done.items()})
    finally:
        for one in loaded.values():
            one.close()
    extra = [
        statistics.median(1e6 * (one["own_process"][i] - one["inside"][i]) / num for one in rounds) for i in range(2)
    ]
    told = {
        "model": asked.model,
        "attempts": asked.attempts,
        "tokens_each": asked.tokens,
        "threads": asked.threads,
        "rounds_s_and_cpu_s": [{name: [round(value, 3) for value in one[name]] for name in one} for one in rounds],
        "cpu_us_per_token": {
            name: round(1e6 * statistics.median(one[name][1] for one in rounds) / num) for name in loaded
        },
        "median_extra_us_per_token": round(extra[0], 1),
        "median_extra_cpu_us_per_token": round(extra[1], 1),
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
