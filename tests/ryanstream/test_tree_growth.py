"""How drafts grow from numbers alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.sampling import uniform_at
from mathlete.ryanstream.speculative.draft_tree import ROOT
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.tree_growth import (
    FrontierNode,
    GrowingDraft,
    GrowthRule,
    NextToken,
    grow,
    likeliest_at,
)

VOCAB = 50
PROBS = (0.5, 0.25, 0.15, 0.1)
LOGPROBS = tuple(math.log(p) for p in PROBS)


def slot(nodes: int = 8, depth: int = 8, temperature: float = 1.0, seed: int = 0) -> DraftSlot:
    request = EngineRequest("r", (1, 2), SamplingParams(temperature, seed=seed), None, 0)
    return DraftSlot(request, nodes, depth)


def always(after: NextToken, drafts: Sequence[GrowingDraft], **rule: object) -> list[float]:
    """Grow drafts for which the same follows every node; a clock that ticks once a look."""
    ticks = count()
    return grow(drafts, lambda nodes: [after] * len(nodes), lambda: float(next(ticks)))


def test_a_chain_takes_what_is_drawn_until_it_is_unlikely() -> None:
    draft = GrowingDraft(slot(), GrowthRule(min_probability=0.03), VOCAB)
    assert always(NextToken(7, (5, 7, 9, 11), LOGPROBS), [draft]) == [1.0, 1.0, 1.0]
    tree = draft.tree()
    assert tree.token_ids == (7, 7) and tree.is_chain and tree.drawn_from == ()
    assert tree.confidences == pytest.approx((0.25, 0.25))


def test_limits_of_nodes_and_depth() -> None:
    after = NextToken(5, (5, 7, 9, 11), LOGPROBS)
    for nodes, depth, expected in ((3, 8, 3), (8, 2, 2), (1, 1, 1)):
        draft = GrowingDraft(slot(nodes, depth), GrowthRule(min_probability=0.0), VOCAB)
        assert len(always(after, [draft])) == expected == draft.tree().num_nodes


def test_a_tree_has_the_best_by_product() -> None:
    """The four likeliest of a level, of all their parents' children; then the best of all that were tried."""
    after = NextToken(5, (5, 7, 9, 11), LOGPROBS)
    draft = GrowingDraft(slot(5, 3), GrowthRule(width=4, min_probability=0.01), VOCAB, max_grown=12)
    always(after, [draft])
    tree = draft.tree()
    products: list[float] = []
    for parent, confidence in zip(tree.parents, tree.confidences, strict=True):
        products.append(confidence * (1.0 if parent == ROOT else products[parent]))
    assert sorted(products, reverse=True) == pytest.approx([0.5, 0.25, 0.25, 0.15, 0.125])
    assert len(draft.token_ids) == 12, "three levels of four were tried"


def test_a_drawn_token_stands_in_the_tree_even_if_it_is_unlikely() -> None:
    draft = GrowingDraft(slot(4, 1), GrowthRule(width=2, min_probability=0.01), VOCAB)
    always(NextToken(40, (5, 7, 9, 11), LOGPROBS), [draft])
    tree = draft.tree()
    assert set(tree.token_ids) == {40, 5} and tree.confidences[tree.token_ids.index(40)] == 0.0


def test_drafts_grow_side_by_side() -> None:
    asked: list[list[FrontierNode]] = []

    def run(nodes: Sequence[FrontierNode]) -> list[NextToken]:
        asked.append(list(nodes))
        return [NextToken(5, (5, 7), LOGPROBS[:2])] * len(nodes)

    rule = GrowthRule(min_probability=0.0)
    drafts = [GrowingDraft(slot(num, num), rule, VOCAB) for num in (1, 3)]
    grow(drafts, run)
    assert asked == [[(0, ROOT), (1, ROOT)], [(1, 0)], [(1, 1)]]
    assert [draft.tree().num_nodes for draft in drafts] == [1, 3]


@pytest.mark.parametrize(
    "after",
    [NextToken(-1, (-1, -1), (math.nan, math.nan)), NextToken(60, (5,), (0.0,)), NextToken(5, (60,), (0.0,))],
    ids=["no numbers", "not the model's", "nothing of the model's"],
)
def test_nothing_to_guess(after: NextToken) -> None:
    draft = GrowingDraft(slot(), GrowthRule(min_probability=0.0), VOCAB)
    always(after, [draft])
    assert draft.tree().num_nodes == 0


def test_drawn_tokens_come_from_what_is_told() -> None:
    """Chi-square over seeds (3 degrees of freedom, 0.1 %), and nothing to do with the noise that judges them."""
    drawn: Counter[int] = Counter()
    below: Counter[int] = Counter()
    num = 4000
    after = NextToken(5, (5, 7, 9, 11), LOGPROBS)
    q = likeliest_at(after, 0.7, VOCAB)
    for seed in range(num):
        draft = GrowingDraft(slot(1, 1, 0.7, seed), GrowthRule(min_probability=0.0, drawn=True), VOCAB)
        always(after, [draft])
        tree = draft.tree()
        assert tree.drawn_from == (q,) and tree.confidences == (max(q.probs),)
        drawn[tree.token_ids[0]] += 1
        below[tree.token_ids[0]] += uniform_at(seed, 0) < 0.5
    expected = dict(zip(q.token_ids, (num * p for p in q.probs), strict=True))
    assert sum((drawn[i] - expected[i]) ** 2 / expected[i] for i in expected) < 16.3
    for token_id, times in drawn.items():
        assert abs(below[token_id] - times / 2) < 3.5 * math.sqrt(times / 4)


def test_a_drawn_chain_stops_before_a_draw_and_not_after_it() -> None:
    """Whether a node is proposed does not depend on its own token: an unlikely one is kept, and ends the chain."""
    after, rule = NextToken(5, (5, 7, 9, 11), LOGPROBS), GrowthRule(min_probability=0.2, drawn=True)
    lengths = set()
    for seed in range(60):
        draft = GrowingDraft(slot(4, 4, seed=seed), rule, VOCAB)
        always(after, [draft])
        tree = draft.tree()
        q = dict(zip(tree.drawn_from[0].token_ids, tree.drawn_from[0].probs, strict=True))
        product = 1.0
        for token_id in tree.token_ids:
            assert product >= 0.2
            product *= q[token_id]
        assert product < 0.2 or tree.num_nodes == 4
        lengths.add(tree.num_nodes)
    assert len(lengths) > 1


@given(
    st.lists(st.floats(-30, 0), min_size=1, max_size=20),
    st.one_of(st.just(0.0), st.floats(0.05, 3.0)),
    st.integers(0, 2**32),
)
def test_distributions_are_whole(logprobs: list[float], temperature: float, seed: int) -> None:
    after = NextToken(3, tuple(range(len(logprobs))), logprobs)
    q = likeliest_at(after, temperature, VOCAB)
    assert math.fsum(q.probs) == pytest.approx(1) and q.token_ids == after.top_ids
    heat = temperature or 1.0
    assert all(
        a == pytest.approx(b * math.exp((x - y) / heat), abs=1e-12)
        for (a, x), (b, y) in zip(zip(q.probs, logprobs, strict=True), [(q.probs[0], logprobs[0])] * 20, strict=False)
    )
    draft = GrowingDraft(slot(1, 1, temperature, seed), GrowthRule(min_probability=0.0, drawn=True), VOCAB)
    always(after, [draft])
    assert draft.tree().token_ids[0] in q.token_ids or temperature == 0


def test_rules_out_of_range() -> None:
    for settings, name in (({"width": 0}, "width"), ({"min_probability": 2}, "min_probability")):
        with pytest.raises(ValueError, match=f"GrowthRule.{name} must be in"):
            GrowthRule(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="drawn needs width 1"):
        GrowthRule(width=2, drawn=True)
