"""What a process of its own costs the embedded engine: the same attempts in this process and in another, in turn.

    python benchmarks/own_process.py 0.5b --threads 2 --rounds 4

Both engines are loaded, one works at a time. Prints seconds and tokens a second of each round, and the mean difference
of a token with its spread, as JSON. The texts must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

from mathlete.compose import LoadedGenerator
from mathlete.core.generation import Finished, GenerateRequest, Message, SamplingParams
from mathlete.core.protocols import Generator
from mathlete.model_store.progress import ignore_progress
from mathlete.run_config import EngineSpec, RunConfig
from mathlete.session.engine_loading import load_engine

CHAT = (Message("user", "How many positive integers below 1000 are divisible by 7 and not by 5? Think step by step."),)


def write(generator: Generator, num_attempts: int, num_tokens: int) -> tuple[float, dict[str, str]]:
    """Seconds that all attempts take together, and their texts."""
    texts: dict[str, str] = {}
    start_s = time.perf_counter()
    for i in range(num_attempts):
        sampling = SamplingParams(max_tokens=num_tokens, seed=i, ignore_eos=True)
        generator.submit(GenerateRequest(str(i), CHAT, sampling, group="g"))
    while len(texts) < num_attempts:
        for event in generator.events(0.05):
            if isinstance(event, Finished):
                texts[event.request_id] = event.completion.text
    return time.perf_counter() - start_s, texts


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
        rounds: list[dict[str, float]] = []
        for i in range(-1, asked.rounds):  # the first warms both up
            order = list(loaded) if i % 2 else list(loaded)[::-1]
            done = {name: write(loaded[name].generator, asked.attempts, asked.tokens) for name in order}
            assert done["inside"][1] == done["own_process"][1], "the texts differ"
            if i >= 0:
                rounds.append({name: round(seconds, 3) for name, (seconds, _) in done.items()})
    finally:
        for one in loaded.values():
            one.close()
    extra = [1e6 * (one["own_process"] - one["inside"]) / num for one in rounds]
    told = {
        "model": asked.model,
        "attempts": asked.attempts,
        "tokens_each": asked.tokens,
        "threads": asked.threads,
        "rounds_s": rounds,
        "tokens_per_s": {name: round(num / statistics.mean(one[name] for one in rounds)) for name in loaded},
        "extra_us_per_token": {"mean": round(statistics.mean(extra), 1), "stdev": round(statistics.stdev(extra), 1)},
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
