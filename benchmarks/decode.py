"""Decode throughput of RyanStream: B attempts of one prompt, N new tokens each, greedy, end-of-text ignored.

usage: decode.py MODEL [--precision w8a8] [--attempts 1,16,32] [--new 128] [--repeat 5]
MODEL is a name of `mathlete models list` or a path. Prints one JSON line per batch size and repeat:
tokens_per_s counts new tokens over the whole request (prefill of the shared prompt included), decode_tokens_per_s
only from the first new token on. weight_gb_per_s and gop_per_s say what the decode steps drew from memory and did in
int8 products; the last line holds this machine's own ceilings for both, measured with the same number of threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from mathlete.core.generation import Message, SamplingParams
from mathlete.generators.ryanstream import chat_ids
from mathlete.model_store.store import DEFAULT_MODEL, ModelStore
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import LoadedEngine, load_engine
from mathlete.ryanstream.machine import available_cores
from mathlete.ryanstream.model.native.kernels import NativeKernels, load_kernels

PROBLEM = "Solve the problem: find the remainder when 2^100 is divided by 7. " * 9


def main() -> None:
    """Parse the command line, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--precision", default="w8a8")
    parser.add_argument("--attempts", default="1,16,32")
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    store = ModelStore()
    config = EngineConfig(precision=args.precision, max_running=64)
    loaded = load_engine(store.ensure(args.model).path, store.cache_dir, config, lambda what, done, total: None)
    prompt = chat_ids(loaded.tokenizer, [Message("user", PROBLEM)])
    sizes = [int(size) for size in args.attempts.split(",")]
    run(loaded, prompt, 1, 8)
    speeds: dict[int, list[float]] = {size: [] for size in sizes}
    for repeat in range(args.repeat):
        for size in sizes:
            figures = run(loaded, prompt, size, args.new)
            speeds[size].append(figures["decode_tokens_per_s"])
            row = {"engine": "ryanstream", "precision": args.precision, "repeat": repeat, **figures}
            print(json.dumps(row), flush=True)
    medians = {size: round(statistics.median(values), 1) for size, values in speeds.items()}
    print(json.dumps({"median_decode_tokens_per_s": medians, "kernels": loaded.kernels, **ceilings()}))


def run(loaded: LoadedEngine, prompt: list[int], size: int, new: int) -> dict[str, float]:
    """Time `size` attempts of `new` tokens. The prompt is in the cache from the second run on, as among siblings."""
    engine, shape = loaded.engine, loaded.config
    for i in range(size):
        engine.add(str(i), prompt, SamplingParams(temperature=0, max_tokens=new, ignore_eos=True))
    start = time.perf_counter()
    first = 0.0
    num_tokens = num_late = 0
    while engine.has_work:
        outputs = engine.step()
        num_tokens += len(outputs)
        if first:
            num_late += len(outputs)
        elif len(outputs) == size:
            first = time.perf_counter()
    end = time.perf_counter()
    layer = shape.hidden_size * (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    layer += shape.num_heads * shape.head_dim * shape.hidden_size + 3 * shape.hidden_size * shape.intermediate_size
    weights = shape.num_layers * layer + shape.vocab_size * shape.hidden_size
    steps_s = num_late / size / (end - first)
    return {
        "attempts": size,
        "new_tokens": num_tokens,
        "tokens_per_s": round(num_tokens / (end - start), 1),
        "decode_tokens_per_s": round(num_late / (end - first), 1),
        "weight_gb_per_s": round(weights * steps_s / 1e9, 1),
        "gop_per_s": round(2 * weights * size * steps_s / 1e9),
    }


def ceilings() -> dict[str, float]:
    """What the machine can do: reading memory (a sum over 1 GiB), int8 products on weights that stay in the cache."""
    torch.set_num_threads(available_cores())
    big = torch.ones(1 << 28, dtype=torch.float32)
    found = {"read_gb_per_s": round(big.nbytes / best(lambda: big.sum()) / 1e9, 1)}
    store = ModelStore()
    kernels = load_kernels(store.cache_dir / "kernels")
    if isinstance(kernels, NativeKernels):
        rows, width = 28, 1024
        packed, scales = kernels.pack_int8(torch.randn(512, width))
        x = kernels.quantize(torch.randn(rows, width))
        seconds = best(lambda: [kernels.gemm_int8(x, packed, scales, None) for _ in range(200)]) / 200
        found["int8_gop_per_s"] = round(2 * rows * width * 512 / seconds / 1e9)
    return found


def best(work: object, repeat: int = 7) -> float:
    """Least seconds of several calls."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()  # type: ignore[operator]
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
