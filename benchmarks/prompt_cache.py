"""Time to the first token with a system prompt that an earlier run has kept on disk, and with one that is computed.

usage: prompt_cache.py [MODEL] [--system 300] [--question 60] [--repeat 7]
Every repeat starts with an empty KV cache, as a new run does (the weights stay loaded), once without and once with
the prompt cache; the time with it includes reading the file. Prints one JSON object with the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from mathlete.core.generation import SamplingParams
from mathlete.model_store.store import ModelStore
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.kv_cache import blocks_for
from mathlete.ryanstream.loading import load_engine
from mathlete.ryanstream.prompt_cache import PromptCache, PromptCacheKey
from mathlete.ryanstream.runner import ModelRunner
from mathlete.ryanstream.scheduler import SchedulerConfig

MAX_LEN = 4096


def main() -> None:
    """Parse the command line, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="0.5b")
    parser.add_argument("--system", type=int, default=300)
    parser.add_argument("--question", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()
    store = ModelStore()
    config = EngineConfig(max_model_len=MAX_LEN)
    loaded = load_engine(store.ensure(args.model).path, store.cache_dir, config, lambda what, done, total: None)
    key = PromptCacheKey("benchmark", "", "", "")
    with tempfile.TemporaryDirectory() as folder:
        without: list[float] = []
        kept: list[float] = []
        for repeat in range(args.repeat + 1):
            cache = PromptCache(Path(folder), key)
            times = [first_token_s(loaded.engine.runner, args, repeat, given) for given in (None, cache)]
            if repeat:  # the first one stores the prompt
                without.append(times[0])
                kept.append(times[1])
        num_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
    medians = statistics.median(without), statistics.median(kept)
    print(
        json.dumps(
            {
                "system_tokens": args.system,
                "question_tokens": args.question,
                "first_token_ms_computed": round(1000 * medians[0], 1),
                "first_token_ms_kept": round(1000 * medians[1], 1),
                "part": round(medians[1] / medians[0], 3),
                "stored_bytes": num_bytes,
                "repeats": args.repeat,
            }
        )
    )


def first_token_s(runner: ModelRunner, args: argparse.Namespace, repeat: int, cache: PromptCache | None) -> float:
    """Seconds from the request's arrival at an empty KV cache to its first token."""
    limits = SchedulerConfig(max_model_len=MAX_LEN)
    engine = Engine(runner, blocks_for(MAX_LEN), [], config=limits, prompt_cache=cache)
    system = [1000 + (7 * i) % 5000 for i in range(args.system)]
    prompt = [*system, *(2000 + 31 * repeat + i for i in range(args.question))]
    start = time.perf_counter()
    engine.add("r", prompt, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True), persist_prefix=len(system))
    while engine.has_work:
        engine.step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
