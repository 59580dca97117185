"""An EAGLE head against a plain reference, and its guesses through everything that happens to requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from drafting import prompts, random_head
from driving import drive, load
from safetensors.torch import load_file, save_file
from tiny_qwen import TinyModel
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rotary import rotary_tables
from mathlete.ryanstream.speculative.depth_control import FixedDepth
from mathlete.ryanstream.speculative.draft_tree import DraftTree
from mathlete.ryanstream.speculative.eagle import EagleProposer
from mathlete.ryanstream.speculative.eagle_head import EagleTensors, load_eagle_head, place_eagle_head, save_eagle_head
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.speculation import Speculation
from mathlete.ryanstream.speculative.tree_growth import GrowthRule

ALWAYS = GrowthRule(min_probability=0.0)


def reference(head: EagleTensors, embedded: Tensor, hidden: Tensor) -> Tensor:
    """The head over a whole sequence without a cache, float32 [n, hidden], as SafeAILab/EAGLE computes it."""
    config, t = head.config, head.tensors
    x = F.linear(torch.cat([embedded, hidden], dim=-1), t["fc.weight"], t.get("fc.bias"))
    num, half = len(x), config.head_dim // 2
    angles = torch.arange(num)[:, None] / config.rope_theta ** (torch.arange(half) / half)

    def heads(name: str, count: int) -> Tensor:
        weight = t[f"layers.0.self_attn.{name}_proj.weight"]
        return F.linear(x, weight, t.get(f"layers.0.self_attn.{name}_proj.bias")).view(num, count, -1).transpose(0, 1)

    def rotated(y: Tensor) -> Tensor:
        turned = torch.cat([-y[..., half:], y[..., :half]], dim=-1)
        return y * angles.cos().repeat(1, 2) + turned * angles.sin().repeat(1, 2)

    groups = config.num_heads // config.num_kv_heads
    key = rotated(heads("k", config.num_kv_heads)).repeat_interleave(groups, 0)
    value = heads("v", config.num_kv_heads).repeat_interleave(groups, 0)
    attended = F.scaled_dot_product_attention(rotated(heads("q", config.num_heads)), key, value, is_causal=True)
    x = x + F.linear(attended.transpose(0, 1).reshape(num, -1), t["layers.0.self_attn.o_proj.weight"])
    norm = t["layers.0.post_attention_layernorm.weight"]
    scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps) * norm
    gate, up = (F.linear(scaled, t[f"layers.0.mlp.{name}_proj.weight"]) for name in ("gate", "up"))
    return x + F.linear(F.silu(gate) * up, t["layers.0.mlp.down_proj.weight"])


def reference_logits(tiny: TinyModel, head: EagleTensors, ids: list[int], guessed: list[int]) -> Tensor:
    """What follows `ids` and then `guessed`: true states as far as there are any, then the head's own."""
    model = tiny.model
    with torch.inference_mode():
        hidden = model.model(input_ids=torch.tensor([ids[:-1]])).last_hidden_state[0].float()
        ids = [*ids, *guessed]
        while True:
            embedded = model.model.embed_tokens.weight[ids[1 : len(hidden) + 1]]
            made = reference(head, embedded, hidden)[-1:]
            if len(hidden) == len(ids) - 1:
                return (made @ model.lm_head.weight.T)[0]
            hidden = torch.cat([hidden, made])


def reference_chain(tiny: TinyModel, head: EagleTensors, ids: list[int], depth: int) -> list[int]:
    """The likeliest tokens one after the other."""
    chain: list[int] = []
    for _ in range(depth):
        chain.append(int(reference_logits(tiny, head, ids, chain).argmax()))
    return chain


@pytest.fixture(params=[False, True], ids=["", "fc-bias"])
def head(request: pytest.FixtureRequest, tiny: TinyModel, engine_cache: Path) -> EagleTensors:
    return random_head(load(tiny.folder, engine_cache).config, fc_bias=request.param)


@pytest.fixture
def engine(tiny: TinyModel, engine_cache: Path) -> Engine:
    return load(tiny.folder, engine_cache, precision="fp32").engine


def proposer_for(engine: Engine, head: EagleTensors, num_blocks: int = 64, **settings: object) -> EagleProposer:
    ops = TorchOps(head.config, rotary_tables(256, head.config.head_dim, head.config.rope_theta))
    placed = place_eagle_head(head, torch.device("cpu"), torch.float32, None)
    return EagleProposer(
        placed,
        engine.runner.model,
        ops,
        num_blocks,
        torch.float32,
        **{"rule": ALWAYS, **settings},  # type: ignore[arg-type]
    )


class Watched(EagleProposer):
    """Remembers what it guessed, and when."""

    guesses: list[tuple[list[int], DraftTree]]

    def propose(self, slots):  # type: ignore[no-untyped-def]
        trees = super().propose(slots)
        for slot, tree in zip(slots, trees, strict=True):
            self.guesses.append((slot.request.token_slice(0, slot.request.num_tokens), tree))
        self.check_integrity()
        return trees


def watch(engine: Engine, head: EagleTensors, **settings: object) -> Watched:
    proposer = proposer_for(engine, head, **settings)
    proposer.__class__ = Watched
    assert isinstance(proposer, Watched)
    proposer.guesses = []
    engine.speculation = Speculation(proposer, FixedDepth(3))
    return proposer


def check(tiny: TinyModel, head: EagleTensors, proposer: Watched, every: int = 5) -> int:
    """Each chain is the reference's; how many there were."""
    drafted = [(ids, tree) for ids, tree in proposer.guesses if tree.num_nodes]
    for ids, tree in drafted[::every]:
        assert list(tree.token_ids) == reference_chain(tiny, head, ids, tree.num_nodes)
    return len(drafted)


def plain(max_tokens: int, seed: int = 0) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, seed=seed)


def test_guesses_are_the_references(tiny: TinyModel, engine: Engine, head: EagleTensors) -> None:
    proposer = watch(engine, head)
    for i, prompt in enumerate(prompts(3)):
        engine.add(str(i), prompt, plain(24))
    drive(engine)
    assert check(tiny, head, proposer) == len(proposer.guesses) > 40
    assert proposer.num_free_blocks == 64 and proposer.step_cost_s > 0


def test_siblings_find_the_heads_prefix(tiny: TinyModel, engine: Engine, head: EagleTensors) -> None:
    """The model computes no states for a prompt that it finds; the head has that prefix too."""
    proposer = watch(engine, head)
    for i in range(3):
        params = SamplingParams(temperature=1.0, seed=i, max_tokens=12, ignore_eos=True)
        engine.add(str(i), prompts(1, 50)[0], params, group="problem")
    drive(engine)
    assert proposer._drafting.twins.pool.statistics.found > 0
    assert all(state.num_nodes for _, state in proposer.guesses), "somebody had no draft"


def test_states_that_are_missing(tiny: TinyModel, engine: Engine, head: EagleTensors) -> None:
    """Where model and head differ in what they found, the head begins where states begin; nothing breaks."""
    engine.add("first", prompts(1, 50)[0], plain(3))
    drive(engine)  # without a head: the model's cache holds the prompt now
    proposer = watch(engine, head)
    engine.add("second", prompts(1, 50)[0], plain(20))
    drive(engine)
    assert sum(tree.num_nodes > 0 for _, tree in proposer.guesses) == len(proposer.guesses) > 0
    assert proposer.num_free_blocks == 64


def test_preempted_and_rewound_requests(tiny: TinyModel, engine: Engine, head: EagleTensors) -> None:
    proposer = watch(engine, head, num_blocks=40)
    for i, prompt in enumerate(prompts(3)):
        engine.add(str(i), prompt, plain(40))
    step = 0
    while engine.has_work:
        engine.step()
        step += 1
        for request in list(engine._scheduler.running):
            if step % 11 == 0:
                engine._scheduler._preempt(request)
            elif step % 7 == 0 and step < 40 and len(request.output_ids) > 18:
                engine.rewind(request.request_id, len(request.output_ids) - 17, plain(40))
    assert check(tiny, head, proposer) > 30
    assert proposer.num_free_blocks == 40


def test_trees(tiny: TinyModel, engine: Engine, head: EagleTensors) -> None:
    """The probability told at each node is the reference's after the node's own ancestors."""
    proposer = watch(engine, head, rule=GrowthRule(width=3, min_probability=0.0))
    assert engine.speculation is not None
    engine.speculation.depth = FixedDepth(3, 9)
    engine.add("0", prompts(1)[0], plain(30))
    drive(engine)
    assert any(not tree.is_chain for _, tree in proposer.guesses)
    for ids, tree in proposer.guesses[::6]:
        for node, path in enumerate(tree.paths()):
            above = [tree.token_ids[at] for at in path[:-1]]
            top = reference_logits(tiny, head, ids, above).topk(20)
            place = top.indices.tolist().index(tree.token_ids[node])
            assert tree.confidences[node] == pytest.approx(float(top.values.softmax(-1)[place]), abs=1e-4)


def test_little_room(engine: Engine, head: EagleTensors) -> None:
    proposer = watch(engine, head, num_blocks=7)
    for i, prompt in enumerate(prompts(3)):
        engine.add(str(i), prompt, plain(30))
    drive(engine)
    drafted = [tree.num_nodes > 0 for _, tree in proposer.guesses]
    assert any(drafted) and not all(drafted)
    assert proposer.num_free_blocks == 7


@pytest.mark.parametrize("num_blocks", [5, 6, 7, 8])
def test_going_back_to_before_where_the_twin_began(engine: Engine, head: EagleTensors, num_blocks: int) -> None:
    """With little room a twin is given up and begins anew in the middle of the output."""
    proposer = watch(engine, head, num_blocks=num_blocks)
    for i, prompt in enumerate(prompts(3)):
        engine.add(str(i), prompt, plain(60))
    step = 0
    while engine.has_work:
        engine.step()
        step += 1
        for request in list(engine._scheduler.running):
            if step % 9 == 0 and step < 60 and len(request.output_ids) > 12:
                engine.rewind(request.request_id, rng_place(step, len(request.output_ids)), plain(60))
    assert proposer.num_free_blocks == num_blocks


def rng_place(step: int, num_output: int) -> int:
    """How many tokens stand: few or many, as the step has it."""
    return (1, num_output // 3, num_output // 2)[step % 27 // 9]


def test_catching_up_in_parts(tiny: TinyModel, engine: Engine, head: EagleTensors) -> None:
    proposer = watch(engine, head, catch_up_tokens=12)
    engine.add("long", prompts(1, 60)[0], plain(30))
    drive(engine)
    assert 0 < check(tiny, head, proposer, every=2) < len(proposer.guesses)
    assert not proposer.guesses[0][1].num_nodes and proposer.guesses[-2][1].num_nodes


def test_native_kernels_are_near(tiny: TinyModel, engine_cache: Path, kernels: NativeKernels, tmp_path: Path) -> None:
    """In int8 and with a bf16 cache, most guesses are the reference's."""
    head = random_head(load(tiny.folder, engine_cache).config)
    save_eagle_head(head, tmp_path)
    loaded = load(tiny.folder, engine_cache, speculative="eagle", draft_model=tmp_path, adaptive_depth=False)
    assert loaded.engine.speculation is not None
    proposer = loaded.engine.speculation.proposer
    assert isinstance(proposer, EagleProposer)
    proposer._drafting.rule = ALWAYS
    proposer.__class__ = Watched
    assert isinstance(proposer, Watched)
    proposer.guesses = []
    loaded.engine.add("0", prompts(1)[0], plain(40))
    drive(loaded.engine)
    first = [(ids, tree.token_ids[0]) for ids, tree in proposer.guesses if tree.num_nodes]
    right = sum(reference_chain(tiny, head, ids, 1) == [token_id] for ids, token_id in first)
    assert len(first) > 30 and right > 0.8 * len(first)


def test_files(tiny: TinyModel, engine_cache: Path, tmp_path: Path, head: EagleTensors) -> None:
    target = load(tiny.folder, engine_cache).config
    save_eagle_head(head, tmp_path)
    found = load_eagle_head(tmp_path, target)
    assert found.tensors.keys() == head.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in head.tensors.items())
    names = ("num_heads", "num_kv_heads", "head_dim", "rope_theta", "attention_bias", "rms_norm_eps")
    assert all(getattr(found.config, name) == getattr(head.config, name) for name in names)


def _without(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")


def _with(folder: Path, name: str) -> None:
    save_file({**load_file(folder / "model.safetensors"), name: torch.ones(4)}, folder / "model.safetensors")


def _configured(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "convert a head in pytorch_model.bin"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "not a whole safetensors file"),
        (lambda folder: _without(folder, "layers.0.mlp.up_proj.weight"), r"up_proj.weight should be \[96, 64\]"),
        (lambda folder: _with(folder, "midlayer.hidden_norm.weight"), "EAGLE-3"),
        (lambda folder: _with(folder, "layers.0.input_layernorm.weight"), "input norm"),
        (lambda folder: _configured(folder, num_hidden_layers=2), "has 2 layers"),
        (lambda folder: _configured(folder, vocab_size=300), "vocab_size is 300, the model's is 288"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be read as JSON"),
    ],
)
def test_damaged_heads_are_refused(
    tiny: TinyModel, engine_cache: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    target = load(tiny.folder, engine_cache).config
    save_eagle_head(random_head(target), tmp_path)
    spoil(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_eagle_head(tmp_path, target)


def test_a_request_without_its_newest_state_has_no_draft(engine: Engine, tiny: TinyModel, engine_cache: Path) -> None:
    head = random_head(load(tiny.folder, engine_cache).config)
    proposer = proposer_for(engine, head)
    engine.add("0", prompts(1)[0], plain(9))
    engine.step()
    request = engine._requests["0"]
    assert proposer.propose([DraftSlot(request, 3, 3)])[0].num_nodes == 0
    proposer.note_hidden(request, 0, torch.zeros(request.num_tokens - 2, 64))
    assert proposer.propose([DraftSlot(request, 3, 3)])[0].num_nodes == 0
    proposer.note_hidden(request, request.num_tokens - 2, torch.zeros(1, 64))
    assert proposer.propose([DraftSlot(replace(request), 3, 3)])[0].num_nodes == 0, "another request's"
    assert proposer.propose([DraftSlot(request, 3, 3)])[0].num_nodes == 3
    proposer.forget(request)
    proposer.check_integrity()
