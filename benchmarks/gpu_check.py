"""The Triton kernels on a GPU: each against its twin in torch, and what a decode step, a draw and an engine cost.

usage: PYTHONPATH=src python3 benchmarks/gpu_check.py OUT.json [--only PART ...]

Needs torch and Triton, no model: weights are random, in the shape of Qwen2.5-1.5B in bf16. Each part is reported by
itself: what it found, or the error that ended it. OUT.json is written anew after each part, so that an end from
outside loses only the rest. Without CUDA, and with TRITON_INTERPRET=1, it runs through at a toy's shape.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.graphed_transformer import GraphedTransformer
from mathlete.ryanstream.model.layer_cache import LayerCache, allocate_cache
from mathlete.ryanstream.model.nf4 import pack_nf4, quantize_nf4
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.ops_torch import rms_norm as rms_norm_torch
from mathlete.ryanstream.model.ops_triton import TritonOps
from mathlete.ryanstream.model.rotary import RotaryTables, rotary_tables
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.model.triton.nf4_matmul import nf4_linear, nf4_matmul
from mathlete.ryanstream.model.triton.rms_norm import rms_norm
from mathlete.ryanstream.model.triton.sample import TritonSampler
from mathlete.ryanstream.model.triton.swiglu import swiglu
from mathlete.ryanstream.model.weights import DenseWeight, LayerWeights, ModelWeights
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.runner import ModelRunner
from mathlete.ryanstream.sampling import accept_uniform_at, apply_mask_torch, sample, sampling_batch
from mathlete.ryanstream.scheduler import SchedulerConfig
from mathlete.ryanstream.speculative.accept_rule import drawn_rows
from mathlete.ryanstream.speculative.depth_control import FixedDepth
from mathlete.ryanstream.speculative.draft_tree import DraftTree, DrawnFrom
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.speculation import Speculation

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ryanstream"))
from tree_batches import as_plain_sequence, random_trees, tree_batch  # noqa: E402

Found = dict[str, Any]

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
QWEN = ModelConfig(
    architecture="qwen2", vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_layers=28, num_heads=12,
    num_kv_heads=2, head_dim=128, rms_norm_eps=1e-6, rope_theta=1e6, attention_bias=True, tie_word_embeddings=True,
    max_positions=32768,
)  # fmt: skip
TOY = replace(QWEN, vocab_size=96, hidden_size=64, intermediate_size=128, num_layers=2, num_heads=2, head_dim=32)
CONFIG = QWEN if ON_GPU else TOY
WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128) if ON_GPU else (1, 2)
NUM_CACHED = 500 if ON_GPU else 20
REPEAT = 20 if ON_GPU else 1
SORTS = ((1024, 4), (1024, 2), (512, 2)) if ON_GPU else ((16, 4),)  # logits in a tile, warps that sort it
SAMPLED_ROWS = (1, 8, 64) if ON_GPU else (1,)
NUM_BLOCKS, PROMPT, NEW_TOKENS = (2048, 200, 24) if ON_GPU else (16, 5, 2)
REQUESTS, GUESSES = ((1, 16, 64), (0, 3, 7)) if ON_GPU else ((1,), (0, 1))
LAST_START_S = 110.0  # no further part or width is begun after this


def main() -> None:
    """Run the parts one after another and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    start = time.perf_counter()
    report: Found = {"machine": machine()}
    for name in args.only:
        began = time.perf_counter()
        if began - start > LAST_START_S:
            report[name] = {"error": f"not begun: {began - start:.0f} s had passed"}
            continue
        try:
            with torch.inference_mode():
                report[name] = PARTS[name](torch.Generator().manual_seed(5), start + LAST_START_S)
        except Exception:
            report[name] = {"error": traceback.format_exc()[-3000:]}
        report[name]["seconds"] = round(time.perf_counter() - began, 2)
        args.out.write_text(json.dumps(report, indent=1))
        print(name, json.dumps(report[name]), flush=True)


def machine() -> Found:
    """Versions, and which GPU."""
    found: Found = {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__}
    if ON_GPU:
        properties = torch.cuda.get_device_properties(0)
        found |= {"gpu": properties.name, "gib": properties.total_memory / 2**30, "cuda": torch.version.cuda}
    return found


def noise(rng: torch.Generator, *size: int) -> Tensor:
    """Normal noise, the same on every machine."""
    return torch.randn(size, generator=rng).to(DEVICE)


def compared(got: Tensor, expected: Tensor, tolerance: float) -> Found:
    """The root of the mean squared error relative to what was expected, and the largest error."""
    difference = (got.float() - expected.float()).double()
    relative = float(difference.square().mean().sqrt() / expected.double().square().mean().sqrt())
    return {"ok": relative < tolerance, "relative_rms": relative, "largest": float(difference.abs().max())}


def check_norm(rng: torch.Generator, _: float) -> Found:
    """RMSNorm of 33 rows, in float32 and bf16."""
    x, weight = noise(rng, 33, CONFIG.hidden_size) * 3, noise(rng, CONFIG.hidden_size)
    expected = rms_norm_torch(x, weight, 1e-6)
    return {str(t): compared(rms_norm(x, weight, 1e-6, t), expected, e) for t, e in TOLERANCES.items()}


def check_swiglu(rng: torch.Generator, _: float) -> Found:
    """SwiGLU of 33 rows, in float32 and bf16."""
    gate_up = noise(rng, 33, 2 * CONFIG.intermediate_size) * 3
    gate, up = gate_up.chunk(2, dim=-1)
    expected = torch.nn.functional.silu(gate) * up
    return {str(t): compared(swiglu(gate_up, t), expected, e) for t, e in TOLERANCES.items()}


def check_nf4(rng: torch.Generator, _: float) -> Found:
    """The NF4 product for 1 and 33 rows, and whether a row is the same alone."""
    rows = quantize_nf4(noise(rng, CONFIG.intermediate_size, CONFIG.hidden_size))
    packed, x = pack_nf4(rows.codes), noise(rng, 33, CONFIG.hidden_size).bfloat16()
    got, alone = nf4_matmul(x, packed, rows.absmax), nf4_matmul(x[7:8].contiguous(), packed, rows.absmax)
    found = compared(got, nf4_linear(x, packed, rows.absmax), 3e-3 if ON_GPU else 1e-2)  # rounded to bf16
    return found | {"row_is_the_same_alone": bool(torch.equal(alone[0], got[7]))}


def check_attention(rng: torch.Generator, _: float) -> Found:
    """One step of trees, plain rows among them: against the twin, and each 9th node against a plain sequence."""
    trees = tree_batch(random_trees([NUM_CACHED, 3, 15, 16, 100, NUM_CACHED + 1], rng), rng)
    trees = replace(trees, batch=trees.batch.to(DEVICE))
    tables = tables_for(1024)
    width = (CONFIG.num_heads + 2 * CONFIG.num_kv_heads) * CONFIG.head_dim
    qkv, cache = noise(rng, len(trees.lineages), width), noisy_cache(rng, trees.num_blocks)
    twin_cache = LayerCache(cache.keys.clone(), cache.values.clone())
    ops = TritonOps(CONFIG, tables)
    got = ops.attention(qkv.clone(), trees.batch, cache)
    found = compared(got, TorchOps(CONFIG, tables).attention(qkv.clone(), trees.batch, twin_cache), 2e-2)
    rows = range(0, len(trees.lineages), 9)
    same = 0
    for row in rows:
        plain = as_plain_sequence(trees, row, cache)
        same += bool(torch.equal(ops.attention(qkv[trees.lineages[row]], plain, cache)[-1], got[row]))
    return found | {"num_rows": len(trees.lineages), "same_as_plain": same, "of": len(rows)}


def check_sample(rng: torch.Generator, _: float) -> Found:
    """Draws of the kernel and of the twin, drafts on every other row; masks; both on the device."""
    settings = [
        {"temperature": 0.0}, {"top_p": 1.0}, {"temperature": 0.7, "top_p": 0.9}, {"top_p": 1.0, "top_k": 20},
        {"temperature": 1.3, "top_p": 1.0, "min_p": 0.05},
    ]  # fmt: skip
    params = [SamplingParams(seed=i, **settings[i % len(settings)]) for i in range(40)]
    logits, batch = noise(rng, 40, CONFIG.vocab_size) * 3, sampling_batch(params, range(40)).to(DEVICE)
    likeliest = [row.topk(5).indices.tolist() for row in logits[::2]]
    froms = [DrawnFrom(tuple(ids), (0.2,) * 5) for ids in likeliest]
    drafts = drawn_rows(
        range(0, 40, 2), [ids[1] for ids in likeliest], froms, [accept_uniform_at(i, 0) for i in range(20)]
    )
    sampler = TritonSampler(*SORTS[0])
    kernel, twin = (sample(logits, batch, which, drawn=drafts.to(DEVICE)) for which in (sampler, None))
    alone = sample(logits[7:8], batch.rows(torch.tensor([7], device=DEVICE)), sampler)
    masks = torch.randint(-(2**31), 2**31, (40, -(-CONFIG.vocab_size // 32)), generator=rng).int().to(DEVICE)
    masked, masked_twin = logits.clone(), logits.clone()
    sampler.apply_mask(masked, masks)
    apply_mask_torch(masked_twin, masks)
    return compared(kernel.logprob, twin.logprob, 1e-4) | {
        "same_tokens": int((kernel.token == twin.token).sum()), "of": 40,
        "same_top_ids": bool(torch.equal(kernel.top_ids, twin.top_ids)),
        "row_is_the_same_alone": all(torch.equal(a[0], b[7]) for a, b in zip(alone, kernel, strict=True)),
        "same_masked": bool(torch.equal(masked, masked_twin)), "sample_ms": sample_times(rng),
        "mask_40_rows_ms": median_ms(lambda: sampler.apply_mask(masked, masks)),
    }  # fmt: skip


def sample_times(rng: torch.Generator) -> Found:
    """Milliseconds of a draw by the number of rows, for each way of sorting; for peaked and for flat rows."""
    found: Found = {}
    for name, spread in (("peaked", 3.0), ("flat", 0.5)):
        logits = noise(rng, max(SAMPLED_ROWS), CONFIG.vocab_size) * spread
        params = [SamplingParams(temperature=0.8, top_p=0.95, seed=i) for i in range(len(logits))]
        for tile, warps in SORTS:
            sampler = TritonSampler(tile, warps)
            for n in SAMPLED_ROWS:
                batch = sampling_batch(params[:n], range(n)).to(DEVICE)
                step = partial(sample, logits[:n], batch, sampler)
                found[f"{name}, tile {tile}, {warps} warps, {n} rows"] = median_ms(step)
    return found


def check_steps(rng: torch.Generator, deadline: float) -> Found:
    """Milliseconds of a decode step at each width, its batch on the CPU: launched from Python, and as a CUDA graph."""
    weights, ops = random_weights(), TritonOps(CONFIG, tables_for(1024))
    blocks = -(-(NUM_CACHED + 1) // 16)
    eager, graphed = Transformer(CONFIG, weights, ops), with_graphs(weights, ops)
    cache = allocate_cache(CONFIG, blocks * max(WIDTHS), torch.bfloat16, DEVICE)
    found: Found = {"num_cached": NUM_CACHED, "eager_ms": {}, "graph_ms": {}, "same_likeliest": {}}
    for width in WIDTHS:
        if time.perf_counter() > deadline:
            found["stopped_before"] = width
            break
        batch = decode_batch(width, blocks, rng)
        found["eager_ms"][width] = median_ms(lambda batch=batch: eager.forward(batch, cache))
        found["graph_ms"][width] = median_ms(lambda batch=batch: graphed.forward(batch, cache))
        ours, theirs = (model.forward(batch, cache).logits for model in (graphed, eager))
        found["same_likeliest"][width] = float((ours.argmax(-1) == theirs.argmax(-1)).float().mean())
        found["largest_difference"] = max(float((ours - theirs).abs().max()), found.get("largest_difference", 0.0))
    return found


def with_graphs(weights: ModelWeights, ops: TorchOps) -> Transformer:
    """A transformer that replays graphs; a plain one where there is no CUDA."""
    if not ON_GPU:
        return Transformer(CONFIG, weights, ops)
    return GraphedTransformer(CONFIG, weights, ops, max_blocks=68)


class WrongGuesses:
    """Guesses chains of so many tokens that the model does not draw."""

    wants_hidden = False
    step_cost_s = 0.0

    def __init__(self, num_tokens: int) -> None:
        """So many."""
        self._num_tokens = num_tokens

    def propose(self, slots: Sequence[DraftSlot]) -> list[DraftTree]:
        """The same chain for everybody, as long as may be."""
        lengths = [min(self._num_tokens, slot.max_depth) for slot in slots]
        return [DraftTree.chain([(7 * i + 11) % 90 for i in range(n)], [0.5] * n) for n in lengths]

    def note_hidden(self, request: EngineRequest, position: int, hidden: Tensor) -> None:
        """Nobody asked."""

    def forget(self, request: EngineRequest) -> None:
        """Keeps nothing."""


def check_engine(_: torch.Generator, deadline: float) -> Found:
    """Whole steps of an engine in ms, by requests and guessed tokens, with and without graphs; what they drew."""
    weights, ops = random_weights(), (TritonOps if ON_GPU else TorchOps)(CONFIG, tables_for(1024))
    found: Found = {"step_ms": {}, "same_tokens": {}}
    drawn: dict[str, list[list[int]]] = {}
    for name, model in (("eager", Transformer(CONFIG, weights, ops)), ("graphs", with_graphs(weights, ops))):
        runner = ModelRunner(model, NUM_BLOCKS, torch.bfloat16, None, (0, 1), sampler=TritonSampler(*SORTS[0]))
        limits = SchedulerConfig(max_running=64, max_step_tokens=1024, max_model_len=1024)
        engine = Engine(runner, NUM_BLOCKS, (), config=limits)
        for num_requests in REQUESTS:
            for num_guesses in GUESSES:
                if num_requests * (num_guesses + 1) > 256 or time.perf_counter() > deadline:
                    continue
                engine.speculation = None
                if num_guesses:
                    engine.speculation = Speculation(WrongGuesses(num_guesses), FixedDepth(num_guesses))
                label = f"{num_requests} requests, {num_guesses} guesses"
                steps, ids = timed_run(engine, num_requests, label)
                found["step_ms"].setdefault(label, {})[name] = steps
                same = [a == b for a, b in zip(ids, drawn.setdefault(label, ids), strict=True)]
                found["same_tokens"][label] = f"{sum(same)} of {len(same)} requests"
        found[f"waits_for_the_device, {name}"] = waits_of_a_step(engine)
    return found


def add_requests(engine: Engine, num_requests: int, label: str) -> None:
    """Prompts of 200 tokens, 24 tokens to draw."""
    for i in range(num_requests):
        params = SamplingParams(temperature=0.8, max_tokens=NEW_TOKENS, seed=i, ignore_eos=True)
        engine.add(f"{label} {i}", [(j + 3 * i) % 90 for j in range(PROMPT)], params, group="all")


def timed_run(engine: Engine, num_requests: int, label: str) -> tuple[float, list[list[int]]]:
    """The median ms of a step in which all requests get a token; the tokens of each request."""
    add_requests(engine, num_requests, label)
    times, ended = [], {}
    while engine.has_work:
        start_s = time.perf_counter()
        outputs = engine.step()
        if ON_GPU:
            torch.cuda.synchronize()
        if len(outputs) >= num_requests:
            times.append((time.perf_counter() - start_s) * 1e3)
        ended |= {o.request.request_id: list(o.request.output_ids) for o in outputs if o.end is not None}
    return round(statistics.median(times[2:] or times), 3), [ended[f"{label} {i}"] for i in range(num_requests)]


def waits_of_a_step(engine: Engine) -> list[str]:
    """Where the third decode step of two requests, one of them greedy, waits for the device: file and line."""
    if not ON_GPU:
        return []
    engine.speculation = None
    add_requests(engine, 2, "waits")
    for _ in range(3):
        engine.step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        engine.step()
        torch.cuda.set_sync_debug_mode("default")
    while engine.has_work:
        engine.step()
    return [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]


def decode_batch(width: int, blocks: int, rng: torch.Generator) -> ForwardBatch:
    """Sequences of `NUM_CACHED` tokens that each get one more; blocks scattered."""
    tables = torch.randperm(width * blocks, generator=rng).view(width, blocks).int()
    places = torch.full((width,), NUM_CACHED, dtype=torch.int32)
    return ForwardBatch(
        token_ids=torch.arange(width), positions=places, slots=tables[:, -1].long() * 16 + NUM_CACHED % 16,
        row_seq=torch.arange(width, dtype=torch.int32), lengths=places + 1, tables=tables,
        logit_rows=torch.arange(width),
    )  # fmt: skip


def median_ms(step: Callable[[], object]) -> float:
    """Of `REPEAT` calls after three that warm up, each between two CUDA events."""
    for _ in range(3 if ON_GPU else 0):
        step()
    times = []
    for _ in range(REPEAT):
        if not ON_GPU:
            start_s = time.perf_counter()
            step()
            times.append((time.perf_counter() - start_s) * 1e3)
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return round(statistics.median(times), 4)


def tables_for(num_positions: int) -> RotaryTables:
    """Rotary tables on the device."""
    tables = rotary_tables(num_positions, CONFIG.head_dim, CONFIG.rope_theta)
    return RotaryTables(tables.cosines.to(DEVICE), tables.sines.to(DEVICE))


def noisy_cache(rng: torch.Generator, num_blocks: int) -> LayerCache:
    """One layer in bf16, a number in every place."""
    heads, dim = CONFIG.num_kv_heads, CONFIG.head_dim
    keys, values = noise(rng, num_blocks, heads, dim, 16), noise(rng, num_blocks, heads, 16, dim)
    return LayerCache(keys.bfloat16(), values.bfloat16())


def random_weights() -> ModelWeights:
    """The model's shape in bf16, the head tied to the embedding, made on the device."""

    def tensor(*size: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(size, dtype=dtype, device=DEVICE) * 0.02

    def layer() -> LayerWeights:
        hidden, inner, heads = CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.num_heads * CONFIG.head_dim
        qkv = heads + 2 * CONFIG.num_kv_heads * CONFIG.head_dim
        return LayerWeights(
            input_norm=torch.ones(hidden, device=DEVICE),
            qkv=DenseWeight(tensor(qkv, hidden), tensor(qkv, dtype=torch.float32)),
            out=DenseWeight(tensor(hidden, heads), None),
            post_norm=torch.ones(hidden, device=DEVICE),
            gate_up=DenseWeight(tensor(2 * inner, hidden), None),
            down=DenseWeight(tensor(hidden, inner), None),
        )

    embedding = tensor(CONFIG.vocab_size, CONFIG.hidden_size)
    layers = tuple(layer() for _ in range(CONFIG.num_layers))
    return ModelWeights(embedding, layers, torch.ones(CONFIG.hidden_size, device=DEVICE), DenseWeight(embedding, None))


TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 5e-3}
PARTS: dict[str, Callable[[torch.Generator, float], Found]] = {
    "norm": check_norm,
    "swiglu": check_swiglu,
    "nf4": check_nf4,
    "attention": check_attention,
    "steps": check_steps,
    "sample": check_sample,
    "engine": check_engine,
}

if __name__ == "__main__":
    main()
