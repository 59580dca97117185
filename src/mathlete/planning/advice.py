"""What to change so that an engine fits, or holds more: each piece of advice was itself planned before it is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mathlete.planning.engine_plan import EnginePlan, plan_engine
from mathlete.planning.hardware import Hardware
from mathlete.planning.kv_memory import BLOCK_SIZE
from mathlete.planning.parallel_weights import Layout, layout_problem
from mathlete.planning.planned import AttemptShape
from mathlete.planning.weight_formats import FORMATS

_NARROWER = ("fp8", "awq", "nf4")
_MOST_GPUS = 64


def advise(plan: EnginePlan, hardware: Hardware, attempts: AttemptShape) -> tuple[str, ...]:
    """What would let the engine run, or hold all attempts at once; empty when nothing needs to change."""
    too_many = plan.engine.layout.num_gpus > hardware.num_gpus
    if plan.fits and plan.attempts_at_length >= attempts.attempts and not too_many:
        return ()
    if too_many:
        return _on_fewer_gpus(plan, hardware, attempts)
    return tuple(_advice(plan, hardware, attempts))


def _advice(plan: EnginePlan, hardware: Hardware, attempts: AttemptShape) -> Iterator[str]:
    engine, accelerator = plan.engine, hardware.accelerator

    def tried(changed: AttemptShape = attempts, **changes: object) -> EnginePlan:
        return plan_engine(replace(engine, **changes), accelerator, changed, hardware.host_link_gb_per_s)  # type: ignore[arg-type]

    def held(found: EnginePlan) -> str:
        return f"then {found.attempts_at_length} attempts of {attempts.length:,} tokens fit at once"

    lacks_room = plan.attempts_at_length < attempts.attempts  # else the memory is not what is wrong
    if engine.max_model_len > engine.shape.max_positions:
        yield f"lower max_model_len to {engine.shape.max_positions:,}, and --length with it"
    if engine.on_cpu:
        shorter = _longest(plan, attempts)
        if shorter and lacks_room:
            yield f"shorter attempts: {shorter:,} tokens fit {attempts.attempts} times"
        return
    better = plan.attempts_at_length
    wider = _smallest_layout(plan, hardware, attempts)
    if wider is not None:
        found = tried(layout=wider)
        have = "" if wider.num_gpus <= hardware.num_gpus else f" (there are {hardware.num_gpus})"
        yield f"{_in_words(wider)}{have}: {held(found)}"
    if engine.kind == "vllm" and engine.packed.name in ("bf16", "fp8", "int8"):
        for name in _NARROWER:
            if FORMATS[name].bytes_per_weight >= engine.packed.bytes_per_weight:
                continue
            found = tried(packed=FORMATS[name])
            if found.fits and found.attempts_at_length > better:
                yield f"weights in {name}: {held(found)}"
    if engine.kind == "vllm" and not engine.kv_cache_dtype.startswith("fp8"):
        found = tried(kv_cache_dtype="fp8")
        if found.fits and found.attempts_at_length > better:
            yield f'kv_cache_dtype = "fp8": {held(found)}'
    if engine.kind == "vllm" and engine.limits.max_num_seqs > 2 * attempts.attempts:
        fewer = max(16, attempts.attempts)
        found = tried(limits=replace(engine.limits, max_num_seqs=fewer, max_num_batched_tokens=2048))
        if found.fits and found.attempts_at_length > better:
            yield f"max_num_seqs = {fewer} and max_num_batched_tokens = 2048 leave less to the sampler: {held(found)}"
    if not lacks_room:
        return
    shorter = _longest(plan, attempts)
    if shorter:
        yield f"shorter attempts: {shorter:,} tokens fit {attempts.attempts} times"
    if better:
        yield f"fewer attempts: {better} fit at {attempts.length:,} tokens"


def _on_fewer_gpus(plan: EnginePlan, hardware: Hardware, attempts: AttemptShape) -> tuple[str, ...]:
    """What an engine can do that asks for more GPUs than there are."""
    for layout in layouts(plan, hardware, limit=hardware.num_gpus):
        found = plan_engine(
            replace(plan.engine, layout=layout), hardware.accelerator, attempts, hardware.host_link_gb_per_s
        )
        if found.fits:
            return (
                f"{_in_words(layout)}: {found.attempts_at_length} attempts of {attempts.length:,} tokens fit at once",
            )
    part = ""
    if plan.engine.kind == "vllm":
        part = f", or more than {plan.engine.limits.gpu_memory_utilization:g} of their memory (gpu_memory_utilization)"
    return (f"it needs more than {hardware.num_gpus} x {hardware.accelerator.title}{part}",)


def _longest(plan: EnginePlan, attempts: AttemptShape) -> int:
    """Tokens at which all attempts fit at once; 0 when there is no such length worth naming."""
    low, high = attempts.prompt + BLOCK_SIZE, min(attempts.length, plan.engine.max_model_len)
    room = plan.memory.kv_room
    if plan.kv.attempts_bytes(attempts.attempts, attempts.prompt, low) > room:
        return 0
    while high - low > BLOCK_SIZE:
        middle = (low + high) // 2
        if plan.kv.attempts_bytes(attempts.attempts, attempts.prompt, middle) <= room:
            low = middle
        else:
            high = middle
    return low // BLOCK_SIZE * BLOCK_SIZE


def _smallest_layout(plan: EnginePlan, hardware: Hardware, attempts: AttemptShape) -> Layout | None:
    """The fewest GPUs on which one copy holds all attempts, or at least one; None when it has them already."""
    wanted = [attempts.attempts, 1] if not plan.fits else [attempts.attempts]
    for least in wanted:
        for layout in layouts(plan, hardware, limit=_MOST_GPUS):
            if layout.num_gpus <= plan.engine.layout.gpus_per_copy:
                continue
            found = plan_engine(
                replace(plan.engine, layout=layout), hardware.accelerator, attempts, hardware.host_link_gb_per_s
            )
            if found.fits and found.attempts_at_length >= least:
                return layout
    return None


def layouts(plan: EnginePlan, hardware: Hardware, limit: int) -> Iterator[Layout]:
    """Layouts of one copy by number of GPUs: layers shared inside a host first, then stages over hosts."""
    shape, packed = plan.engine.shape, plan.engine.packed
    inside = max(1, hardware.count) if hardware.hosts > 1 else limit
    group = packed.group if packed.groups_along_rows else 0
    found = []
    for t in range(1, min(inside, limit) + 1):
        if layout_problem(shape, Layout(t), group) is None:
            found += [
                Layout(t, p) for p in range(1, limit // t + 1) if p == 1 or (t == inside and p <= shape.num_layers)
            ]
    yield from sorted(found, key=lambda layout: (layout.num_gpus, layout.pipeline_parallel))


def propose_layout(plan: EnginePlan, hardware: Hardware, attempts: AttemptShape) -> Layout | None:
    """The layout of fewest GPUs a copy that holds the attempts, as often as the machines allow; None when none does.

    Copies answer more tokens a second than the same GPUs sharing layers, since nothing is summed between them.
    """
    if plan.engine.on_cpu:
        return None
    for least in (attempts.attempts, 1):
        for layout in layouts(plan, hardware, limit=hardware.num_gpus):
            found = plan_engine(
                replace(plan.engine, layout=layout), hardware.accelerator, attempts, hardware.host_link_gb_per_s
            )
            if found.fits and found.attempts_at_length >= least:
                return replace(layout, data_parallel=hardware.num_gpus // layout.num_gpus)
    return None


def _in_words(layout: Layout) -> str:
    parts = [f"tensor_parallel_size = {layout.tensor_parallel}"]
    if layout.pipeline_parallel > 1:
        parts.append(f"pipeline_parallel_size = {layout.pipeline_parallel}")
    return f"{' and '.join(parts)}, {layout.num_gpus} GPUs"
