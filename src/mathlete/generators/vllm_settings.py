"""The options of vLLM's engine in process, under vLLM's own names. Plain data; imports no vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mathlete.generators.turn_formats import TOOLS, ReasoningEffort, TurnFormatName, TurnSettings

# Methods of vLLM 0.32 that guess with a model of their own, which must be named, and those that need a number.
_NEED_A_MODEL = ("eagle", "eagle3", "medusa", "mlp_speculator", "draft_model", "dflash", "dspark")
_NEED_A_NUMBER = ("ngram", "ngram_gpu")


@dataclass(frozen=True, slots=True)
class VLLMSettings:
    """How vLLM is set up; each field is the argument of vLLM's `EngineArgs` of that name. None leaves it to vLLM.

    Attributes:
        dtype: of weights and activations: "auto", "bfloat16", "float16" or "float32".
        quantization: "awq", "fp8", "mxfp4", "bitsandbytes" (with `vllm-bnb-plugin`), ...; None for what the
            checkpoint says.
        kv_cache_dtype: "auto" or "fp8".
        tensor_parallel_size: GPUs that share each layer.
        pipeline_parallel_size: groups of them that share the layers.
        distributed_executor_backend: "uni" (this process computes), "mp" (processes of this host) or "ray" (several
            hosts); None for "uni" on one GPU, "mp" on CPUs, where it is faster, and vLLM's choice on several GPUs.
        enable_prefix_caching: siblings compute their prompt once.
        gpu_memory_utilization: part of each GPU's memory that may be used, in (0, 1]; of the host's, on a CPU build.
        kv_cache_memory_bytes: of keys and values on each GPU; it overrides `gpu_memory_utilization`.
        max_model_len: tokens of prompt and completion at most.
        max_num_seqs: requests that run at once.
        max_num_batched_tokens: tokens of a step.
        speculative_config: vLLM's own mapping: `{method = "eagle3", model = ..., num_speculative_tokens = 3}`.
        enforce_eager: no CUDA graphs; for vLLM's CPU build.
        revision: of the checkpoint.
        use_seeds: whether requests carry seeds; vLLM's CPU build ends on one, so they are left out there anyway.
        turn_format: see `TurnSettings`; "auto", "chat" or "harmony".
        reasoning_effort: see `TurnSettings`; for "harmony".
        tools: see `TurnSettings`; for "harmony".
    """

    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    distributed_executor_backend: str | None = None
    enable_prefix_caching: bool = True
    gpu_memory_utilization: float = 0.92
    kv_cache_memory_bytes: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    speculative_config: Mapping[str, Any] | None = None
    enforce_eager: bool = False
    revision: str | None = None
    use_seeds: bool = True
    turn_format: TurnFormatName = "auto"
    reasoning_effort: ReasoningEffort | None = None
    tools: tuple[str, ...] = TOOLS

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        object.__setattr__(self, "tools", tuple(self.tools) if isinstance(self.tools, list) else self.tools)
        for name in (
            "tensor_parallel_size", "pipeline_parallel_size", "max_model_len", "max_num_seqs",
            "max_num_batched_tokens", "kv_cache_memory_bytes",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be >= 1, not {value!r}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(f"gpu_memory_utilization must be in (0, 1], not {self.gpu_memory_utilization}")
        if self.distributed_executor_backend not in (None, "uni", "mp", "ray"):
            raise ValueError(
                f"distributed_executor_backend must be uni, mp or ray, not {self.distributed_executor_backend!r}"
            )
        if self.turn_format == "tool_calls":
            raise ValueError("turn_format tool_calls is for servers: vLLM in process is given token ids")
        _ = self.turns
        if self.speculative_config is not None:
            _check_speculation(self.speculative_config)

    @property
    def turns(self) -> TurnSettings:
        """What is said of turns. Raises `ValueError` naming the first field that is out of range."""
        return TurnSettings(self.turn_format, self.reasoning_effort, self.tools)

    @property
    def num_gpus(self) -> int:
        """GPUs that hold the model together."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


def _check_speculation(config: Mapping[str, Any]) -> None:
    """Raise `ValueError` for what vLLM would refuse minutes later. What else stands there is vLLM's to judge."""
    if not isinstance(config, Mapping):
        raise ValueError(f"speculative_config must be a table such as {{method = 'ngram'}}, not {config!r}")
    method, num_tokens = config.get("method"), config.get("num_speculative_tokens")
    if method is None and not config.get("model"):
        raise ValueError("speculative_config needs a method (ngram, eagle3, ...) or a model")
    if method in _NEED_A_MODEL and not config.get("model"):
        raise ValueError(f"speculative_config of method {method} guesses with a model: give model, a path or name")
    is_number = isinstance(num_tokens, int) and not isinstance(num_tokens, bool) and num_tokens >= 1
    if not is_number and (num_tokens is not None or method in _NEED_A_NUMBER):
        raise ValueError(f"speculative_config.num_speculative_tokens must be >= 1, not {num_tokens!r}")
