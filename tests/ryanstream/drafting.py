"""Driving proposers by hand in tests: a target that speculates nothing, and what is guessed before its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from driving import load

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.draft_model import DraftModelProposer
from mathlete.ryanstream.speculative.draft_tree import ROOT, DraftTree
from mathlete.ryanstream.speculative.eagle_head import EagleTensors, eagle_shapes, save_eagle_head
from mathlete.ryanstream.speculative.proposer import DraftSlot, Proposer


class Guess(NamedTuple):
    """What was guessed when a request had `num_output` tokens."""

    request: EngineRequest
    num_output: int
    tree: DraftTree

    def num_right(self) -> int:
        """How many tokens in a row, from the root down, came out; call it when the request has ended."""
        node, right = ROOT, 0
        for token_id in self.request.output_ids[self.num_output :]:
            child = self.tree.child(node, token_id)
            if child is None:
                break
            node, right = child, right + 1
        return right

    @property
    def deepest(self) -> int:
        """The most that could be right."""
        there = len(self.request.output_ids) - self.num_output
        return min(there, max(self.tree.depths(), default=0))


def draft_of(
    folder: Path, cache: Path, num_blocks: int = 64, precision: str = "w8a8", **settings: object
) -> DraftModelProposer:
    """A proposer with a tiny model of its own."""
    runner = load(folder, cache, precision=precision).engine.runner
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    return DraftModelProposer(runner.model, num_blocks, dtype, runner.kernels, **settings)  # type: ignore[arg-type]


def decoding(engine: Engine) -> list[EngineRequest]:
    """Requests that only need their newest token computed."""
    return [request for request in engine._scheduler.running if request.num_left == 1]


def guess_along(
    engine: Engine,
    proposer: Proposer,
    nodes: int = 4,
    depth: int = 4,
    before_step: Callable[[int, Engine], None] = lambda step, engine: None,
) -> list[Guess]:
    """Drive the engine to the end; before each step, have everything guessed that could be."""
    guesses: list[Guess] = []
    step = 0
    while engine.has_work:
        before_step(step, engine)
        slots = [DraftSlot(request, nodes, depth) for request in decoding(engine) if _has_room(engine, request, nodes)]
        trees = proposer.propose(slots)
        guesses += [
            Guess(slot.request, len(slot.request.output_ids), tree) for slot, tree in zip(slots, trees, strict=True)
        ]
        for tree, slot in zip(trees, slots, strict=True):
            assert tree.num_nodes <= nodes and max(tree.depths(), default=0) <= depth
            assert slot.request.is_running
        for output in engine.step():
            if output.end is not None:
                proposer.forget(output.request)
        engine.check_integrity()
        step += 1
    return guesses


def _has_room(engine: Engine, request: EngineRequest, nodes: int) -> bool:
    """Reserve the places of a draft, as a speculating engine does."""
    known = request.num_tokens
    copies = engine._pool.reserve(request.block_ids, known - 1, known + nodes)
    return copies == []


def sampled(seed: int, max_tokens: int, temperature: float = 1.0, **settings: object) -> SamplingParams:
    return SamplingParams(temperature, seed=seed, max_tokens=max_tokens, ignore_eos=True, **settings)  # type: ignore[arg-type]


def greedily(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)


def prompts(num: int, length: int = 21, seed: int = 5) -> list[list[int]]:
    """Random prompts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 260, (length + 7 * i,), generator=generator).tolist() for i in range(num)]


def add_all(engine: Engine, given: Sequence[Sequence[int]], params: Sequence[SamplingParams]) -> None:
    for i, (prompt, sampling) in enumerate(zip(given, params, strict=True)):
        engine.add(str(i), prompt, sampling)


def random_head(config: ModelConfig, seed: int = 0, fc_bias: bool = False) -> EagleTensors:
    """An EAGLE head for a model of this shape, with random weights."""
    layer = replace(config, num_layers=1, qk_norm=False, output_bias=False, rope_scaling=None)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) == 1 else 0.15)
        for name, shape in eagle_shapes(layer, fc_bias).items()
    }
    return EagleTensors(layer, tensors)


def save_random_head(folder: Path, config: ModelConfig) -> None:
    save_eagle_head(random_head(config), folder)
