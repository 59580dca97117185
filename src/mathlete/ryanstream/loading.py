"""From a model file to a running engine: picks precision, kernels and cache size for this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mathlete.core.errors import EngineError
from mathlete.ryanstream.checkpoint.convert import Progress, open_source
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.machine import available_memory_bytes
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import block_bytes
from mathlete.ryanstream.model.tokenizer import EngineTokenizer
from mathlete.ryanstream.parallel.layout import rank_devices
from mathlete.ryanstream.parallel.runner import LeadingTransformer, ParallelRunner
from mathlete.ryanstream.parallel.sharding import Shard, shard_config
from mathlete.ryanstream.parallel.workers import Workers
from mathlete.ryanstream.placement import gpu_free_bytes, resolve_device
from mathlete.ryanstream.precision import AutoPrecisionManager
from mathlete.ryanstream.prompt_cache import PromptCache, PromptCacheKey
from mathlete.ryanstream.proposer_loading import Target, load_speculation
from mathlete.ryanstream.rank_loading import RankModel, RankTask, load_rank
from mathlete.ryanstream.runner import ModelRunner
from mathlete.ryanstream.scheduler import SchedulerConfig

# Tokens a running request is expected to hold on average; what it needs beyond is met by preemption.
_EXPECTED_TOKENS = 2048
_MAX_MEMORY_PART = 0.3
_MAX_GPU_PART = 0.8  # of what the weights leave


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine and what goes with it.

    Attributes:
        engine: token ids in, token ids out.
        tokenizer: the model's own.
        config: the model's shape.
        token_bytes: the bytes of each token id.
        kernels: "native", "torch (why not native)", or "triton".
        precisions: what chooses the precision of each step, None when there is but one.
        workers: the processes of the other ranks with tensor parallelism, None otherwise.
        speculation: what guesses tokens, or why nothing does, for a person.
    """

    engine: Engine
    tokenizer: EngineTokenizer
    config: ModelConfig
    token_bytes: list[bytes]
    kernels: str
    precisions: AutoPrecisionManager | None = None
    workers: Workers | None = None
    speculation: str = "off"

    def close(self) -> None:
        """End the processes of the other ranks, if there are any. Safe to call twice."""
        if self.workers is not None:
            self.workers.close()


def load_engine(model_path: Path, cache_dir: Path, config: EngineConfig, progress: Progress) -> LoadedEngine:
    """Load a GGUF file or a safetensors folder; the first time it is converted into the cache.

    Raises:
        ModelError: when the model is damaged, of an unknown kind, or cannot be cut into `tensor_parallel` parts; or
            what guesses tokens is, or does not fit it.
        StorageError: when the cache cannot be written.
        EngineError: when the KV cache would not fit into memory, or a rank's process could not load its part.
    """
    devices = rank_devices(resolve_device(config), config.tensor_parallel)
    tasks = [RankTask(model_path, cache_dir, replace(config, device=str(device))) for device in devices]
    workers = None
    if config.tensor_parallel > 1:
        shard_config(open_source(model_path).config, Shard(0, config.tensor_parallel))  # before any process is started
        workers = Workers(devices, tasks[1:], in_order=config.batch_invariant)
    try:
        return _load_engine(tasks[0], workers, progress)
    except BaseException:
        if workers is not None:
            workers.close()
        raise


def _load_engine(task: RankTask, workers: Workers | None, progress: Progress) -> LoadedEngine:
    config = task.config
    rank = load_rank(task, workers.group if workers else None, progress)
    num_blocks = _num_blocks(rank, config)
    whole = rank.checkpoint.config()
    tokenizer = EngineTokenizer.load(rank.checkpoint.path)
    if workers is None:
        model, make_runner = rank.transformer(), ModelRunner
    else:
        workers.wait_until_loaded(num_blocks)
        shape = replace(rank.shape, vocab_size=whole.vocab_size)  # rank 0's logits are the whole model's
        model, make_runner = LeadingTransformer(shape, rank.weights, rank.ops, workers), ParallelRunner
    runner = make_runner(
        model, num_blocks, rank.kv_dtype, rank.kernels, tokenizer.eos_token_ids, rank.precisions,
        row_by_row=config.batch_invariant and rank.kernels is None, sampler=rank.sampler,
    )  # fmt: skip
    token_bytes = tokenizer.token_bytes(whole.vocab_size)
    limits = SchedulerConfig(config.max_running, config.max_step_tokens, min(config.max_model_len, whole.max_positions))
    prompts = _prompt_cache(task, rank) if config.prompt_cache else None
    guesses = load_speculation(Target(task, rank, runner, tokenizer, num_blocks), progress)
    engine = Engine(
        runner,
        num_blocks,
        tokenizer.eos_token_ids,
        token_bytes,
        limits,
        runner.block_bytes * config.tensor_parallel,
        prompts,
        speculation=guesses.speculation,
    )
    return LoadedEngine(
        engine, tokenizer, whole, token_bytes, rank.description, rank.precisions, workers, guesses.description
    )


def _prompt_cache(task: RankTask, rank: RankModel) -> PromptCache:
    """The folder's entries of this model as it is computed here."""
    build = rank.kernels.name if rank.kernels else rank.description
    kernels = f"{build}, {task.config.tensor_parallel} ranks, batch_invariant={task.config.batch_invariant}"
    key = PromptCacheKey(rank.checkpoint.path.name, task.config.precision, str(rank.kv_dtype), kernels)
    return PromptCache(task.cache_dir / "prompts", key)


def _num_blocks(rank: RankModel, config: EngineConfig) -> int:
    of_all_ranks = block_bytes(rank.shape, rank.kv_dtype) * config.tensor_parallel
    if config.kv_cache_bytes is not None:
        return max(1, config.kv_cache_bytes // of_all_ranks)
    wanted = max(config.max_running * _EXPECTED_TOKENS, config.max_model_len) // BLOCK_SIZE + 1
    device = rank.weights.embedding.device
    if device.type == "cuda":  # the weights are there already, and each rank has a GPU of its own
        part, memory = _MAX_GPU_PART, gpu_free_bytes(device) * config.tensor_parallel
    else:
        part, memory = _MAX_MEMORY_PART, available_memory_bytes()
    affordable = int(memory * part) // of_all_ranks
    if affordable < 1:
        raise EngineError(
            f"keys and values of {BLOCK_SIZE} tokens need {of_all_ranks / 2**20:.1f} MiB, more than {part:.0%} of "
            f"the memory of {device}; choose a smaller model"
        )
    return min(wanted, affordable)
