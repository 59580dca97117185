"""From a configuration to what guesses tokens: loads the proposer, and measures what decides how far it may go."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from mathlete.core.errors import ModelError
from mathlete.ryanstream.checkpoint.convert import Progress
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.kv_cache import blocks_for
from mathlete.ryanstream.machine import available_cores, available_memory_bytes, processor_name
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import allocate_cache, block_bytes
from mathlete.ryanstream.model.ops_native import native_supports
from mathlete.ryanstream.model.tokenizer import EngineTokenizer
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.placement import gpu_free_bytes
from mathlete.ryanstream.rank_loading import RankModel, RankTask, load_rank, operations_for
from mathlete.ryanstream.runner import ModelRunner
from mathlete.ryanstream.speculative.adaptive_depth import AdaptiveDepth
from mathlete.ryanstream.speculative.depth_control import DepthControl, FixedDepth
from mathlete.ryanstream.speculative.draft_forward import draft_batch, known_rows
from mathlete.ryanstream.speculative.draft_model import DraftModelProposer
from mathlete.ryanstream.speculative.draft_tree import MAX_DRAFT_NODES
from mathlete.ryanstream.speculative.eagle import EagleProposer
from mathlete.ryanstream.speculative.eagle_head import load_eagle_head, place_eagle_head
from mathlete.ryanstream.speculative.early_exit import EarlyExitProposer
from mathlete.ryanstream.speculative.exit_adapter import load_exit_adapter
from mathlete.ryanstream.speculative.exit_choice import MEASURED_TEXT, ExitChoice, choose_exit_layer, remembered_choice
from mathlete.ryanstream.speculative.methods import RUN_A_MODEL
from mathlete.ryanstream.speculative.ngram import NgramProposer
from mathlete.ryanstream.speculative.proposer import Proposer
from mathlete.ryanstream.speculative.sibling_suffix import SiblingSuffixProposer
from mathlete.ryanstream.speculative.speculation import Speculation
from mathlete.ryanstream.speculative.step_cost import StepCostModel, StepCurve, remembered_curve
from mathlete.ryanstream.speculative.tree_growth import SPEC_A2_TREE, GrowthRule

_CURVE_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_REPEATS = 3
_MOST_LOOKED_UP = 24  # nodes of a tree that costs nothing to guess, but rows to look at
_MAX_MEMORY_PART = 0.3  # for keys and values of a draft, of what is free then


class LoadedProposer(NamedTuple):
    """A proposer, or None where it would not pay; and what was loaded or measured, for a person."""

    proposer: Proposer | None
    description: str


@dataclass(frozen=True, slots=True)
class Target:
    """The model that is guessed for.

    Attributes:
        task: what was asked for.
        rank: its weights and operations.
        runner: executes its steps.
        tokenizer: its own.
        num_blocks: of its KV cache.
    """

    task: RankTask
    rank: RankModel
    runner: ModelRunner
    tokenizer: EngineTokenizer
    num_blocks: int

    @property
    def draft_kv_dtype(self) -> torch.dtype:
        """Of a draft's own cache."""
        return torch.float32 if self.rank.kv_dtype == torch.float32 else torch.bfloat16


class LoadedSpeculation(NamedTuple):
    """What an engine is given, None for nothing; and a line for a person."""

    speculation: Speculation | None
    description: str


def load_speculation(target: Target, progress: Progress) -> LoadedSpeculation:
    """The proposer and the depth control that the configuration asks for.

    Raises:
        ModelError: when a draft model, a head or an exit is damaged, or does not fit the target.
        StorageError: when the cache cannot be written.
        EngineError: when there is no memory for a draft's keys and values.
    """
    config = target.task.config
    if config.speculative == "off":
        return LoadedSpeculation(None, "off")
    proposer, description = _load_proposer(target, progress)
    if proposer is None:
        return LoadedSpeculation(None, f"off ({description})")
    return LoadedSpeculation(Speculation(proposer, _depth_control(target)), description)


def require_same_tokens(
    draft_path: Path, draft: EngineTokenizer, draft_config: ModelConfig, target: EngineTokenizer, config: ModelConfig
) -> None:
    """Raise `ModelError`, saying what differs, unless a token id means the same to both models."""
    for name in sorted({*draft.control_tokens, *target.control_tokens}):
        ours, theirs = target.control_tokens.get(name), draft.control_tokens.get(name)
        if ours != theirs:
            raise ModelError(
                f"{draft_path} cannot guess for this model: its token {name} is {theirs}, the model's is {ours}; "
                "a draft model needs the same tokenizer"
            )
    size = max(draft_config.vocab_size, config.vocab_size)
    pairs = zip(target.token_bytes(size), draft.token_bytes(size), strict=True)
    for token_id, (ours_bytes, theirs_bytes) in enumerate(pairs):
        if ours_bytes != theirs_bytes:
            raise ModelError(
                f"{draft_path} cannot guess for this model: token {token_id} is {theirs_bytes!r} there and "
                f"{ours_bytes!r} here; a draft model needs the same tokenizer"
            )


def measure_curve(
    model: Transformer,
    kv_dtype: torch.dtype,
    weights_for: Callable[[int], None],
    rows: Sequence[int] = _CURVE_ROWS,
    clock: Callable[[], float] = time.perf_counter,
) -> StepCurve:
    """Time a pass of each number of rows, head included; `weights_for(num_rows)` puts the weights for it in place.

    What is done once for a width, kernels compiled or a graph captured, is not part of it.
    """
    device = model.weights.embedding.device
    blocks = list(range(blocks_for(max(rows))))
    cache = allocate_cache(model.config, len(blocks), kv_dtype, device)
    seconds = []
    for num_rows in rows:
        weights_for(num_rows)
        batch = draft_batch(known_rows(range(num_rows), 0, blocks, 0, samples=True), [blocks])
        taken = []
        for _ in range(_REPEATS + 1):  # the first reads the weights from disk
            start = clock()
            model.forward(batch, cache).logits.argmax(-1).tolist()
            taken.append(clock() - start)
        seconds.append(max(min(taken[1:]), 1e-9))
    return StepCurve(tuple(rows), tuple(seconds))


def _load_proposer(target: Target, progress: Progress) -> LoadedProposer:
    match target.task.config.speculative:
        case "draft":
            return _load_draft(target, progress)
        case "early_exit":
            return _load_early_exit(target)
        case "eagle":
            return _load_eagle(target)
        case "ngram":
            return LoadedProposer(NgramProposer(), "what the request itself has said")
        case "suffix":
            return LoadedProposer(SiblingSuffixProposer(), "what the requests of a group have said")
        case method:
            raise ValueError(f"speculative {method!r} has no proposer")


def _load_draft(target: Target, progress: Progress) -> LoadedProposer:
    config, path = target.task.config, _given_path(target)
    alone = replace(
        config, speculative="off", draft_model=None, draft_width=1, draft_drawn=False, kv_cache_dtype="bf16"
    )
    rank = load_rank(RankTask(path, target.task.cache_dir, alone), None, progress)
    whole = target.rank.checkpoint.config()
    require_same_tokens(path, EngineTokenizer.load(rank.checkpoint.path), rank.shape, target.tokenizer, whole)
    proposer = DraftModelProposer(
        rank.transformer(),
        _draft_blocks(target, rank.shape),
        target.draft_kv_dtype,
        rank.kernels if rank.sampler is None else rank.sampler,
        rank.precisions,
        _rule(config),
        whole.vocab_size,
    )
    return LoadedProposer(proposer, f"draft model {path.name}, {rank.shape.num_layers} layers")


def _load_early_exit(target: Target) -> LoadedProposer:
    config, rank, runner = target.task.config, target.rank, target.runner
    adapter, exit_layer = None, config.exit_layer
    description = f"layer {exit_layer} of {rank.shape.num_layers}"
    if config.draft_model is not None:
        adapter = load_exit_adapter(config.draft_model, rank.shape)
        exit_layer = adapter.exit_layer if exit_layer is None else exit_layer
        if exit_layer != adapter.exit_layer:
            raise ModelError(f"{config.draft_model} was trained for layer {adapter.exit_layer}, not {exit_layer}")
        adapter = adapter.to(rank.weights.embedding.device)
        description = f"layer {exit_layer} of {rank.shape.num_layers}, trained"
    if exit_layer is None:
        if rank.shape.num_layers == 1:
            raise ModelError("a model of one layer cannot guess with fewer layers; choose another speculative method")
        choice = remembered_choice(_calibration(target, f"exits:{config.num_speculative_tokens}"), _exits(target))
        exit_layer, description = choice.exit_layer, choice.describe()
        if exit_layer is None:
            return LoadedProposer(None, f"early exit: {description}")
    if exit_layer >= rank.shape.num_layers:
        raise ModelError(f"exit_layer must be below the model's {rank.shape.num_layers} layers, not {exit_layer}")
    sampler = rank.kernels if rank.sampler is None else rank.sampler
    proposer = EarlyExitProposer(
        runner.model, runner.cache, exit_layer, sampler, rank.precisions, _rule(config), adapter
    )
    return LoadedProposer(proposer, f"early exit: {description}")


def _load_eagle(target: Target) -> LoadedProposer:
    config, rank, path = target.task.config, target.rank, _given_path(target)
    head = load_eagle_head(path, target.rank.checkpoint.config())
    device = rank.weights.embedding.device
    kernels = rank.kernels if native_supports(head.config) else None
    dtype = torch.float32 if config.precision == "fp32" else torch.bfloat16
    proposer = EagleProposer(
        place_eagle_head(head, device, dtype, kernels),
        target.runner.model,
        operations_for(config, head.config, device, kernels, "the head's shape does not fit the kernels").ops,
        _draft_blocks(target, head.config),
        target.draft_kv_dtype,
        rank.kernels if rank.sampler is None else rank.sampler,
        _rule(config),
    )
    return LoadedProposer(proposer, f"EAGLE head {path.name}")


def _given_path(target: Target) -> Path:
    path = target.task.config.draft_model
    assert path is not None, "EngineConfig asks for it"
    return path


def _rule(config: EngineConfig) -> GrowthRule:
    if config.draft_width > 1:
        return replace(SPEC_A2_TREE, width=config.draft_width)
    return GrowthRule(drawn=config.draft_drawn)


def _depth_control(target: Target) -> DepthControl:
    config = target.task.config
    depth = config.num_speculative_tokens
    nodes = _most_nodes(config)
    if not config.adaptive_depth:
        return FixedDepth(depth, nodes)
    return AdaptiveDepth(StepCostModel(_step_curve(target)), depth, nodes)


def _most_nodes(config: EngineConfig) -> int:
    """Of a request's tree. Guesses from what was said before branch where it went on in more than one way."""
    depth = config.num_speculative_tokens
    if config.speculative in RUN_A_MODEL:
        return min(MAX_DRAFT_NODES, depth * config.draft_width)
    return max(depth, min(2 * depth, _MOST_LOOKED_UP))


def _step_curve(target: Target) -> StepCurve | None:
    """What a step costs by its rows, measured once a machine; None where a plain pass is not what a step does."""
    task, rank = target.task, target.rank
    if task.config.tensor_parallel > 1 or (task.config.batch_invariant and rank.kernels is None):
        return None
    model = target.runner.model
    return remembered_curve(
        _calibration(target, "steps"),
        _CURVE_ROWS,
        lambda: measure_curve(model, rank.kv_dtype, _weights_for(target)),
    )


def _exits(target: Target) -> Callable[[], ExitChoice]:
    """Measures where to leave, with the weights that decode."""

    def measure() -> ExitChoice:
        _weights_for(target)(1)
        text = target.tokenizer.encode(MEASURED_TEXT)
        depth = target.task.config.num_speculative_tokens
        return choose_exit_layer(target.runner.model, text, target.rank.kv_dtype, depth)

    return measure


def _calibration(target: Target, what: str) -> Path:
    """Where a measurement of the target on this machine is kept."""
    task, rank = target.task, target.rank
    named = (
        f"{what}:{rank.checkpoint.path.name}:{task.config.precision}:{rank.kv_dtype}:{processor_name()}:"
        f"{task.config.num_threads or available_cores()}:{rank.kernels.name if rank.kernels else rank.description}:"
        f"{rank.graph_blocks is not None}"
    )
    return task.cache_dir / "calibration" / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.json"


def _weights_for(target: Target) -> Callable[[int], None]:
    """Puts the weights that a step of so many rows computes with into the target."""

    def put(num_rows: int) -> None:
        if target.rank.precisions is not None:
            target.runner.model.weights = target.rank.precisions.weights(num_rows)

    return put


def _draft_blocks(target: Target, shape: ModelConfig) -> int:
    """As many as the target has, where there is memory for them."""
    device = target.rank.weights.embedding.device
    free = gpu_free_bytes(device) if device.type == "cuda" else available_memory_bytes()
    affordable = int(free * _MAX_MEMORY_PART) // block_bytes(shape, target.draft_kv_dtype)
    return max(1, min(target.num_blocks, affordable))
