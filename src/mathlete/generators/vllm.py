"""vLLM in this process, loaded. Not measured on a GPU: seen on its CPU build, written after its sources else.

Importing this imports neither vLLM nor torch: what is wrong with the settings or the model's folder is told first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mathlete.core.errors import EngineError, MathleteError
from mathlete.core.generation import Message
from mathlete.generators.chat_format import CHAT_FORMATS, chat_ids
from mathlete.generators.chat_template import TemplateChat
from mathlete.generators.turn_formats import TokenFormat
from mathlete.generators.vllm_checks import check_layout, load_error, read_config, require_packages
from mathlete.generators.vllm_engine import TESTED_VERSION, VLLMEngine, prepare_environment, quiet_stdout
from mathlete.generators.vllm_generator import VLLMFacts, VLLMGenerator
from mathlete.generators.vllm_settings import VLLMSettings
from mathlete.generators.vllm_tokenizer import engine_tokenizer
from mathlete.generators.vllm_turns import ChatTurns, FormatTurns, Turns

__all__ = ["VLLMGenerator", "engine_arguments", "load_vllm"]


def load_vllm(
    model: str,
    settings: VLLMSettings,
    *,
    max_model_len: int,
    max_num_seqs: int,
    constraints: bool = False,
    token_format: TokenFormat | None = None,
) -> VLLMGenerator:
    """Load a model into vLLM.

    Args:
        model: path of a Hugging Face folder, or a name on its hub.
        settings: how vLLM is set up.
        max_model_len: tokens of prompt and completion, unless the settings say; fewer where the model reads fewer.
        max_num_seqs: requests that run at once, unless the settings say.
        constraints: whether requests may have constraints. It costs a little in each step, and on GPUs vLLM's newer
            model runner.
        token_format: how the model takes its turns, where they are not text between control tokens (Harmony).

    Raises:
        EngineError: vLLM, a GPU, a file or memory is missing; the message says which, and what to do.
        ModelError: the model's tokenizer or chat format is not known.
    """
    require_packages(settings)
    config = read_config(model)
    prepare_environment(constraints)
    check_layout(settings, config, num_gpus())
    if constraints and token_format is not None:
        raise EngineError(f"turn_format {token_format.name} has no constraints: leave them out")
    if constraints and settings.speculative_config is not None:
        raise EngineError(
            "vLLM keeps to no constraint while it guesses tokens: leave speculative_config or constraints"
        )
    arguments = engine_arguments(model, settings, max_model_len, max_num_seqs)
    engine: VLLMEngine | None = None
    try:
        with quiet_stdout():
            engine = VLLMEngine(arguments, settings.max_model_len is None, constraints)
            generator = _generator(engine, settings, constraints, token_format, arguments)
            if settings.speculative_config is not None:
                generator.check_logprobs()
    except BaseException as error:
        if engine is not None:
            engine.close()
        if isinstance(error, MathleteError) or not isinstance(error, Exception):
            raise
        raise load_error(error, model) from error
    return generator


def num_gpus() -> int:
    """GPUs that this process can use. Imports torch; starts no CUDA."""
    count: int = importlib.import_module("torch").cuda.device_count()
    return count


def engine_arguments(model: str, settings: VLLMSettings, max_model_len: int, max_num_seqs: int) -> dict[str, Any]:
    """The arguments of vLLM's `EngineArgs`; what is left to vLLM is left out."""
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": settings.dtype,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        "enable_prefix_caching": settings.enable_prefix_caching,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "max_model_len": settings.max_model_len or max_model_len,
        "max_num_seqs": settings.max_num_seqs or max_num_seqs,
        "enforce_eager": settings.enforce_eager,
        "scheduling_policy": "priority",
        "logprobs_mode": "raw_logprobs",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    for name in (
        "quantization", "kv_cache_memory_bytes", "max_num_batched_tokens", "revision", "distributed_executor_backend"
    ):  # fmt: skip
        if (value := getattr(settings, name)) is not None:
            arguments[name] = value
    if settings.quantization == "bitsandbytes":
        arguments["load_format"] = "bitsandbytes"
    if settings.speculative_config is not None:
        arguments["speculative_config"] = dict(settings.speculative_config)
        arguments["per_request_spec_decode_metrics"] = "summary"
    return arguments


def _generator(
    engine: VLLMEngine,
    settings: VLLMSettings,
    constraints: bool,
    token_format: TokenFormat | None,
    arguments: Mapping[str, Any],
) -> VLLMGenerator:
    tokenizer = engine_tokenizer(engine.tokenizer, engine.generation_config)
    token_bytes = tokenizer.token_bytes(engine.vocab_size)
    turns: Turns
    if token_format is not None:
        turns = FormatTurns(token_format)
    else:
        known = [form for form in CHAT_FORMATS if all(name in tokenizer.control_tokens for name in form.needs)]
        chat: Callable[[Sequence[Message]], list[int]]
        if known:
            chat = lambda messages: chat_ids(tokenizer, messages)  # noqa: E731
        else:
            chat = TemplateChat(tokenizer, engine.tokenizer)
        turns = ChatTurns(tokenizer, token_bytes, chat, known[0].turn_start if known else "")
    gives_seeds = settings.use_seeds and not engine.is_cpu_build
    facts = VLLMFacts(
        description=f"vllm {engine.version}, {'CPU build' if engine.is_cpu_build else 'CUDA'}",
        speculates=settings.speculative_config is not None,
        constraints=constraints,
        gives_seeds=gives_seeds,
        token_bytes=token_bytes,
        eos_token_ids=tokenizer.eos_token_ids,
        warnings=tuple(_warnings(engine, settings, int(arguments["max_model_len"]))),
    )
    return VLLMGenerator(engine, turns, facts)


def _warnings(engine: VLLMEngine, settings: VLLMSettings, wanted_len: int) -> Iterable[str]:
    if engine.is_cpu_build and settings.use_seeds:
        yield "vLLM's CPU build ends on a request with a seed: none is given, and runs do not repeat"
    if engine.max_model_len < wanted_len:
        yield f"the model reads {engine.max_model_len} tokens at most, so prompt and answer may have no more together"
    if not engine.version.startswith(f"{TESTED_VERSION}."):
        yield f"vLLM {engine.version} is not the version that this was written for, {TESTED_VERSION}"
