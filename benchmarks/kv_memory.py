"""Memory of the KV cache for the attempts of one problem: shared, and as it would be without sharing.

usage: kv_memory.py [MODEL] [--attempts 32] [--prompts 64,200] [--new 8]
Runs real attempts on a real engine and counts blocks in its pool while all of them are under way. "Unshared" is
measured too: the same attempts with prompts that differ in their first token. The prompt's part is the blocks that
hold prompt tokens; the last of them, if it is not full, belongs to each attempt alone as soon as it goes on writing.
Prints one JSON object a prompt length.
"""

from __future__ import annotations

import argparse
import json

from mathlete.core.generation import SamplingParams
from mathlete.model_store.store import ModelStore
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.kv_cache import blocks_for
from mathlete.ryanstream.loading import load_engine

TOKENS = range(1000, 1064)  # any ordinary ones


def main() -> None:
    """Parse the command line, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="0.5b")
    parser.add_argument("--attempts", type=int, default=32)
    parser.add_argument("--prompts", default="64,200")
    parser.add_argument("--new", type=int, default=8)
    args = parser.parse_args()
    store = ModelStore()
    lengths = [int(length) for length in args.prompts.split(",")]
    config = EngineConfig(
        max_running=args.attempts,
        max_step_tokens=args.attempts * max(lengths),  # all prompts in one step, so that all attempts are abreast
        max_model_len=max(lengths) + args.new + 1,
    )
    loaded = load_engine(store.ensure(args.model).path, store.cache_dir, config, lambda what, done, total: None)
    for number, length in enumerate(lengths):
        shared = count(loaded.engine, args.attempts, length, args.new, seed=number, same=True)
        alone = count(loaded.engine, args.attempts, length, args.new, seed=number, same=False)
        size = loaded.engine.runner.block_bytes
        row = {
            "attempts": args.attempts,
            "prompt_tokens": length,
            "new_tokens": args.new,
            "block_bytes": size,
            "prompt_bytes_per_attempt": round(shared["prompt"] * size / args.attempts),
            "prompt_bytes_per_attempt_unshared": round(alone["prompt"] * size / args.attempts),
            "prompt_part_of_unshared": round(shared["prompt"] / alone["prompt"], 4),
            "all_bytes_per_attempt": round(shared["all"] * size / args.attempts),
            "all_bytes_per_attempt_unshared": round(alone["all"] * size / args.attempts),
        }
        print(json.dumps({**row, "goal_met": row["prompt_part_of_unshared"] <= 1 / 8}), flush=True)


def count(engine: Engine, attempts: int, length: int, new: int, seed: int, *, same: bool) -> dict[str, int]:
    """Blocks in use just before the attempts end: those that hold prompt tokens, and all."""
    for i in range(attempts):
        first = [2000 + seed if same else 3000 + seed * attempts + i]
        prompt = [*first, *(TOKENS[j % len(TOKENS)] for j in range(length - 1))]
        engine.add(str(i), prompt, SamplingParams(temperature=1.0, max_tokens=new, seed=i, ignore_eos=True))
    counted = {"prompt": 0, "all": 0}
    while engine.has_work:
        running = [output.request for output in engine.step() if output.end is None]
        if len(running) == attempts:
            of_prompts = {block for request in running for block in request.block_ids[: blocks_for(length)]}
            counted = {"prompt": len(of_prompts), "all": len({b for request in running for b in request.block_ids})}
    engine.check_integrity()
    return counted


if __name__ == "__main__":
    main()
