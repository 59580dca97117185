"""A recipe as what a plan is made for: its engines, attempts, machines and contest. Knows recipes; plans nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mathlete.core.errors import InputError
from mathlete.generators.vllm_settings import VLLMSettings
from mathlete.planning.embedded_memory import embedded_format
from mathlete.planning.hardware import GIB, Accelerator, Hardware, find_accelerator
from mathlete.planning.models import find_model
from mathlete.planning.parallel_weights import Layout
from mathlete.planning.planned import AttemptShape, ContestShape, PlannedEngine
from mathlete.planning.vllm_memory import VLLMLimits, default_limits
from mathlete.planning.weight_formats import weight_format
from mathlete.recipes.recipe import Recipe
from mathlete.run_config import EngineSpec, RunConfig

_CPU = "cpu-2-cores"  # whose speed was measured; the memory is this machine's
_PROMPT = 512  # tokens of a statement with its instructions; judged from the prompts of the code pillar
_MAX_STEP_TOKENS = 256  # as `compose.build_generator` sets the embedded engine up


def machines(recipe: Recipe, accelerator: str | None, count: int | None) -> Hardware:
    """The machines to plan for: a flag, else the recipe's, else this machine's CPU.

    Raises:
        InputError: an accelerator is not known, or a number is out of range.
    """
    try:
        if accelerator is not None:
            hosts = recipe.hardware.hosts if recipe.hardware else 1
            return Hardware(find_accelerator(accelerator), count or _count_of(recipe), hosts)
        hardware = recipe.hardware or Hardware(this_cpu())
        return hardware if count is None else hardware.with_count(count)
    except ValueError as error:
        raise InputError(f"these machines cannot be planned for: {error}") from error


def this_cpu() -> Accelerator:
    """A CPU of which the speed was measured elsewhere, with this machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return replace(find_accelerator(_CPU), memory_gib=memory / GIB)


def attempt_shape(
    recipe: Recipe, config: RunConfig, attempts: int | None, length: int | None, mean: int | None
) -> AttemptShape:
    """How many attempts of how many tokens: flags go before the recipe.

    Raises:
        InputError: a number is out of range.
    """
    longest = length or config.max_tokens + _PROMPT
    prompt = min(_PROMPT, max(1, longest // 2))
    new = longest - prompt
    try:
        return AttemptShape(
            attempts=attempts or config.attempts,
            prompt=prompt,
            length=longest,
            mean_new=max(1, new // 2) if mean is None else mean,
        )
    except ValueError as error:
        raise InputError(f"these attempts cannot be planned: {error}") from error


def contest_shape(recipe: Recipe) -> ContestShape | None:
    """The recipe's contest; None when it has none."""
    contest = recipe.contest
    return None if contest is None else ContestShape(contest.problems, contest.budget_s)


def planned_engines(
    recipe: Recipe, config: RunConfig, hardware: Hardware, length: int | None = None
) -> tuple[tuple[PlannedEngine, ...], tuple[str, ...]]:
    """The engines that run on these machines, and the names of those that run elsewhere.

    Args:
        recipe: of these engines.
        config: the run that it asks for.
        hardware: the machines.
        length: tokens of an attempt, where a flag says; engines without a `max_model_len` take such requests.

    Raises:
        InputError: a model or a format is not known, a setting is out of range, or an engine is for other machines.
        ModelError: a model's files do not describe one.
    """
    longest = length or config.max_tokens + _PROMPT
    specs = config.engines or (EngineSpec("main", "ryanstream", config.model),)
    planned, elsewhere = [], []
    for spec in specs:
        if spec.type == "openai_server":
            elsewhere.append(spec.name)
            continue
        try:
            if spec.type == "vllm":
                engine = _vllm(spec, config, hardware, longest)
            else:
                engine = _embedded(spec, config, longest)
        except ValueError as error:
            raise InputError(f"the engine {spec.name!r} cannot be planned: {error}") from error
        _check_machines(engine, hardware.accelerator)
        planned.append(engine)
    return tuple(planned), tuple(elsewhere)


def _check_machines(engine: PlannedEngine, accelerator: Accelerator) -> None:
    """Refuse an engine for a GPU on a CPU, and the reverse: its speed and memory would be another machine's."""
    if engine.on_cpu == accelerator.is_cpu:
        return
    if accelerator.is_cpu:
        raise InputError(
            f"the engine {engine.name!r} is planned for GPUs: say which, with [hardware] in the recipe or --accelerator"
        )
    raise InputError(
        f"the engine {engine.name!r} runs on the CPU, and the machines are {accelerator.title}: give it "
        'device = "cuda" in the recipe, or plan without --accelerator and [hardware]'
    )


def _vllm(spec: EngineSpec, config: RunConfig, hardware: Hardware, longest: int) -> PlannedEngine:
    if spec.model.endswith(".gguf"):
        raise InputError(f"the engine {spec.name!r}: how vLLM keeps the weights of a GGUF file is not counted here")
    settings, shape = VLLMSettings(**spec.settings), find_model(spec.model)
    _, tokens = default_limits(hardware.accelerator)
    return PlannedEngine(
        name=spec.name,
        kind="vllm",
        shape=shape,
        packed=weight_format(settings.quantization or shape.published_format),
        layout=Layout(settings.tensor_parallel_size, settings.pipeline_parallel_size),
        kv_cache_dtype=settings.kv_cache_dtype,
        max_model_len=settings.max_model_len or max(2, min(shape.max_positions, longest)),
        limits=VLLMLimits(
            gpu_memory_utilization=settings.gpu_memory_utilization,
            max_num_seqs=settings.max_num_seqs or config.max_in_flight,
            max_num_batched_tokens=settings.max_num_batched_tokens or tokens,
            enforce_eager=settings.enforce_eager,
        ),
        pillars=spec.pillars,
    )


def _embedded(spec: EngineSpec, config: RunConfig, longest: int) -> PlannedEngine:
    settings: Mapping[str, Any] = spec.settings
    precision = str(settings.get("precision", config.precision))
    on_cpu = not str(settings.get("device", config.device)).startswith("cuda")
    precisions: tuple[str, ...] = (precision,)
    if precision == "auto":  # both are kept where there is room (`rank_loading.py`)
        precisions = ("w8a8", "int4") if on_cpu else ("bf16", "nf4")
    return PlannedEngine(
        name=spec.name,
        kind="ryanstream",
        shape=find_model(spec.model),
        packed=embedded_format(precisions[0], not on_cpu),
        layout=Layout(1 if on_cpu else int(settings.get("tensor_parallel", config.tensor_parallel))),
        kv_cache_dtype=str(settings.get("kv_cache_dtype", config.kv_cache_dtype)),
        max_model_len=longest,
        limits=VLLMLimits(
            max_num_seqs=config.max_in_flight, max_num_batched_tokens=max(_MAX_STEP_TOKENS, 2 * config.max_in_flight)
        ),
        on_cpu=on_cpu,
        precisions=precisions,
        pillars=spec.pillars,
    )


def _count_of(recipe: Recipe) -> int:
    return recipe.hardware.count if recipe.hardware else 1
