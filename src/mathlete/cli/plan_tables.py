"""A plan as tables for a person. Knows how it looks; computes nothing."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mathlete.planning.engine_plan import EnginePlan
from mathlete.planning.gpu_placement import engines_beside
from mathlete.planning.hardware import GIB
from mathlete.planning.parallel_weights import Layout, WeightBytes
from mathlete.planning.plan import Plan
from mathlete.planning.token_budget import TokenBudget


def print_plan(plan: Plan, name: str, console: Console) -> None:
    """Print all of it: each engine, the machines, the contest, the verdict."""
    where = "this machine's CPU" if plan.hardware.accelerator.is_cpu else _machines(plan)
    console.print(Text(f"{name} on {where}", "bold"))
    attempts = plan.attempts
    console.print(
        f"{attempts.attempts} attempts a problem, of up to {attempts.length:,} tokens (prompt {attempts.prompt:,}, "
        f"written on average {attempts.mean_new:,})\n"
    )
    for engine in plan.engines:
        _print_engine(engine, plan, console)
    if plan.elsewhere:
        console.print(f"{', '.join(plan.elsewhere)}: on a server's machines, of which a plan knows nothing\n")
    if len(plan.engines) > 1:
        _print_loads(plan, console)
    for proposal in plan.proposals:
        speed = proposal.plan.speeds[-1]
        console.print(
            f"proposed for {proposal.engine}: {_layout(proposal.layout)}; {proposal.plan.attempts_at_length} attempts "
            f"at full length, {speed.slow_tokens_per_s:,.0f} to {speed.fast_tokens_per_s:,.0f} tokens/s at "
            f"{speed.batch}\n"
        )
    if plan.budget is not None:
        _print_budget(plan.budget, plan, console)
    _print_verdict(plan, console)


def _print_engine(plan: EnginePlan, whole: Plan, console: Console) -> None:
    engine, counted = plan.engine, plan.parameters
    console.print(Text(f"{engine.name}: {engine.shape.name}", "bold"))
    active = "" if counted.experts == 0 else f", {counted.active / 1e9:.1f} of them active"
    format_name = " and ".join(engine.precisions) or engine.packed.name
    console.print(
        f"{counted.total / 1e9:.2f} x 10^9 weights{active}; {engine.kind}, weights in {format_name}, "
        f"{_layout(engine.layout)}"
    )
    if plan.attempts.length < whole.attempts.length:
        console.print(f"its attempts have up to {plan.attempts.length:,} tokens (max_model_len)")
    table = Table(box=None, pad_edge=False)
    for heading in ("", "GB", "GiB"):
        table.add_column(heading, justify="left" if not heading else "right")
    for label, num_bytes in _memory_rows(plan):
        table.add_row(label, f"{num_bytes / 1e9:,.1f}", f"{num_bytes / GIB:,.2f}")
    console.print(table)
    if engine.packed.group:
        whole_model = plan.whole_weights
        console.print(
            f"  the whole model: {plan.packed_codes / 1e9:.1f} GB of {engine.packed.bits:.0f}-bit codes, "
            f"{plan.packed_scales / 1e9:.1f} GB of their scales, "
            f"{(whole_model.total - plan.packed_codes - plan.packed_scales) / 1e9:.1f} GB that are not packed"
        )
    each = "" if engine.on_cpu else " a GPU"
    console.print(
        f"  a token's keys and values take {plan.kv.token_bytes / 1024:,.0f} KiB{each}: room for {plan.kv_tokens:,} "
        f"tokens, or {plan.attempts_at_length} attempts of one problem at full length"
    )
    _print_speeds(plan, whole, console)
    console.print()


def _memory_rows(plan: EnginePlan) -> list[tuple[str, float]]:
    memory, where = plan.memory, "machine" if plan.engine.on_cpu else "fullest GPU"
    rows = [(f"weights, {where}", memory.weights)]
    if not plan.engine.on_cpu and plan.engine.layout.gpus_per_copy > 1:
        rows.append(("  (weights, whole model)", plan.whole_weights.total))
    if len(plan.engine.precisions) < 2:  # else the parts are those of one of them
        rows += [(f"  of these {label}", value) for label, value in _parts(plan.gpu_weights) if value > 0.005 * 1e9]
    rows.append(("work of a step", memory.work))
    rows.append(("process" if plan.engine.on_cpu else "CUDA and links", memory.runtime))
    if memory.graphs:
        rows.append(("CUDA graphs", memory.graphs))
    rows.append(("left for keys and values", memory.kv_room))
    rows.append(("  the attempts at full length take", memory.kv_wanted))
    return rows


def _parts(weights: WeightBytes) -> list[tuple[str, float]]:
    dense = weights.attention + weights.feed_forward
    return [
        ("layers", dense),
        ("experts", weights.experts),
        ("embedding table and head", weights.embedding + weights.head),
    ]


def _print_speeds(plan: EnginePlan, whole: Plan, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    headings = ["at once", "tokens/s expected", "each", "roofline", "waits for"]
    if plan.parameters.experts:
        headings.append("experts read")
    for heading in headings:
        table.add_column(heading, justify="right")
    for speed in plan.speeds:
        slow, fast, batch = speed.slow_tokens_per_s, speed.fast_tokens_per_s, speed.batch
        row = [
            f"{batch}",
            f"{slow:,.0f} to {fast:,.0f}",
            f"{slow / batch:,.1f} to {fast / batch:,.1f}",
            f"{speed.roofline_tokens_per_s:,.0f}",
            speed.bound,
        ]
        if speed.experts is not None and plan.engine.shape.experts is not None:
            row.append(f"{speed.experts:.0f} of {plan.engine.shape.experts.num_experts}")
        table.add_row(*row)
    console.print(table)
    shared = engines_beside(plan, whole.loads)
    beside = f"; {shared} engines share the GPUs, and each gets about 1/{shared} while all work" if shared > 1 else ""
    console.print(f"  (at {plan.speeds[0].context:,} tokens of context{beside}; band: {plan.band.source})", style="dim")
    if plan.engine.packed.written_out_bytes:
        console.print(
            "  (roofline: of the codes; expected: they are written out in 16 bits and read again)", style="dim"
        )
    console.print(
        f"  prompt of {plan.prefill.tokens:,} tokens: {plan.prefill.fast_s:.2g} to {plan.prefill.slow_s:.2g} s"
    )
    for warning in plan.warnings:
        console.print(Text(f"  warning: {warning}", "yellow"))


def _print_loads(plan: Plan, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("GPU", "engines", "claimed GB", "of GB"):
        table.add_column(heading, justify="left" if heading in ("GPU", "engines") else "right")
    for load in plan.loads:
        table.add_row(
            f"{load.host}:{load.index}",
            ", ".join(load.engines),
            f"{load.claimed / 1e9:,.1f}",
            f"{load.memory / 1e9:,.1f}",
        )
    console.print(table)
    console.print()


def _print_budget(budget: TokenBudget, plan: Plan, console: Console) -> None:
    console.print(Text("a problem of the contest", "bold"))
    wanted = plan.attempts.attempts
    console.print(
        f"  {budget.seconds:,.0f} s; {budget.slow_tokens:,.0f} to {budget.fast_tokens:,.0f} tokens "
        f"(four fifths of the clock write; {budget.problems_at_once} problems at once)"
    )
    console.print(
        f"  {budget.slow_attempts:,} to {budget.fast_attempts:,} attempts of {budget.mean_new:,} tokens, where "
        f"{wanted} are wanted; the longest attempt takes up to {budget.longest_s:,.0f} s"
    )
    if budget.prefill_part > 0.05:
        console.print(Text(f"  warning: its prompt alone takes {budget.prefill_part:.0%} of that", "yellow"))
    if budget.slow_attempts < wanted:
        console.print(
            Text(f"  warning: the clock may not hold {wanted} attempts: lower attempts or max_tokens", "yellow")
        )
    console.print()


def _print_verdict(plan: Plan, console: Console) -> None:
    for engine in plan.engines:
        for problem in engine.problems:
            console.print(Text(f"{engine.engine.name}: {problem}", "red"))
        for piece in plan.advice[engine.engine.name]:
            console.print(f"  {engine.engine.name}: {piece}")
    for problem in plan.problems:
        console.print(Text(problem, "red"))
    if not plan.engines:
        console.print("nothing runs here, so there is nothing to fit")
    else:
        console.print(Text("it fits", "bold green") if plan.fits else Text("it does not fit", "bold red"))


def _layout(layout: Layout) -> str:
    parts = []
    if layout.tensor_parallel > 1:
        parts.append(f"layers shared by {layout.tensor_parallel} GPUs")
    if layout.pipeline_parallel > 1:
        parts.append(f"{layout.pipeline_parallel} stages")
    if layout.data_parallel > 1:
        parts.append(f"{layout.data_parallel} copies")
    return ", ".join(parts) or "one device"


def _machines(plan: Plan) -> str:
    hardware = plan.hardware
    hosts = f"{hardware.hosts} hosts of " if hardware.hosts > 1 else ""
    return f"{hosts}{hardware.count} x {hardware.accelerator.title}"
