"""A draft model's guesses, one call at a time, and what its cache holds through it all."""

from __future__ import annotations

from pathlib import Path

import pytest
from drafting import add_all, decoding, draft_of, greedily, guess_along, prompts, sampled
from driving import load
from tiny_qwen import TinyModel, make_tiny_model

from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.speculative.draft_model import DraftModelProposer
from mathlete.ryanstream.speculative.draft_tree import ROOT
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.tree_growth import SPEC_A2_TREE, GrowthRule

ALWAYS = GrowthRule(min_probability=0.0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A smaller random model with the same tokens."""
    folder = tmp_path_factory.mktemp("other")
    return make_tiny_model(folder, tie_word_embeddings=True, num_hidden_layers=1, hidden_size=32)


@pytest.fixture
def engine(tiny: TinyModel, engine_cache: Path) -> Engine:
    return load(tiny.folder, engine_cache).engine


PARAMS = [greedily(30), sampled(1, 30), sampled(2, 25, 0.7, top_p=0.9), sampled(3, 30, 1.3, min_p=0.01)]


def test_the_target_itself_is_always_right(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    """Greedy and sampled: a chain is drawn with the request's own parameters and noise."""
    draft = draft_of(tiny.folder, engine_cache, rule=ALWAYS)
    add_all(engine, prompts(4), PARAMS)
    guesses = guess_along(engine, draft)
    assert all(guess.tree.is_chain and guess.tree.num_nodes == 4 for guess in guesses)
    assert len(guesses) > 100 and all(guess.num_right() == guess.deepest for guess in guesses)
    assert draft.step_cost_s > 0
    draft.check_integrity()
    assert draft.num_free_blocks == 64, "requests that have ended hold blocks"


def test_trees_hold_what_chains_hold(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    """A node sees its own ancestors only, branches beside it or not, and what was accepted is moved to its place."""
    chains = draft_of(tiny.folder, engine_cache, rule=ALWAYS)
    trees = draft_of(tiny.folder, engine_cache, rule=GrowthRule(width=4, min_probability=0.0))
    add_all(engine, prompts(4), PARAMS)
    num_deep = num_moved = 0

    def compare(step: int, engine: Engine) -> None:
        nonlocal num_deep, num_moved
        for request in decoding(engine):
            chain = chains.propose([DraftSlot(request, 4, 4)])[0]
            tree = trees.propose([DraftSlot(request, 30, 4)])[0]
            node = ROOT
            for depth, token_id in enumerate(chain.token_ids):
                child = tree.child(node, token_id)
                if child is None:
                    break
                assert tree.confidences[child] == chain.confidences[depth]
                num_moved += child > depth
                node, num_deep = child, num_deep + (depth > 0)
        trees.check_integrity()

    while engine.has_work:
        compare(0, engine)
        engine.step()
    assert num_deep > 50 and num_moved > 50


def test_a_tree_keeps_the_best(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    """Of more nodes than are wanted, those with the greatest products; connected, and deeper than wide."""
    many = draft_of(tiny.folder, engine_cache, rule=SPEC_A2_TREE)
    add_all(engine, prompts(2), [greedily(20), greedily(20)])

    def compare(step: int, engine: Engine) -> None:
        for request in decoding(engine):
            whole, best = (many.propose([DraftSlot(request, nodes, 8)])[0] for nodes in (32, 8))
            products = _products(whole.parents, whole.confidences)
            assert min(products) >= 0.01 and max(whole.depths()) > 1
            expected = sorted(products, reverse=True)[:8]
            assert sorted(_products(best.parents, best.confidences), reverse=True) == expected

    while engine.has_work:
        compare(0, engine)
        engine.step()
    many.check_integrity()


def _products(parents: tuple[int, ...], confidences: tuple[float, ...]) -> list[float]:
    products: list[float] = []
    for parent, confidence in zip(parents, confidences, strict=True):
        products.append(confidence * (1.0 if parent < 0 else products[parent]))
    return products


def test_chains_stop_where_they_are_unlikely(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    draft = draft_of(tiny.folder, engine_cache, rule=GrowthRule(min_probability=0.02))
    add_all(engine, prompts(3), PARAMS[:3])
    trees = [guess.tree for guess in guess_along(engine, draft, nodes=8, depth=8)]
    assert all(min(_products(tree.parents, tree.confidences), default=1.0) >= 0.02 for tree in trees)
    assert {tree.num_nodes for tree in trees} >= {0, 1, 2}, "they are all alike"


def test_another_model_is_sometimes_wrong(other: TinyModel, engine_cache: Path, engine: Engine) -> None:
    """What was rejected leaves nothing behind: the next guess is that of a cache that never saw it."""
    draft = draft_of(other.folder, engine_cache, rule=ALWAYS)
    fresh = draft_of(other.folder, engine_cache, rule=ALWAYS)
    add_all(engine, prompts(2), PARAMS[:2])

    def compare(step: int, engine: Engine) -> None:
        slots = [DraftSlot(request, 3, 3) for request in decoding(engine)]
        for slot in slots:
            assert fresh.propose([slot]) == draft.propose([slot])
            fresh.forget(slot.request)

    guesses = guess_along(engine, draft, nodes=3, depth=3, before_step=compare)
    assert 0 < sum(guess.num_right() == 0 for guess in guesses)
    draft.check_integrity()


def test_a_long_prompt_is_caught_up_with_in_parts(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    draft = draft_of(tiny.folder, engine_cache, rule=ALWAYS, catch_up_tokens=10)
    add_all(engine, [prompts(1, 50)[0], [7, 8, 9]], [greedily(20), greedily(20)])
    guesses = guess_along(engine, draft)
    long = [guess for guess in guesses if len(guess.request.prompt_ids) > 3]
    short = [guess for guess in guesses if len(guess.request.prompt_ids) == 3]
    assert [guess.tree.num_nodes > 0 for guess in long[:7]].count(True) < 3 and long[8].tree.num_nodes == 4
    assert all(guess.tree.num_nodes == 4 for guess in short), "it held up the other"
    assert all(guess.num_right() == guess.deepest for guess in guesses)


def test_siblings_share_their_prompt(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    prompt = prompts(1, 60)[0]
    draft = draft_of(tiny.folder, engine_cache, rule=ALWAYS)
    for i in range(4):
        engine.add(str(i), prompt, sampled(i, 20), group="problem")
    guesses = guess_along(engine, draft)
    assert all(guess.num_right() == guess.deepest for guess in guesses)
    found = draft._drafting.twins.pool.statistics.found
    assert found == 3 * 3, "three siblings find the three whole blocks of 60 tokens' start"
    draft.check_integrity()


def test_preempted_requests_and_other_peoples_room(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    """Where the draft has no room, some requests have no draft; nothing is raised and nothing leaks."""
    draft = draft_of(tiny.folder, engine_cache, num_blocks=10, rule=ALWAYS)
    add_all(engine, prompts(4), PARAMS)

    def put_aside(step: int, engine: Engine) -> None:
        draft.check_integrity()
        if step % 9 == 8:
            for request in list(engine._scheduler.running):
                engine._scheduler._preempt(request)

    guesses = guess_along(engine, draft, before_step=put_aside)
    drafted = [guess for guess in guesses if guess.tree.num_nodes]
    assert 0 < len(drafted) < len(guesses)
    assert all(guess.num_right() == guess.deepest for guess in drafted)
    assert draft.num_free_blocks == 10


def test_rewinds(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    """After a rewind of any length the guesses are those of a draft that never saw what was taken back."""
    draft = draft_of(tiny.folder, engine_cache, rule=ALWAYS)
    add_all(engine, prompts(1), [sampled(1, 60)])
    for num_back in (1, 3, 17, 40, 5, 16):
        while engine._requests["0"].num_tokens < 70:
            engine.step()
        request = engine._requests["0"]
        guessed = draft.propose([DraftSlot(request, 4, 4)])[0]
        assert guessed.num_nodes == 4
        _rewind(engine, num_back)
        fresh = draft_of(tiny.folder, engine_cache, rule=ALWAYS)
        slot = DraftSlot(request, 4, 4)
        assert draft.propose([slot]) == fresh.propose([slot])
        draft.check_integrity()


def _rewind(engine: Engine, num_back: int) -> None:
    """By hand: the request computes what is left anew."""
    request = engine._requests["0"]
    engine._scheduler._preempt(request)
    del request.output_ids[-num_back:]
    request.num_rewinds += 1


def test_drawn_chains_report_what_they_were_drawn_from(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    draft = draft_of(tiny.folder, engine_cache, rule=GrowthRule(min_probability=0.0, drawn=True))
    add_all(engine, prompts(2), [sampled(1, 40, 0.9), greedily(10)])
    for guess in guess_along(engine, draft):
        if guess.request.sampling.temperature == 0:
            assert guess.tree.drawn_from == ()
            continue
        for token_id, drawn in zip(guess.tree.token_ids, guess.tree.drawn_from, strict=True):
            assert drawn is not None and token_id in drawn.token_ids and sum(drawn.probs) == pytest.approx(1)
            assert len(drawn.token_ids) == 20 and list(drawn.probs) == sorted(drawn.probs, reverse=True)


def test_only_the_targets_tokens_are_guessed(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    draft = draft_of(tiny.folder, engine_cache, rule=GrowthRule(width=4, min_probability=0.0), vocab_size=100)
    add_all(engine, prompts(2), PARAMS[:2])
    trees = [guess.tree for guess in guess_along(engine, draft)]
    ids = {token_id for tree in trees for token_id in tree.token_ids}
    assert ids and max(ids) < 100


def test_it_draws_nothing_from_a_broken_model(tiny: TinyModel, engine_cache: Path, engine: Engine) -> None:
    draft: DraftModelProposer = draft_of(tiny.folder, engine_cache, precision="fp32", rule=ALWAYS)
    draft._model.weights.norm.data.fill_(float("nan"))
    add_all(engine, prompts(1), PARAMS[:1])
    assert all(guess.tree.num_nodes == 0 for guess in guess_along(engine, draft))
    draft.check_integrity()
