"""The options of vLLM's engine in process, under vLLM's own names. Plain data; imports no vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class VLLMSettings:
    """How vLLM is set up; each field is the argument of vLLM's `EngineArgs` of that name. None leaves it to vLLM.

    Attributes:
        dtype: of weights and activations: "auto", "bfloat16", "float16" or "float32".
        quantization: "bitsandbytes", "awq", "fp8", "mxfp4", ...; None for what the checkpoint says.
        kv_cache_dtype: "auto" or "fp8".
        tensor_parallel_size: GPUs that share each layer.
        pipeline_parallel_size: groups of them that share the layers.
        distributed_executor_backend: "mp" or "ray"; "ray" where the model is larger than a host.
        enable_prefix_caching: siblings compute their prompt once.
        gpu_memory_utilization: part of each GPU's memory that may be used, in (0, 1].
        max_model_len: tokens of prompt and completion at most.
        max_num_seqs: requests that run at once.
        max_num_batched_tokens: tokens of a step.
        speculative_config: vLLM's own mapping: `{method = "eagle3", model = ..., num_speculative_tokens = 3}`.
        enforce_eager: no CUDA graphs; for vLLM's CPU build.
        revision: of the checkpoint.
        use_seeds: whether requests carry seeds; vLLM's CPU build ends on one, so they are left out there anyway.
    """

    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    distributed_executor_backend: str | None = None
    enable_prefix_caching: bool = True
    gpu_memory_utilization: float = 0.92
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    speculative_config: Mapping[str, Any] | None = None
    enforce_eager: bool = False
    revision: str | None = None
    use_seeds: bool = True

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, not {getattr(self, name)}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(f"gpu_memory_utilization must be in (0, 1], not {self.gpu_memory_utilization}")
