"""Eager against `torch.compile` for the elementwise paths of the plain-torch path, at the 1.5B model's shapes.

usage: compiled_paths.py [--rows 32,1] [--repeat 9] [--threads 2]
Prints one JSON line a path and number of rows: seconds of the first call, which compiles, and median microseconds of
both, taken in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.ops_compiled import CompiledOps, add_all, norm_as, swiglu_as
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rotary import rotary_tables

QWEN = ModelConfig(
    architecture="qwen2", vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_layers=28, num_heads=12,
    num_kv_heads=2, head_dim=128, rms_norm_eps=1e-6, rope_theta=1e6, attention_bias=True, tie_word_embeddings=True,
    max_positions=32768,
)  # fmt: skip
CALLS = 50


def main() -> None:
    """Parse the command line, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="32,1")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tables = rotary_tables(4096, QWEN.head_dim, QWEN.rope_theta)
    compiled, eager = CompiledOps(QWEN, tables), TorchOps(QWEN, tables)
    pairs: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "norm": (norm_as, compiled._norm_as),
        "swiglu": (swiglu_as, compiled._swiglu_as),
        "residual": (add_all, compiled._add_all),
        "rotary": (eager._rotate, compiled._rotate),
    }
    with torch.inference_mode():
        for num_rows in map(int, args.rows.split(",")):
            for name, pair in pairs.items():
                row = compare(*pair, arguments(name, num_rows), args.repeat)
                print(json.dumps({"path": name, "rows": num_rows, "threads": args.threads, **row}), flush=True)


def arguments(name: str, num_rows: int) -> tuple[Any, ...]:
    """What the path is called with in a step of `num_rows` rows."""
    hidden = torch.randn(num_rows, QWEN.hidden_size)
    match name:
        case "norm":
            return hidden, torch.rand(QWEN.hidden_size), QWEN.rms_norm_eps, torch.bfloat16
        case "swiglu":
            return torch.randn(num_rows, 2 * QWEN.intermediate_size), torch.bfloat16
        case "residual":
            return hidden.bfloat16(), None, hidden
        case _:
            return torch.randn(num_rows, QWEN.num_heads, QWEN.head_dim), torch.arange(num_rows)


def compare(
    eager: Callable[..., Any], compiled: Callable[..., Any], given: tuple[Any, ...], repeat: int
) -> dict[str, float]:
    """Seconds of the first compiled call, and medians of both in microseconds, taken in turn."""
    start = time.perf_counter()
    first = compiled(*given)
    compile_s = time.perf_counter() - start
    torch.testing.assert_close(first, eager(*given), rtol=1e-2, atol=1e-5)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeat):
        for function, into in zip((eager, compiled), times, strict=True):
            start = time.perf_counter()
            for _ in range(CALLS):
                function(*given)
            into.append((time.perf_counter() - start) / CALLS * 1e6)
    medians = [round(statistics.median(values), 1) for values in times]
    return {"compile_s": round(compile_s, 2), "eager_us": medians[0], "compiled_us": medians[1]}


if __name__ == "__main__":
    main()
