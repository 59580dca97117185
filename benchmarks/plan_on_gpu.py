"""What `mathlete plan` says of the embedded engine on a GPU, beside what the GPU says: memory, and tokens a second.

usage: PYTHONPATH=src python3 benchmarks/plan_on_gpu.py OUT.json [--only CASE ...] [--case-s 150] [--total-s 540]

Needs torch and Triton, no model: weights are random codes and numbers in the shapes of published models, made on the
device layer by layer, so the host needs no memory for them. The engine is the real one (scheduler, paged cache, CUDA
graphs, sampler). Each case is a process of its own: it is ended when its time is up, and what it had found by then is
kept; one that fails does not stop the next. The most important cases come first. OUT.json is written after each.
`--device cpu --tiny` runs all of it through at a toy's shapes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mathlete.core.generation import SamplingParams
from mathlete.planning.embedded_memory import EmbeddedLoad, embedded_format, kv_of, memory_on_gpu
from mathlete.planning.hardware import GIB, Accelerator, find_accelerator
from mathlete.planning.kv_memory import BLOCK_SIZE
from mathlete.planning.model_shape import ModelShape
from mathlete.planning.parallel_weights import Layout, weight_bytes
from mathlete.planning.published_models import find_published
from mathlete.planning.roofline import PlacedModel
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.kv_cache import blocks_for
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.graphed_transformer import GraphedTransformer
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rotary import rotary_tables
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.model.weights import DenseWeight, LayerWeights, LinearWeight, ModelWeights, Nf4Weight
from mathlete.ryanstream.placement import gpu_ops
from mathlete.ryanstream.runner import ModelRunner
from mathlete.ryanstream.sampling import SampleKernel
from mathlete.ryanstream.scheduler import SchedulerConfig

Found = dict[str, Any]

FOUND = "found: "  # what a case's process prints before each thing it found
PROMPT = 480
NEW_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Case:
    """One model in one precision, with a cache for `attempts` of `length` tokens, decoded at some batches.

    Attributes:
        model: a name of the plan's table.
        precision: "nf4" or "bf16".
        attempts: that the cache is made for.
        length: of each, its prompt included.
        batches: attempts decoded at once, one measurement each.
    """

    model: str
    precision: str
    attempts: int
    length: int
    batches: tuple[int, ...]


CASES = {
    "72b-nf4": Case("Qwen2.5-Math-72B-Instruct", "nf4", 16, 4096, (1, 8, 32)),
    "32b-nf4": Case("DeepSeek-R1-Distill-Qwen-32B", "nf4", 32, 4096, (1, 8, 32)),
    "1.5b-bf16": Case("Qwen2.5-Coder-1.5B-Instruct", "bf16", 64, 4096, (1, 8, 32, 64)),
    "7b-bf16": Case("Qwen2.5-Math-7B-Instruct", "bf16", 64, 4096, (1, 8, 32, 64)),
    "14b-bf16": Case("DeepSeek-R1-Distill-Qwen-14B", "bf16", 32, 4096, (1, 8, 32, 64)),
    "7b-nf4": Case("Qwen2.5-Math-7B-Instruct", "nf4", 64, 4096, (1, 8, 32, 64)),
}


def main() -> None:
    """Run the cases one after another, each in a process of its own, and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--accelerator", default="h100-sxm-80gb", help="whose data sheet the roofline is from")
    parser.add_argument("--tiny", action="store_true", help="toy shapes, to see that it runs")
    parser.add_argument("--case-s", type=float, default=150.0, help="seconds a case may take")
    parser.add_argument("--total-s", type=float, default=540.0, help="no case is begun that could end after these")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_this_process:
        run_case(CASES[args.only[0]], args.device, args.accelerator, args.tiny)
        return
    start_s = time.perf_counter()
    report: Found = {"machine": machine(args.device), "accelerator": args.accelerator}
    for name in args.only:
        left_s = args.total_s - (time.perf_counter() - start_s)
        if left_s < 20:
            report[name] = {"error": "not begun: the time was up"}
            continue
        report[name] = run_apart(name, sys.argv[1:], min(args.case_s, left_s))
        args.out.write_text(json.dumps(report, indent=1))
        print(name, json.dumps(report[name]), flush=True)


def run_apart(name: str, arguments: list[str], limit_s: float) -> Found:
    """What the case's process found until it ended or was ended."""
    command = [sys.executable, __file__, *without_only(arguments), "--only", name, "--in-this-process"]
    began_s = time.perf_counter()
    found: Found = {}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    try:
        out, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        found["error"] = f"ended after {limit_s:.0f} s"
    lines = out.splitlines()
    for line in lines:
        if line.startswith(FOUND):
            found |= json.loads(line.removeprefix(FOUND))
    if process.returncode and "error" not in found:
        found["error"] = "\n".join(lines[-12:])[-2000:]
    return found | {"seconds": round(time.perf_counter() - began_s, 1)}


def without_only(arguments: list[str]) -> list[str]:
    """The command line without `--only` and its names."""
    kept, skipping = [], False
    for argument in arguments:
        skipping = argument == "--only" or (skipping and argument in CASES)
        if not skipping:
            kept.append(argument)
    return kept


def tell(found: Found) -> None:
    """To the process that waits; a case that is ended keeps what it has told."""
    print(FOUND + json.dumps(found), flush=True)


def machine(device: str) -> Found:
    """Versions, and which GPU, without touching it."""
    found: Found = {"python": platform.python_version(), "torch": torch.__version__}
    if device.startswith("cuda"):
        found["gpu"] = nvidia_smi("name,memory.total,memory.used,driver_version")
    return found


def nvidia_smi(fields: str) -> str:
    """What the driver's tool says of the GPUs; nothing where there is no such tool."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    return subprocess.run(query, capture_output=True, text=True, timeout=30, check=False).stdout.strip()


def run_case(case: Case, device_name: str, accelerator_name: str, tiny: bool) -> None:
    """Load, measure memory, make the cache, decode; tell of each as soon as it is known."""
    device = torch.device(device_name)
    shape = find_published(case.model)
    assert shape is not None, f"{case.model} is not in the table"
    if tiny:
        shape, case = tiny_shape(shape), replace(case, attempts=2, length=64, batches=(1, 2))
    prompt, new = (PROMPT, NEW_TOKENS) if not tiny else (32, 4)
    with torch.inference_mode():
        before = memory(device)
        tell({"case": asdict(case), "gpu_memory_before": before})
        config = engine_config(shape, case.length)
        transformer, sampler = load(config, case, device)
        loaded = memory(device, transformer.weights)
        load_plan = EmbeddedLoad(
            (case.precision,),
            "bf16",
            case.attempts,
            prompt,
            case.length,
            max_step_tokens=256,
            max_model_len=case.length,
        )
        blocks = planned_blocks(shape, case, prompt)
        planned = memory_on_gpu(shape, load_plan, blocks)
        on_device = planned.tables if device.type == "cuda" else 0.0
        tell({"weights": weights_beside_plan(shape, case, loaded, before, on_device)})
        engine = make_engine(transformer, sampler, blocks, case)
        cached = memory(device, transformer.weights, engine.runner.cache)
        tell({"kv_cache": kv_beside_plan(shape, case, prompt, blocks, cached, loaded)})
        placed = placed_model(shape, case, find_accelerator(accelerator_name))
        for batch in case.batches:
            try:
                tell({f"decode_{batch}": decode(engine, batch, prompt, new, placed, shape.vocab_size)})
            except Exception:
                tell({f"decode_{batch}": {"error": traceback.format_exc()[-1500:]}})
        after = memory(device)
        tell({"after": memory_beside_plan(after, before, planned.total)})


def tiny_shape(shape: ModelShape) -> ModelShape:
    """The same family as a toy."""
    return replace(
        shape, vocab_size=512, hidden_size=128, intermediate_size=256, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=32,
    )  # fmt: skip


def engine_config(shape: ModelShape, max_positions: int) -> ModelConfig:
    """The engine's own description of the shape."""
    return ModelConfig(
        architecture=shape.architecture, vocab_size=shape.vocab_size, hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size, num_layers=shape.num_layers, num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads, head_dim=shape.head_dim, rms_norm_eps=1e-6, rope_theta=1e6,
        attention_bias=shape.attention_bias, tie_word_embeddings=shape.tie_word_embeddings, max_positions=max_positions,
    )  # fmt: skip


def load(config: ModelConfig, case: Case, device: torch.device) -> tuple[Transformer, SampleKernel | None]:
    """The model with random weights on the device, with the operations the engine has there."""
    weights = random_weights(config, case.precision, device)
    rotary = rotary_tables(case.length, config.head_dim, config.rope_theta)
    if device.type != "cuda":
        return Transformer(config, weights, TorchOps(config, rotary)), None
    on_device = gpu_ops(config, rotary, device)
    if not on_device.can_be_captured:
        return Transformer(config, weights, on_device.ops), on_device.sampler
    return GraphedTransformer(config, weights, on_device.ops, blocks_for(case.length)), on_device.sampler


def random_weights(config: ModelConfig, precision: str, device: torch.device) -> ModelWeights:
    """All of a model as `placement.place_weights` would leave it: NF4 or dense products, head and table in bf16."""

    def dense(num_out: int, num_in: int) -> Tensor:
        return torch.empty(num_out, num_in, dtype=torch.bfloat16, device=device).normal_(0, num_in**-0.5)

    def linear(num_out: int, num_in: int, bias: bool = False) -> LinearWeight:
        added = torch.zeros(num_out, device=device) if bias else None
        if precision != "nf4":
            return DenseWeight(dense(num_out, num_in), added)
        codes = torch.randint(0, 256, (num_out, num_in // 2), dtype=torch.uint8, device=device)
        return Nf4Weight(codes, torch.full((num_out, num_in // 64), 2 * num_in**-0.5, device=device), added)

    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim
    qkv = heads + 2 * config.num_kv_heads * config.head_dim

    def layer() -> LayerWeights:
        return LayerWeights(
            input_norm=torch.ones(hidden, device=device),
            qkv=linear(qkv, hidden, config.attention_bias),
            out=linear(hidden, heads),
            post_norm=torch.ones(hidden, device=device),
            gate_up=linear(2 * inner, hidden),
            down=linear(hidden, inner),
        )

    table = dense(config.vocab_size, hidden)
    layers = tuple(layer() for _ in range(config.num_layers))
    head = DenseWeight(dense(config.vocab_size, hidden), None)
    return ModelWeights(table, layers, torch.ones(hidden, device=device), head)


def planned_blocks(shape: ModelShape, case: Case, prompt: int) -> int:
    """Blocks of the cache for all attempts at full length, by the plan."""
    kv = kv_of(shape, "bf16")
    return round(kv.attempts_bytes(case.attempts, prompt, case.length) / (BLOCK_SIZE * kv.token_bytes))


def make_engine(transformer: Transformer, sampler: SampleKernel | None, blocks: int, case: Case) -> Engine:
    """The real engine with a cache of so many blocks."""
    runner = ModelRunner(transformer, blocks, torch.bfloat16, None, (0,), sampler=sampler)
    limits = SchedulerConfig(max(case.batches), max(256, 2 * max(case.batches)), case.length)
    return Engine(runner, blocks, (0,), [], limits, runner.block_bytes)


def weights_beside_plan(shape: ModelShape, case: Case, now: Found, before: Found, tables: float) -> Found:
    """Allocated by the weights and the rotary tables, and what the plan says of them."""
    planned = weight_bytes(shape, embedded_format(case.precision, on_gpu=True))
    return {
        **beside(now["allocated"] - before["allocated"], planned.total + tables),
        "planned_parts_gib": {name: round(value / GIB, 3) for name, value in asdict(planned).items()},
        "reserved_gib": gib(now["reserved"]),
        "device_used_gib": gib(now["used"]),
    }


def kv_beside_plan(shape: ModelShape, case: Case, prompt: int, blocks: int, now: Found, before: Found) -> Found:
    """Allocated by the cache, and what the plan says of the attempts it is for."""
    planned = kv_of(shape, "bf16").attempts_bytes(case.attempts, prompt, case.length)
    return {
        "blocks": blocks, "tokens": blocks * BLOCK_SIZE, "device_used_gib": gib(now["used"]),
        **beside(now["allocated"] - before["allocated"], planned),
    }  # fmt: skip


def memory_beside_plan(now: Found, before: Found, planned: float) -> Found:
    """At the end, with all graphs: the process on the device, and the plan's total."""
    return {
        "allocated_gib": gib(now["allocated"]), "reserved_gib": gib(now["reserved"]), "peak_gib": gib(now["peak"]),
        "outside_torch_gib": gib(now["used"] - before["used_by_others"] - now["reserved"]),
        **beside(now["used"] - before["used_by_others"], planned),
    }  # fmt: skip


def beside(measured: float, planned: float) -> Found:
    """Both in GiB, and the plan's error."""
    error = planned / measured - 1 if measured else None
    return {"measured_gib": gib(measured), "planned_gib": gib(planned), "planned_over_measured": error}


def gib(num_bytes: float) -> float:
    """Rounded for reading."""
    return round(num_bytes / GIB, 7)


def memory(device: torch.device, *made: object) -> Found:
    """What torch has on the device, and what everybody has; on a CPU the bytes of what was made."""
    if device.type != "cuda":
        return {"allocated": bytes_of(made), "reserved": 0, "peak": 0, "used": 0, "used_by_others": 0}
    others = 0
    if not torch.cuda.is_initialized():
        others = used_by_others()
        torch.cuda.init()
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "allocated": torch.cuda.memory_allocated(device), "reserved": torch.cuda.memory_reserved(device),
        "peak": torch.cuda.max_memory_allocated(device), "used": total - free, "total": total, "used_by_others": others,
    }  # fmt: skip


def bytes_of(made: object) -> int:
    """Bytes of all tensors in dataclasses and sequences."""
    if isinstance(made, Tensor):
        return made.nbytes
    if isinstance(made, (list, tuple)):
        return sum(map(bytes_of, made))
    return sum(bytes_of(getattr(made, item.name)) for item in fields(made)) if is_dataclass(made) else 0


def used_by_others() -> int:
    """Bytes in use on the first GPU before this process touches it; 0 when nobody can tell."""
    first = nvidia_smi("memory.used").splitlines()[:1]
    return int(first[0]) << 20 if first and first[0].strip().isdigit() else 0


def placed_model(shape: ModelShape, case: Case, accelerator: Accelerator) -> PlacedModel:
    """For the roofline: this format on that accelerator."""
    packed = embedded_format(case.precision, on_gpu=True)
    return PlacedModel(shape, packed, Layout(), weight_bytes(shape, packed), kv_of(shape, "bf16"), accelerator)


def decode(engine: Engine, batch: int, prompt: int, new: int, placed: PlacedModel, vocab_size: int) -> Found:
    """Tokens a second of `batch` attempts of one prompt, and of the roofline; graphs are captured by a run before."""
    run(engine, batch, prompt, 4, f"warm-{batch}", vocab_size)
    steps, blocks = run(engine, batch, prompt, new, f"timed-{batch}", vocab_size)
    step_s = statistics.median(steps)
    roofline = placed.decode(batch, prompt + new / 2)
    return {
        "tokens_per_s": round(batch / step_s, 1),
        "step_ms": round(1e3 * step_s, 3),
        "roofline_tokens_per_s": round(batch / roofline.seconds, 1),
        "roofline_ms": round(1e3 * roofline.seconds, 3),
        "part_of_roofline": round(roofline.seconds / step_s, 4),
        "bound": roofline.bound,
        "blocks": blocks,
        "planned_blocks": round(
            placed.kv.attempts_bytes(batch, prompt, prompt + new - 1) / (BLOCK_SIZE * placed.kv.token_bytes)
        ),
    }


def run(engine: Engine, batch: int, prompt: int, new: int, label: str, vocab_size: int) -> tuple[list[float], int]:
    """Seconds of each step that decodes all attempts, and the blocks they held at the end."""
    noise = torch.Generator().manual_seed(len(label) + batch)
    ids = torch.randint(0, vocab_size, (prompt,), generator=noise).tolist()
    for attempt in range(batch):
        sampling = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=new, seed=attempt, ignore_eos=True)
        engine.add(f"{label}/{attempt}", ids, sampling, label)
    steps, most = [], 0
    while engine.has_work:
        began_s = time.perf_counter()
        outputs = engine.step()
        took_s = time.perf_counter() - began_s
        errors = [output.end.message for output in outputs if output.end and output.end.reason == "error"]
        if errors:
            raise RuntimeError(f"an attempt ended: {errors[0]}")
        if len(outputs) == batch:
            steps.append(took_s)
        most = max(most, len({block for output in outputs for block in output.request.block_ids}))
    return (steps[1:-1] or steps), most


if __name__ == "__main__":
    main()
