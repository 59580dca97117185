"""From a model file to a running engine: picks precision, kernels and cache size for this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mathlete.core.errors import EngineError
from mathlete.ryanstream.checkpoint.convert import Progress, ensure_checkpoint
from mathlete.ryanstream.checkpoint.mapped import map_checkpoint
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.machine import available_cores, available_memory_bytes
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.native.kernels import KernelsUnavailable, NativeKernels, load_kernels
from mathlete.ryanstream.model.ops import Ops
from mathlete.ryanstream.model.ops_native import NativeOps, native_supports
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rotary import rotary_tables
from mathlete.ryanstream.model.tokenizer import EngineTokenizer
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.model.weights import PRECISIONS, Precision, assemble_weights
from mathlete.ryanstream.runner import ModelRunner
from mathlete.ryanstream.scheduler import SchedulerConfig

# Tokens a running request is expected to hold on average; what it needs beyond is met by preemption.
_EXPECTED_TOKENS = 2048
_MAX_MEMORY_PART = 0.3


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How to run a model.

    Attributes:
        precision: "w8a8" (int8 weights and activations), "bf16" or "fp32" (for parity tests).
        max_running: requests computed at once.
        max_step_tokens: tokens computed in a step.
        max_model_len: tokens of a request, prompt and output, at most.
        kv_cache_bytes: memory for keys and values; None sizes it for `max_running` requests.
        num_threads: CPU threads; None for all cores this process may use.
    """

    precision: Precision = "w8a8"
    max_running: int = 32
    max_step_tokens: int = 256
    max_model_len: int = 4096
    kv_cache_bytes: int | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        for name in ("max_running", "max_step_tokens", "max_model_len", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, not {value}")


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine and what goes with it.

    Attributes:
        engine: token ids in, token ids out.
        tokenizer: the model's own.
        config: the model's shape.
        token_bytes: the bytes of each token id.
        kernels: "native", or "torch (why not native)".
    """

    engine: Engine
    tokenizer: EngineTokenizer
    config: ModelConfig
    token_bytes: list[bytes]
    kernels: str


def load_engine(model_path: Path, cache_dir: Path, config: EngineConfig, progress: Progress) -> LoadedEngine:
    """Load a GGUF file or a safetensors folder; the first time it is converted into the cache.

    Raises:
        ModelError: when the model is damaged or of an unknown kind.
        StorageError: when the cache cannot be written.
        EngineError: when the KV cache would not fit into memory.
    """
    num_threads = config.num_threads or available_cores()
    torch.set_num_threads(num_threads)
    kernels = load_kernels(cache_dir / "kernels")
    native = kernels if isinstance(kernels, NativeKernels) else None
    checkpoint = ensure_checkpoint(model_path, cache_dir, config.precision, native, progress)
    shape = checkpoint.config()
    reason = kernels.reason if isinstance(kernels, KernelsUnavailable) else None
    if native is not None and not native_supports(shape):
        native, reason = None, "the model's shape does not fit them"
    if config.precision == "fp32":
        native, reason = None, "they do not run fp32"
    if native is not None:
        native.set_num_threads(num_threads)
        if config.precision == "w8a8":  # torch is left with small things; its idle threads would spin on our cores
            torch.set_num_threads(1)
    rotary = rotary_tables(config.max_model_len, shape.head_dim, shape.rope_theta)
    ops: Ops = NativeOps(shape, rotary, native) if native else TorchOps(shape, rotary)
    weights = assemble_weights(shape, map_checkpoint(checkpoint.weights), unpack=native is None)
    num_blocks = _num_blocks(shape, config)
    kv_dtype = torch.float32 if config.precision == "fp32" else torch.bfloat16
    runner = ModelRunner(Transformer(shape, weights, ops), num_blocks, kv_dtype, native)
    tokenizer = EngineTokenizer.load(checkpoint.path)
    token_bytes = tokenizer.token_bytes(shape.vocab_size)
    limits = SchedulerConfig(config.max_running, config.max_step_tokens, min(config.max_model_len, shape.max_positions))
    engine = Engine(runner, num_blocks, tokenizer.eos_token_ids, token_bytes, limits)
    return LoadedEngine(engine, tokenizer, shape, token_bytes, f"torch ({reason})" if reason else "native")


def _num_blocks(shape: ModelConfig, config: EngineConfig) -> int:
    width = 4 if config.precision == "fp32" else 2
    block_bytes = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * BLOCK_SIZE * width
    if config.kv_cache_bytes is not None:
        return max(1, config.kv_cache_bytes // block_bytes)
    wanted = max(config.max_running * _EXPECTED_TOKENS, config.max_model_len) // BLOCK_SIZE + 1
    affordable = int(available_memory_bytes() * _MAX_MEMORY_PART) // block_bytes
    if affordable * BLOCK_SIZE < config.max_model_len:
        raise EngineError(
            f"keys and values of one request of {config.max_model_len} tokens need "
            f"{config.max_model_len // BLOCK_SIZE * block_bytes / 2**30:.1f} GiB, more than "
            f"{_MAX_MEMORY_PART:.0%} of this machine's memory; choose a smaller model or fewer tokens"
        )
    return min(wanted, affordable)
