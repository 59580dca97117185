"""The NF4 product on a GPU, tiles of several sizes, beside what memory allows and torch's product in bf16.

usage: PYTHONPATH=src python3 benchmarks/nf4_on_gpu.py OUT.json [--device cpu]

Needs torch and Triton, no model. Shapes are products of Qwen2.5's 7B and 72B. `dequantized` makes the weight in bf16
first and leaves the product to torch. A CUDA graph of 20 products is timed, each with a weight of its own so that
none comes from a cache. OUT.json is written after each shape.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from mathlete.ryanstream.model.triton.nf4_matmul import Nf4Tiles, _levels_on, nf4_linear, nf4_matmul

SHAPES = {"7b qkv": (4608, 3584), "7b down": (3584, 18944), "72b gate_up": (59136, 8192), "72b out": (8192, 8192)}
ROWS = (1, 8, 32, 64, 256)
COPIES = 8


@triton.jit
def _dequantize_kernel(packed_ptr, absmax_ptr, levels_ptr, out_ptr, size, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    pairs = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = pairs < size
    packed = tl.load(packed_ptr + pairs, mask=inside, other=0).to(tl.int32)
    scale = tl.load(absmax_ptr + pairs // (BLOCK // 2), mask=inside, other=0.0)
    high = tl.load(levels_ptr + (packed >> 4)) * scale
    low = tl.load(levels_ptr + (packed & 15)) * scale
    both = tl.interleave(high.to(tl.bfloat16), low.to(tl.bfloat16))
    places = tl.program_id(0).to(tl.int64) * 2 * SIZE + tl.arange(0, 2 * SIZE)
    tl.store(out_ptr + places, both, mask=places < 2 * size)


def dequantized(x: Tensor, packed: Tensor, absmax: Tensor) -> Tensor:
    out = torch.empty((packed.shape[0], 2 * packed.shape[1]), dtype=torch.bfloat16, device=x.device)
    size = packed.numel()
    _dequantize_kernel[(triton.cdiv(size, 1024),)](
        packed, absmax, _levels_on(x.device), out, size, SIZE=1024, BLOCK=64
    )
    return F.linear(x, out).float()


def seconds(product: Callable[[int], Tensor], device: str, copies: int) -> float:
    """Of one product: the median over graphs of one product with each weight."""
    product(0)
    if device == "cpu":
        return 0.0
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for copy in range(copies):
            product(copy)
    times = []
    for _ in range(7):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / copies)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    tiny = args.device == "cpu"
    found: dict[str, object] = {}
    tilings = [
        Nf4Tiles(columns, blocks, warps, 4, programs)
        for (columns, warps), blocks, programs in itertools.product(
            ((32, 4), (64, 4), (64, 8), (128, 8)), (2, 4), (528, 1056, 2112)
        )
    ]
    for name, (num_out, width) in SHAPES.items():
        if tiny:
            num_out, width = 70, 320
        copies = max(2, min(COPIES, int(2e9 / (num_out * width))))
        packed = torch.randint(0, 256, (copies, num_out, width // 2), dtype=torch.uint8, device=args.device)
        absmax = torch.rand((copies, num_out, width // 64), device=args.device) * width**-0.5
        num_bytes = packed[0].numel() + 4 * absmax[0].numel()
        best: dict[int, list[tuple[float, dict[str, int]]]] = {}
        for rows in ROWS:
            x = torch.randn((rows, width), device=args.device).to(torch.float32 if tiny else torch.bfloat16)
            twin = nf4_linear(x, packed[0], absmax[0])
            tried = []
            for tiles in tilings[:2] if tiny else tilings:
                try:
                    got = nf4_matmul(x, packed[0], absmax[0], tiles)
                    error = float((got - twin).abs().max() / twin.abs().max())
                    assert error < 1e-4, f"{tiles} is off by {error}"
                    took = seconds(lambda i, x=x, t=tiles: nf4_matmul(x, packed[i], absmax[i], t), args.device, copies)
                    tried.append((took, asdict(tiles)))
                except Exception as problem:
                    print(name, rows, tiles, f"{type(problem).__name__}: {problem}"[:200], flush=True)
            tried.sort(key=lambda pair: pair[0])
            best[rows] = tried
            line = {"best_us": round(1e6 * tried[0][0], 1), "gb_s": round(num_bytes / max(1e-9, tried[0][0]) / 1e9)}
            if not tiny:
                line["dequantized_us"] = round(
                    1e6 * seconds(lambda i, x=x: dequantized(x, packed[i], absmax[i]), args.device, copies), 1
                )
                dense = torch.randn((2, num_out, width), device=args.device, dtype=torch.bfloat16)
                line["bf16_us"] = round(1e6 * seconds(lambda i, x=x, d=dense: F.linear(x, d[i]), args.device, 2), 1)
            print(name, rows, line, [list(t.values()) + [round(1e6 * s, 1)] for s, t in tried[:5]], flush=True)
            found[f"{name} {rows}"] = line | {"tried": [[1e6 * s, *t.values()] for s, t in tried]}
            args.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
