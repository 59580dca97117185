"""How to run a model: the settings of an engine. Data only; `loading.py` acts on them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from mathlete.ryanstream.model.weights import PRECISIONS, Precision

KVCacheDtype = Literal["bf16", "int8"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How to run a model.

    Attributes:
        precision: see `model.weights`; "auto" lets `precision.AutoPrecisionManager` choose for each step; "fp32" is
            for parity tests.
        kv_cache_dtype: of keys and values, "bf16" or "int8" (half the memory). With precision "fp32" it is fp32.
        batch_invariant: guarantee that a request's tokens do not depend on what else is computed. See
            `docs/engine.md`: free with the native kernels, slow without.
        device: "cpu", "cuda" or "cuda:N".
        compile_torch: fuse the elementwise paths through `torch.compile` where plain torch runs on the CPU. Off: it
            costs half a minute and saves next to nothing (`benchmarks/compiled_paths.py`).
        tensor_parallel: processes that hold the model together.
        prompt_cache: keep keys and values of system prompts on disk between runs.
        max_running: requests computed at once.
        max_step_tokens: tokens computed in a step.
        max_model_len: tokens of a request, prompt and output, at most.
        kv_cache_bytes: memory for keys and values; None sizes it for `max_running` requests.
        num_threads: CPU threads; None for all cores this process may use.
    """

    precision: Precision | Literal["auto"] = "w8a8"
    kv_cache_dtype: KVCacheDtype = "bf16"
    batch_invariant: bool = False
    device: str = "cpu"
    compile_torch: bool = False
    tensor_parallel: int = 1
    prompt_cache: bool = True
    max_running: int = 32
    max_step_tokens: int = 256
    max_model_len: int = 4096
    kv_cache_bytes: int | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.precision not in (*PRECISIONS, "auto"):
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)} or auto, not {self.precision!r}")
        if self.kv_cache_dtype not in get_args(KVCacheDtype):
            raise ValueError(f"kv_cache_dtype must be bf16 or int8, not {self.kv_cache_dtype!r}")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be cpu, cuda or cuda:N, not {self.device!r}")
        if self.batch_invariant and self.precision == "auto":
            raise ValueError('batch_invariant needs one precision: "auto" chooses it by the size of the batch')
        if self.tensor_parallel > 1 and self.precision == "auto":
            raise ValueError('tensor_parallel needs one precision: with "auto" the ranks might choose differently')
        sizes = ("tensor_parallel", "max_running", "max_step_tokens", "max_model_len", "kv_cache_bytes", "num_threads")
        for name in sizes:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, not {value}")
