"""The plan of one engine: its memory on the fullest GPU, what fits into it, and how fast it is. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from mathlete.planning.efficiency import Efficiency, efficiency_of, expected_prefill, expected_step
from mathlete.planning.embedded_memory import EmbeddedLoad, memory_on_cpu, memory_on_gpu
from mathlete.planning.hardware import Accelerator
from mathlete.planning.kv_memory import KVLayers, kv_layers_per_gpu
from mathlete.planning.model_shape import Parameters, count_parameters
from mathlete.planning.parallel_weights import WeightBytes, layout_problem, weight_bytes, weight_bytes_per_gpu
from mathlete.planning.planned import AttemptShape, PlannedEngine
from mathlete.planning.roofline import PlacedModel, expected_experts
from mathlete.planning.vllm_memory import mxfp4_padding, rotary_cache_bytes, vllm_memory


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes on the fullest GPU, or of the process on a CPU.

    Attributes:
        weights: of the model.
        work: of a step: activations, or the sampler.
        runtime: CUDA and NCCL; on a CPU the process, its tokenizer and tables.
        graphs: CUDA graphs.
        kv_room: for keys and values; negative when nothing is left.
        kv_wanted: that all attempts of a problem at their longest take.
        claimed: of the device by this engine as it is set up.
    """

    weights: float
    work: float
    runtime: float
    graphs: float
    kv_room: float
    kv_wanted: float
    claimed: float


@dataclass(frozen=True, slots=True)
class SpeedPlan:
    """Decoding with so many attempts at once, over all copies of the model.

    Attributes:
        batch: attempts at once.
        context: tokens of each, on average.
        roofline_tokens_per_s: at best.
        slow_tokens_per_s: at the bad end of what engines reach.
        fast_tokens_per_s: at the good end.
        bound: what a step waits for.
        experts: distinct experts a layer reads; None for a dense model.
    """

    batch: int
    context: int
    roofline_tokens_per_s: float
    slow_tokens_per_s: float
    fast_tokens_per_s: float
    bound: str
    experts: float | None


@dataclass(frozen=True, slots=True)
class PrefillPlan:
    """Seconds until a problem's prompt is computed, by itself.

    Attributes:
        tokens: of the prompt.
        slow_s: at the bad end.
        fast_s: at the good end.
    """

    tokens: int
    slow_s: float
    fast_s: float


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What a plan says of one engine.

    Attributes:
        engine: what was planned.
        attempts: that it writes of a problem.
        parameters: of the model.
        whole_weights: bytes of the whole model.
        gpu_weights: bytes on the fullest GPU.
        memory: of the fullest GPU.
        kv: of a token there.
        kv_tokens: tokens that the room holds, as vLLM counts them ("GPU KV cache size").
        attempts_at_length: attempts of one problem that fit at once, all at their longest.
        running: attempts that run at once: what fits on average, and is allowed.
        speeds: at one attempt, at all of a problem, and at all that run.
        prefill: of a problem's prompt.
        band: of what is reached.
        problems: why it cannot run so; empty when it fits.
        warnings: what a person should know.
    """

    engine: PlannedEngine
    attempts: AttemptShape
    parameters: Parameters
    whole_weights: WeightBytes
    gpu_weights: WeightBytes
    memory: MemoryPlan
    kv: KVLayers
    kv_tokens: int
    attempts_at_length: int
    running: int
    speeds: tuple[SpeedPlan, ...]
    prefill: PrefillPlan
    band: Efficiency
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether it runs with at least one attempt at its longest."""
        return not self.problems

    @property
    def packed_codes(self) -> float:
        """Bytes of the codes of all packed weights of the whole model, without their scales."""
        packed, counted = self.engine.packed, self.parameters
        dense = counted.linear if packed.packs_dense else 0
        experts = counted.experts if packed.packs_experts else 0
        return (dense + experts) * packed.bits / 8

    @property
    def packed_scales(self) -> float:
        """Bytes of their scales and zeros."""
        packed = self.engine.packed
        return self.packed_codes * (packed.bytes_per_weight * 8 / packed.bits - 1)


def plan_engine(
    engine: PlannedEngine, accelerator: Accelerator, attempts: AttemptShape, host_link_gb_per_s: float = 12.5
) -> EnginePlan:
    """Plan one engine on accelerators of this kind. Raises `InputError` for an unknown type of keys and values."""
    kv = kv_layers_per_gpu(engine.shape, engine.kv_cache_dtype, engine.layout)
    weights = _weights_per_gpu(engine)
    memory = _memory(engine, accelerator, attempts, kv, weights)
    fits_at_length = kv.attempts_that_fit(memory.kv_room, attempts.prompt, attempts.length)
    running = _running(engine, attempts, kv, memory.kv_room)
    placed = PlacedModel(engine.shape, engine.packed, engine.layout, weights, kv, accelerator, host_link_gb_per_s)
    band = efficiency_of(engine.kind, engine.packed, engine.on_cpu)
    batches = sorted({1, min(attempts.attempts, max(1, running)), max(1, running)})
    prefill = expected_prefill(placed.prefill(attempts.prompt))
    return EnginePlan(
        engine=engine,
        attempts=attempts,
        parameters=count_parameters(engine.shape),
        whole_weights=weight_bytes(engine.shape, engine.packed),
        gpu_weights=weights,
        memory=memory,
        kv=kv,
        kv_tokens=max(0, int(memory.kv_room / kv.token_bytes)),
        attempts_at_length=fits_at_length * engine.layout.data_parallel,
        running=running,
        speeds=tuple(_speed(placed, band, batch, attempts) for batch in batches),
        prefill=PrefillPlan(attempts.prompt, prefill.slow_s, prefill.fast_s),
        band=band,
        problems=tuple(_problems(engine, accelerator, attempts, memory, fits_at_length)),
        warnings=tuple(_warnings(engine, accelerator, attempts, fits_at_length)),
    )


def _weights_per_gpu(engine: PlannedEngine) -> WeightBytes:
    padding = 1.0
    if engine.kind == "vllm" and engine.packed.name == "mxfp4":
        padding = mxfp4_padding(engine.shape, engine.layout.tensor_parallel)
    return weight_bytes_per_gpu(engine.shape, engine.packed, engine.layout, padding)


def _memory(
    engine: PlannedEngine, accelerator: Accelerator, attempts: AttemptShape, kv: KVLayers, weights: WeightBytes
) -> MemoryPlan:
    wanted = kv.attempts_bytes(attempts.attempts, attempts.prompt, attempts.length)
    if engine.kind == "vllm":
        found = vllm_memory(
            engine.shape, engine.layout, engine.limits, accelerator, weights.total + rotary_cache_bytes(engine.shape)
        )
        return MemoryPlan(
            found.weights, found.work, found.runtime, found.graphs, found.kv_room, wanted, claimed=found.budget
        )
    load = EmbeddedLoad(
        precisions=engine.precisions,
        kv_cache_dtype=engine.kv_cache_dtype,
        attempts=attempts.attempts,
        prompt=attempts.prompt,
        length=attempts.length,
        max_step_tokens=engine.limits.max_num_batched_tokens,
        max_model_len=engine.max_model_len,
    )
    if engine.on_cpu:
        used = memory_on_cpu(engine.shape, load)
    else:
        used = memory_on_gpu(engine.shape, load, layout=engine.layout)
    return MemoryPlan(
        weights=used.weights + used.embedding,
        work=used.workspace,
        runtime=used.base + used.tables,
        graphs=0.0,
        kv_room=accelerator.memory_bytes - used.fixed,
        kv_wanted=used.kv,
        claimed=used.total,
    )


def _running(engine: PlannedEngine, attempts: AttemptShape, kv: KVLayers, room: float) -> int:
    """Attempts at once over all copies: at their mean length they fill the room, or as many as are allowed."""
    mean = attempts.prompt + max(1, attempts.mean_new // 2)  # half-way through, on average
    allowed = engine.limits.max_num_seqs * engine.layout.data_parallel
    return min(allowed, kv.attempts_that_fit(room, attempts.prompt, mean) * engine.layout.data_parallel)


def _speed(placed: PlacedModel, band: Efficiency, batch: int, attempts: AttemptShape) -> SpeedPlan:
    copies = min(batch, placed.layout.data_parallel)
    context = attempts.prompt + attempts.mean_new // 2
    rows = -(-batch // copies)
    step = placed.decode(rows, context)
    expected, shape = expected_step(step, band, rows), placed.shape
    experts = None
    if shape.experts is not None:
        experts = expected_experts(shape.experts.num_experts, shape.experts.num_per_token, batch / copies)
    return SpeedPlan(
        batch=batch,
        context=context,
        roofline_tokens_per_s=batch / step.seconds,
        slow_tokens_per_s=batch / expected.slow_s,
        fast_tokens_per_s=batch / expected.fast_s,
        bound=step.bound,
        experts=experts,
    )


def _problems(
    engine: PlannedEngine, accelerator: Accelerator, attempts: AttemptShape, memory: MemoryPlan, at_length: int
) -> list[str]:
    found = []
    wrong = layout_problem(engine.shape, engine.layout, engine.packed.group if engine.packed.groups_along_rows else 0)
    if wrong is not None:
        found.append(wrong)
    if engine.max_model_len > engine.shape.max_positions:
        found.append(
            f"max_model_len {engine.max_model_len:,} is more than the {engine.shape.max_positions:,} positions of "
            f"{engine.shape.name}"
        )
    if attempts.length > engine.max_model_len:
        found.append(f"attempts of {attempts.length:,} tokens are longer than max_model_len {engine.max_model_len:,}")
    if at_length == 0:
        needs = memory.weights + memory.work + memory.runtime + memory.graphs
        found.append(
            f"weights and work take {needs / 1e9:.1f} GB a {'machine' if engine.on_cpu else 'GPU'}, which leaves "
            f"{max(0.0, memory.kv_room) / 1e9:.1f} GB of {accelerator.title}'s part for keys and values: not enough "
            f"for one attempt of {attempts.length:,} tokens"
        )
    return found


def _warnings(engine: PlannedEngine, accelerator: Accelerator, attempts: AttemptShape, at_length: int) -> list[str]:
    found = []
    total = at_length * engine.layout.data_parallel
    if 0 < total < attempts.attempts:
        found.append(
            f"of {attempts.attempts} attempts only {total} fit at once at {attempts.length:,} tokens each; the others "
            "wait, or are put aside and computed again"
        )
    if engine.limits.max_num_seqs * engine.layout.data_parallel < attempts.attempts:
        found.append(f"max_num_seqs {engine.limits.max_num_seqs} is less than the {attempts.attempts} attempts")
    if engine.packed.compute == "fp8" and "fp8" not in accelerator.peak_tflops:
        found.append(f"{accelerator.title} has no 8-bit floats: weights are widened, and products run as in bf16")
    return found
