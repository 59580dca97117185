"""Guessing with a model's first layers: against transformers, with trained exits, and where to leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drafting import add_all, decoding, greedily, guess_along, prompts, sampled
from driving import load
from safetensors.torch import save_file
from tiny_qwen import TinyModel
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.speculative.draft_tree import ROOT, DraftTree
from mathlete.ryanstream.speculative.early_exit import EarlyExitProposer
from mathlete.ryanstream.speculative.exit_adapter import ExitAdapter, load_exit_adapter, save_exit_adapter
from mathlete.ryanstream.speculative.exit_choice import (
    ExitChoice,
    ExitLayer,
    StepTimes,
    choose_exit_layer,
    expected_speed_up,
    measure_times,
    remembered_choice,
)
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.tree_growth import GrowthRule

ALWAYS = GrowthRule(min_probability=0.0)
TREES = GrowthRule(width=3, min_probability=0.0)


@pytest.fixture
def engine(tiny: TinyModel, engine_cache: Path) -> Engine:
    return load(tiny.folder, engine_cache, precision="fp32").engine


def trained(width: int) -> ExitAdapter:
    generator = torch.Generator().manual_seed(8)
    down, up = (0.2 * torch.randn(shape, generator=generator) for shape in ((5, width), (width, 5)))
    return ExitAdapter(1, torch.rand(width, generator=generator) + 0.5, down, up)


def exit_logits(tiny: TinyModel, ids: list[int], layer: int, adapter: ExitAdapter | None) -> Tensor:
    """What the exit says after the last of `ids`, in plain torch."""
    model = tiny.model
    with torch.inference_mode():
        x = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0, -1]
        norm = model.model.norm.weight
        if adapter is not None:
            assert adapter.down is not None and adapter.up is not None
            x, norm = x + adapter.up @ (adapter.down @ x), adapter.norm
        scaled = x * torch.rsqrt(x.pow(2).mean() + model.config.rms_norm_eps) * norm
        logits: Tensor = model.lm_head.weight @ scaled
    return logits


def paths(tree: DraftTree) -> list[list[int]]:
    return [[tree.token_ids[node] for node in path] for path in tree.paths()]


@pytest.mark.parametrize("rule", [ALWAYS, TREES], ids=["chain", "tree"])
@pytest.mark.parametrize("layer", [1, 2])
def test_it_says_what_the_layers_say(tiny: TinyModel, engine: Engine, rule: GrowthRule, layer: int) -> None:
    """Of a greedy request: along a chain the likeliest tokens; in a tree, at each node, the probability told."""
    runner = engine.runner
    proposer = EarlyExitProposer(runner.model, runner.cache, layer, rule=rule)
    add_all(engine, prompts(2), [greedily(12), greedily(12)])
    for guess in guess_along(engine, proposer, nodes=8, depth=3)[::3]:
        request, tree = guess.request, guess.tree
        known = [*request.prompt_ids, *request.output_ids[: guess.num_output]]
        for node, path in enumerate(paths(tree)):
            logits = exit_logits(tiny, [*known, *path[:-1]], layer, None)
            top = logits.topk(20)
            place = top.indices.tolist().index(path[-1])
            assert tree.confidences[node] == pytest.approx(float(top.values.softmax(-1)[place]), abs=1e-4)
            assert place == 0 or not tree.is_chain
    assert proposer.step_cost_s > 0 and not proposer.wants_hidden


def test_a_trained_exit(tiny: TinyModel, engine: Engine, tmp_path: Path) -> None:
    saved = trained(64)
    save_exit_adapter(saved, tmp_path / "exit.safetensors")
    adapter = load_exit_adapter(tmp_path / "exit.safetensors", engine.runner.model.config)
    assert adapter.exit_layer == 1 and torch.equal(adapter.norm, saved.norm)
    proposer = EarlyExitProposer(engine.runner.model, engine.runner.cache, 1, rule=ALWAYS, adapter=adapter)
    add_all(engine, prompts(1), [greedily(10)])
    guesses = guess_along(engine, proposer)
    for guess in guesses:
        known = [*guess.request.prompt_ids, *guess.request.output_ids[: guess.num_output]]
        for path in paths(guess.tree):
            assert exit_logits(tiny, [*known, *path[:-1]], 1, adapter).argmax() == path[-1]
    with pytest.raises(ValueError, match="trained for layer 1, not 2"):
        EarlyExitProposer(engine.runner.model, engine.runner.cache, 2, adapter=adapter)


def test_exits_that_do_not_fit_are_refused(engine: Engine, tmp_path: Path) -> None:
    config, path = engine.runner.model.config, tmp_path / "exit.safetensors"
    with pytest.raises(ModelError, match="cannot be read as a trained exit"):
        load_exit_adapter(path, config)
    save_file({"norm": torch.ones(64)}, path)
    with pytest.raises(ModelError, match="its metadata says nothing"):
        load_exit_adapter(path, config)
    told = {"format": "mathlete-exit", "version": "1", "exit_layer": "2"}
    save_file({"norm": torch.ones(64), "down": torch.ones(3, 64)}, path, metadata=told)
    with pytest.raises(ModelError, match="down and up come together"):
        load_exit_adapter(path, config)
    save_file({"norm": torch.ones(64), "down": torch.ones(3, 64), "up": torch.ones(3, 64)}, path, metadata=told)
    with pytest.raises(ModelError, match=r"up \[64, r\], not \[3, 64\] and \[3, 64\]"):
        load_exit_adapter(path, config)
    for adapter in (ExitAdapter(3, torch.ones(64)), ExitAdapter(1, torch.ones(32))):
        save_exit_adapter(adapter, path)
        with pytest.raises(ModelError, match="this model has 3 layers and is 64 wide"):
            load_exit_adapter(path, config)


def test_the_last_layers_can_be_idle(tiny: TinyModel, engine: Engine) -> None:
    """Where all but the first layer write nothing, leaving after it pays, and its guesses are all right."""
    model = engine.runner.model
    for layer in model.weights.layers[1:]:
        for weight in (layer.out, layer.down):
            weight.weight.data.zero_()  # type: ignore[union-attr]
    choice = choose_exit_layer(model, prompts(1, 50)[0], torch.float32, 8, StepTimes(1.0, 0.5, 0.01))
    assert [layer.agreement for layer in choice.layers] == [1.0, 1.0]
    assert choice.exit_layer == 1 and choice.best.speed_up > 1 and choice.best.cost == pytest.approx(1.5 / 3.5)
    assert "agrees in 100% of places at 43% of the cost" in choice.describe()
    proposer = EarlyExitProposer(model, engine.runner.cache, 1, rule=ALWAYS)
    add_all(engine, prompts(2), [greedily(20), sampled(3, 20)])
    guesses = guess_along(engine, proposer)
    assert all(guess.num_right() == guess.deepest for guess in guesses) and len(guesses) > 30


def test_no_exit_pays_where_layers_disagree(engine: Engine) -> None:
    choice = choose_exit_layer(engine.runner.model, prompts(1, 50)[0], torch.float32, 8, StepTimes(1.0, 5.0, 0.1))
    assert choice.exit_layer is None and choice.best.speed_up < 1
    assert choice.describe().startswith("no exit pays; the best, layer ")


def test_expected_speed_up() -> None:
    assert expected_speed_up(1.0, 0.0, 0.0, 4) == 5
    assert expected_speed_up(0.0, 0.25, 0.0, 4) == 0.5
    assert expected_speed_up(0.8, 0.1, 0.05, 2) == pytest.approx((1 + 0.8 + 0.64) / 1.3)


def test_times_are_measured(engine: Engine) -> None:
    ticks = iter(range(0, 10_000))
    model = engine.runner.model
    times = measure_times(model, prompts(1)[0], engine.runner.cache, lambda: float(next(ticks)))
    assert times == StepTimes(0.0, 1.0, 0.0), "every pass took one tick"


def test_a_choice_is_remembered(tmp_path: Path) -> None:
    choice = ExitChoice((ExitLayer(1, 0.5, 0.25, 2, 1.25), ExitLayer(2, 0.75, 0.5, 1, 1.0)))
    path = tmp_path / "there" / "choice.json"
    measured: list[int] = []

    def measure() -> ExitChoice:
        measured.append(1)
        return choice

    assert [remembered_choice(path, measure) for _ in range(3)] == [choice] * 3 and len(measured) == 1
    for spoiled in ("[", "{}", "[]", "[[1, 2]]", "null"):
        path.write_text(spoiled)
        assert remembered_choice(path, measure) == choice
    assert len(measured) == 6


def test_nothing_is_guessed_by_a_broken_model(engine: Engine) -> None:
    model = engine.runner.model
    add_all(engine, prompts(1), [greedily(5)])
    engine.step()
    model.weights.norm.data.fill_(float("nan"))
    request = decoding(engine)[0]
    engine._pool.reserve(request.block_ids, request.num_tokens - 1, request.num_tokens + 4)
    proposer = EarlyExitProposer(model, engine.runner.cache, 1, rule=ALWAYS)
    assert proposer.propose([DraftSlot(request, 4, 4)])[0].child(ROOT, 0) is None
    assert proposer.propose([DraftSlot(request, 4, 4)])[0].num_nodes == 0
