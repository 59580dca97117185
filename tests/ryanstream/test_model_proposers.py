"""Speculation with each proposer: token for token what the engine says without it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drafting import greedily, prompts, sampled, save_random_head
from driving import Ended, drive, drive_with_preemptions, load
from speculation_world import new_request
from tiny_qwen import TinyModel, make_tiny_model
from token_walk import TokenWalk, looping

from mathlete.core.errors import ModelError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import LoadedEngine
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.speculative.draft_model import DraftModelProposer
from mathlete.ryanstream.speculative.eagle import EagleProposer
from mathlete.ryanstream.speculative.early_exit import EarlyExitProposer
from mathlete.ryanstream.speculative.exit_adapter import ExitAdapter, save_exit_adapter
from mathlete.ryanstream.speculative.methods import RUN_A_MODEL

METHODS = ("ngram", "suffix", *RUN_A_MODEL)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A smaller random model with the same tokens."""
    folder = tmp_path_factory.mktemp("small")
    return make_tiny_model(folder, tie_word_embeddings=True, num_hidden_layers=1, hidden_size=32)


@pytest.fixture(scope="module")
def make(
    tiny: TinyModel, small: TinyModel, engine_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., LoadedEngine]:
    """An engine with one of the methods, or "off"."""
    head = tmp_path_factory.mktemp("head")
    save_random_head(head, load(tiny.folder, engine_cache).config)
    given: dict[str, dict[str, object]] = {
        "off": {},
        "ngram": {},
        "suffix": {},
        "draft": {"draft_model": small.folder},
        "early_exit": {"exit_layer": 2},
        "eagle": {"draft_model": head},
    }

    def made(method: str, **settings: object) -> LoadedEngine:
        fixed = {} if method == "off" else {"adaptive_depth": False, "num_speculative_tokens": 4}
        if method not in RUN_A_MODEL:
            settings.pop("draft_width", None)
        return load(tiny.folder, engine_cache, speculative=method, **{**given[method], **fixed, **settings})

    return made


def sampling() -> list[SamplingParams]:
    hot = sampled(4, 40, 1.2, min_p=0.05, num_logprobs=3)
    return [greedily(40), sampled(1, 30), sampled(2, 44, 0.7, top_p=0.9), hot, sampled(5, 40), greedily(25)]


def told(ended: Ended) -> dict[str, tuple[object, ...]]:
    """Everything that is told of each request."""
    requests = {name: output.request for name, output in ended.outputs.items()}
    return {
        name: (r.output_ids, r.logprobs, r.entropies, r.top_means, [tuple(top) for top in r.top_logprobs])
        for name, r in requests.items()
    }


def run(engine: Engine, driven: Callable[[Engine], Ended] = drive) -> dict[str, tuple[object, ...]]:
    """Six requests, two of them siblings, one of them held to some tokens."""
    for i, (prompt, params) in enumerate(zip([*prompts(5), prompts(5)[4]], sampling(), strict=True)):
        constraint = TokenWalk(looping(range(15, 25))) if i == 3 else None
        engine.add(str(i), prompt, params, group=f"problem {min(i, 4)}", constraint=constraint)
    found = told(driven(engine))
    if engine.speculation is not None:
        proposer = engine.speculation.proposer
        if isinstance(proposer, DraftModelProposer | EagleProposer):
            proposer.check_integrity()
            assert proposer.num_free_blocks == proposer._drafting.twins.pool.num_blocks, "ended requests hold blocks"
    return found


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_tokens(make: Callable[..., LoadedEngine], method: str, width: int) -> None:
    loaded = make(method, draft_width=width)
    assert loaded.kernels == "native" and loaded.speculation != "off"
    assert run(loaded.engine) == run(make("off").engine)
    assert loaded.engine.speculation is not None
    counts = loaded.engine.speculation.statistics
    assert counts.num_drafted > 10 and counts.propose_s > 0
    assert (loaded.engine.speculation.proposer.step_cost_s > 0) == (method in RUN_A_MODEL)


@pytest.mark.parametrize(
    "settings", [{"kv_cache_dtype": "int8"}, {"precision": "int4"}, {"adaptive_depth": True}], ids=str
)
@pytest.mark.parametrize("method", METHODS)
def test_the_same_tokens_however_it_is_set_up(
    make: Callable[..., LoadedEngine], method: str, settings: dict[str, object]
) -> None:
    plain = {name: value for name, value in settings.items() if name != "adaptive_depth"}
    assert run(make(method, **settings).engine) == run(make("off", **plain).engine)


@pytest.mark.parametrize("method", METHODS)
def test_preemption_and_scarce_blocks(make: Callable[..., LoadedEngine], method: str) -> None:
    expected = run(make("off").engine)
    assert run(make(method).engine, drive_with_preemptions) == expected
    assert run(make(method, num_blocks=12, draft_width=2).engine) == expected


@pytest.mark.parametrize("method", METHODS)
def test_requests_that_go_back(make: Callable[..., LoadedEngine], method: str) -> None:
    def going_back(engine: Engine) -> Ended:
        done: set[str] = set()
        ended = Ended()
        while engine.num_unfinished and len(done) < 6:
            ended.outputs |= {o.request.request_id: o for o in engine.step() if o.end is not None}
            for name, request in list(engine._requests.items()):
                if len(request.output_ids) >= 15 and name not in done:
                    engine.rewind(name, 3 + int(name), replace(request.sampling, seed=77))
                    done.add(name)
        ended.outputs |= drive(engine).outputs
        return ended

    assert run(make(method).engine, going_back) == run(make("off").engine, going_back)


@pytest.mark.parametrize("method", METHODS)
def test_forks(make: Callable[..., LoadedEngine], method: str) -> None:
    def forked(engine: Engine) -> dict[str, tuple[object, ...]]:
        engine.add("a", prompts(1)[0], sampled(1, 30))
        while "a" in engine._requests and len(engine._requests["a"].output_ids) < 10:
            engine.step()
        if len(engine._requests["a"].output_ids) > 10:
            engine.rewind("a", 10, sampled(1, 30))
        engine.fork("a", "b", sampled(9, 30))
        return told(drive(engine))

    assert forked(make(method).engine) == forked(make("off").engine)


def test_a_draft_that_is_the_target_is_always_accepted(tiny: TinyModel, engine_cache: Path) -> None:
    loaded = load(tiny.folder, engine_cache, speculative="draft", draft_model=tiny.folder, adaptive_depth=False)
    speculation = loaded.engine.speculation
    assert speculation is not None
    speculation.proposer._drafting.rule = replace(speculation.proposer._drafting.rule, min_probability=0.0)  # type: ignore[attr-defined]
    for i, prompt in enumerate(prompts(3)):
        loaded.engine.add(str(i), prompt, sampled(i, 40, (0, 1.0, 1.4)[i]))
    drive(loaded.engine)
    counts = speculation.statistics
    assert counts.num_accepted == counts.num_drafted > 80
    assert counts.num_tokens > 5 * counts.num_draws


@pytest.mark.parametrize("method", ["draft", "early_exit"])
def test_drawn_chains_leave_the_distribution_as_it_is(tiny: TinyModel, engine_cache: Path, method: str) -> None:
    """Three tokens of 1,500 seeds with and without: chi-square of the two samples (at most 26 degrees, 0.1 %)."""
    guesses = {"draft": {"draft_model": tiny.folder}, "early_exit": {"exit_layer": 2}}[method]
    told = []
    for settings in ({}, {"speculative": method, "draft_drawn": True, "adaptive_depth": False, **guesses}):
        loaded = load(tiny.folder, engine_cache, num_blocks=200, **settings)
        for seed in range(1500):
            params = SamplingParams(1.0, top_k=3, top_p=1.0, seed=seed, max_tokens=3, ignore_eos=True)
            loaded.engine.add(str(seed), [5, 6, 7], params)
        ended = drive(loaded.engine)
        told.append([tuple(ended.ids(str(seed))) for seed in range(1500)])
    assert loaded.engine.speculation is not None
    counts = loaded.engine.speculation.statistics
    assert 100 < counts.num_accepted < counts.num_drafted
    assert told[0] != told[1], "guesses made with the request's own noise would give the same tokens"
    off, on = map(Counter, told)
    assert sum((off[t] - on[t]) ** 2 / (off[t] + on[t]) for t in off | on) < 54.1 and len(off | on) <= 27


def test_plain_torch_too(make: Callable[..., LoadedEngine]) -> None:
    """In fp32, one row at a time."""
    expected = run(make("off", precision="fp32", batch_invariant=True).engine)
    assert run(make("eagle", precision="fp32", batch_invariant=True).engine) == expected


def test_a_model_with_other_tokens_is_refused(tiny: TinyModel, tmp_path: Path, engine_cache: Path) -> None:
    other = make_tiny_model(tmp_path / "other", tie_word_embeddings=True)
    path = other.folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    vocab["he"], vocab["er"] = vocab["er"], vocab["he"]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="token 257 is b'er' there and b'he' here"):
        load(tiny.folder, engine_cache, speculative="draft", draft_model=other.folder)
    path.write_text((tiny.folder / "tokenizer.json").read_text().replace("<|im_start|>", "<|start|>"))
    with pytest.raises(ModelError, match=r"its token <\|im_start\|> is None, the model's is 268"):
        load(tiny.folder, engine_cache, speculative="draft", draft_model=other.folder)


def test_an_exit_is_chosen_or_none(tiny: TinyModel, engine_cache: Path) -> None:
    """A random model's layers do not agree: nothing is guessed, and a person is told why."""
    loaded = load(tiny.folder, engine_cache, speculative="early_exit")
    if loaded.engine.speculation is None:
        assert "no exit pays" in loaded.speculation
    else:
        assert isinstance(loaded.engine.speculation.proposer, EarlyExitProposer)
        assert "x expected" in loaded.speculation


def test_a_trained_exit_is_a_file(make: Callable[..., LoadedEngine], tmp_path: Path) -> None:
    """It says itself where it belongs."""
    path = tmp_path / "exit.safetensors"
    save_exit_adapter(ExitAdapter(1, torch.rand(64) + 0.5), path)
    loaded = make("early_exit", exit_layer=None, draft_model=path)
    assert loaded.speculation == "early exit: layer 1 of 3, trained"
    assert run(loaded.engine) == run(make("off").engine)
    with pytest.raises(ModelError, match="was trained for layer 1, not 2"):
        make("early_exit", exit_layer=2, draft_model=path)


def test_what_does_not_fit_is_refused(tiny: TinyModel, engine_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="below the model's 3 layers, not 3"):
        load(tiny.folder, engine_cache, speculative="early_exit", exit_layer=3)
    config: ModelConfig = replace(load(tiny.folder, engine_cache).config, hidden_size=128)
    save_random_head(tmp_path, config)
    with pytest.raises(ModelError, match="hidden_size is 128, the model's is 64"):
        load(tiny.folder, engine_cache, speculative="eagle", draft_model=tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speculative": "medusa"}, "speculative must be one of off, ngram, suffix, draft, early_exit, eagle"),
        ({"speculative": "draft"}, '"draft" needs draft_model: a smaller model with the same tokenizer'),
        ({"speculative": "eagle"}, '"eagle" needs draft_model: the folder of an EAGLE head'),
        ({"draft_model": Path("m.gguf")}, "draft_model is for speculative draft, early_exit, eagle"),
        ({"speculative": "ngram", "draft_width": 2}, "draft_width is for speculative"),
        ({"speculative": "suffix", "draft_drawn": True}, "draft_drawn is for speculative draft, early_exit, eagle"),
        (
            {"speculative": "early_exit", "draft_width": 2, "draft_drawn": True},
            "draft_drawn needs draft_width 1, not 2",
        ),
        ({"speculative": "suffix", "exit_layer": 2}, 'exit_layer is for speculative "early_exit"'),
        (
            {"speculative": "early_exit", "tensor_parallel": 2},
            "runs in one process, and tensor_parallel is 2; use spec",
        ),
        ({"num_speculative_tokens": 0}, "num_speculative_tokens must be >= 1"),
        ({"num_speculative_tokens": 65}, "num_speculative_tokens must be <= 64"),
        ({"speculative": "early_exit", "draft_width": 65}, "draft_width must be <= 64"),
        ({"speculative": "early_exit", "exit_layer": 0}, "exit_layer must be >= 1"),
    ],
)
def test_configurations_that_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineConfig(**settings)  # type: ignore[arg-type]
    EngineConfig(speculative="ngram", tensor_parallel=2)


@pytest.mark.parametrize(
    ("method", "tokens", "width", "nodes"),
    [("suffix", 8, 1, 16), ("ngram", 20, 1, 24), ("ngram", 40, 1, 40), ("draft", 8, 1, 8), ("early_exit", 40, 3, 64)],
)
def test_how_large_trees_may_be(
    make: Callable[..., LoadedEngine], method: str, tokens: int, width: int, nodes: int
) -> None:
    """What is looked up may branch by itself, what a model guesses as wide as it is told."""
    speculation = make(method, num_speculative_tokens=tokens, draft_width=width).engine.speculation
    assert speculation is not None
    ((max_nodes, max_depth, _),) = speculation.depth.limits([new_request(0)], 0.0)
    assert (max_nodes, max_depth) == (nodes, tokens)


def test_steps_are_measured_once_a_machine(tiny: TinyModel, engine_cache: Path) -> None:
    def kept() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (engine_cache / "calibration").glob("*.json")}

    loaded = load(tiny.folder, engine_cache, speculative="early_exit", exit_layer=1)
    assert loaded.speculation == "early exit: layer 1 of 3"
    once = kept()
    assert once
    load(tiny.folder, engine_cache, speculative="early_exit", exit_layer=2)
    assert kept() == once
